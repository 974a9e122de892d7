"""What is scored, in one form: an architecture of any family, a structure, the text of either, a zoo name, or a module.

Torch is imported by the methods that need a network only.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
import sys
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.proxies.score_options import IMAGE_SIZE, NUM_CLASSES, ScoreOptions
from tfnas.proxies.unit_entropy import Chain
from tfnas.spaces.families import find_family, parse_architecture
from tfnas.spaces.mbconv.mbconv_family import architecture_units
from tfnas.spaces.zen import zoo_networks
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.zen_family import FRAMES, StructureArchitecture, is_bare_structure

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfnas.core.family import Family, NetworkArchitecture
    from tfnas.proxies.network_preparation import RandomGenerator

_ZOO_NAME = re.compile(r"(?:init:)?[\w/-]+", re.ASCII)
"""Names of the zoo match it, texts of architectures do not."""


def _family(name: object) -> Family | None:
    """The family of that name, if there is one."""
    try:
        return find_family(name) if isinstance(name, str) else None
    except InputError:
        return None


@dataclass(frozen=True, eq=False)
class ScoredNetwork:
    """A network to score."""

    name: str | None = None
    """What it is called in messages, if that is not the text form of the architecture."""
    architecture: NetworkArchitecture | None = None
    """The architecture with image size and classes, if these are known."""
    bare_structure: Structure | None = None
    """A structure without image size and classes, or one of videos."""
    module: nn.Module | None = None
    """The module that was given, if it was one. It is never changed."""

    @cached_property
    def text(self) -> str:
        """Its name in messages: the text form, or the class of a module."""
        return self.architecture.to_text() if self.name is None and self.architecture is not None else str(self.name)

    @classmethod
    def of(cls, given: object) -> ScoredNetwork:
        """Recognise what was given. Raises InputError for what cannot be scored, and for malformed texts."""
        if isinstance(given, Structure):
            return cls(given.to_text(), bare_structure=given)
        if isinstance(given, str):
            return cls._of_text(given)
        family = _family(getattr(given, "family", None))
        if family is not None:
            architecture: Any = given
            return cls(architecture=architecture)
        if "torch" in sys.modules:  # otherwise it cannot be a module
            from torch import nn

            if isinstance(given, nn.Module):
                return cls._of_module(given)
        raise InputError(
            f"cannot score a {type(given).__name__}: give an architecture, a Structure, the text of either, a name of "
            "the zoo, or a module"
        )

    @classmethod
    def _of_text(cls, given: str) -> ScoredNetwork:
        if _ZOO_NAME.fullmatch(given):
            structure = zoo_networks.facts(given).structure
            if structure.is_video:
                return cls(given, bare_structure=structure)
            return cls(given, zoo_networks.zoo_architecture(given))
        if is_bare_structure(given):
            return cls(given.strip(), bare_structure=Structure.parse(given))
        return cls.of(parse_architecture(given))

    @classmethod
    def _of_module(cls, module: nn.Module) -> ScoredNetwork:
        from tfnas.proxies.network_preparation import network_description

        known = network_description(module)
        if known is None:
            return cls(type(module).__name__, module=module)
        return dataclasses.replace(cls.of(known), module=module)

    # ---- without torch ----------------------------------------------------------------------------------------

    @property
    def is_known(self) -> bool:
        """Whether there is more than a module that is not this package's own."""
        return self.architecture is not None or self.bare_structure is not None

    @property
    def any_structure(self) -> Structure | None:
        """The structure, with or without image size and classes."""
        return (
            self.architecture.structure if isinstance(self.architecture, StructureArchitecture) else self.bare_structure
        )

    def image_size(self, options: ScoreOptions) -> int:
        """Pixels a side: as in the options, else that of the given images, the architecture's own, or 224."""
        if options.image_size is not None:
            return options.image_size
        if options.images is not None:
            return int(options.images.shape[-1])
        return IMAGE_SIZE if self.architecture is None else self.architecture.image_size

    def frames(self, options: ScoreOptions) -> int:
        """Frames of a clip: as in the options, else the architecture's own, or 16; 1 for structures of images."""
        if self.any_structure is not None and not self.any_structure.is_video:
            return 1
        own = self.architecture.frames if isinstance(self.architecture, StructureArchitecture) else FRAMES
        return own if options.frames is None else options.frames

    def adapted(self, options: ScoreOptions) -> NetworkArchitecture | None:
        """The architecture with the image size and classes of the options; None for other modules and bare videos."""
        size, found = self.image_size(options), self.architecture
        if found is not None:
            classes = options.num_classes or found.num_classes
            as_it_is = (size, classes) == (found.image_size, found.num_classes)
            return found if as_it_is else found.adapted(image_size=size, num_classes=classes)
        if self.bare_structure is None or self.bare_structure.is_video:
            return None
        return StructureArchitecture(self.bare_structure, size, options.num_classes or NUM_CLASSES)

    def structure_architecture(self, options: ScoreOptions) -> StructureArchitecture | None:
        """The structure with the image size and classes of the options, if it is one of images."""
        found = self.adapted(options)
        return found if isinstance(found, StructureArchitecture) and not found.structure.is_video else None

    def structure(self, score: str, notation: str | None = None) -> Structure:
        """The structure, if it is one (of that notation); InputError otherwise."""
        found = self.any_structure
        if found is None or notation not in (None, found.notation):
            kind = {"zennas": "a ZenNAS", "tinynas": "a TinyNAS", None: "a"}[notation]
            raise InputError(f"{score} needs {kind} structure, and got {self.kind}")
        return found

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        if self.any_structure is not None:
            return f"a structure of notation {self.any_structure.notation}"
        return "an architecture" if self.architecture is not None else f"a module ({self.text})"

    def chain(self, options: ScoreOptions, score: str, *, floor: bool = False) -> Chain:
        """Its units in order, with their sizes, which `floor` rounds down at a stride, as the programs do.

        Raises InputError for what is described by no units, such as other modules than this package's.
        """
        structure = self.any_structure
        if structure is not None:
            units = structure.units(self.image_size(options), self.frames(options), floor=floor)
            return Chain(units, structure.is_video)
        architecture = self.adapted(options)
        if not isinstance(architecture, Architecture):
            raise InputError(
                f"{score} needs an architecture or a structure: in {self.kind} the main path cannot be distinguished "
                "from the shortcuts"
            )
        return Chain(architecture_units(architecture))

    def fingerprint(self) -> int:
        """A number that identifies the network: from its text, or from a module's names and shapes."""
        text = self.text
        if not self.is_known and self.module is not None:
            text += "".join(f"|{name}{tuple(value.shape)}" for name, value in self.module.state_dict().items())
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    # ---- with torch -------------------------------------------------------------------------------------------

    def network(self, options: ScoreOptions, *, residuals: bool) -> nn.Module:
        """A private network on the device and in the precision of the options, whose weights are to be initialised.

        Batch norms are in training mode, dropout is off. Without `residuals` it has no shortcuts, except for other
        modules than this package's. A module that was given otherwise keeps its form.
        """
        from tfnas.proxies import network_preparation as preparation

        keep = residuals if options.residuals is None else options.residuals
        architecture, structure = self.adapted(options), self.any_structure
        if self.module is not None:
            rebuilt = self.is_known and not keep
            network = (preparation.without_residuals if rebuilt else preparation.private_copy)(self.module)
        elif structure is not None and structure.is_video:
            classes = NUM_CLASSES if architecture is None else architecture.num_classes
            network = preparation.build_video(structure, num_classes=options.num_classes or classes, residuals=keep)
        else:
            assert architecture is not None
            network = preparation.build(architecture, residuals=keep)
        return preparation.prepared(network, options.device, options.dtype)

    def initialised(self, options: ScoreOptions, rule: str, *, residuals: bool) -> tuple[nn.Module, RandomGenerator]:
        """A private network as `network` gives, and the generator that its weights were drawn from.

        They are drawn by the options' rule, else by `rule` (see `network_preparation.initialise`).
        """
        from tfnas.proxies.network_preparation import initialise

        network, generator = self.network(options, residuals=residuals), options.random_generator()
        initialise(network, generator, options.initialisation or rule)
        return network, generator

    def images(self, options: ScoreOptions, generator: RandomGenerator, *, given: bool = True) -> Tensor:
        """A batch of images or clips: those of the options if they may be used (`given`), else Gaussian noise.

        (N, channels, height, width), or (N, channels, frames, height, width).
        """
        use_given = given and options.images is not None
        images = options.images if use_given else generator.images(self.image_shape(options))
        assert images is not None
        return self.placed(images, options)

    def placed(self, tensor: Tensor, options: ScoreOptions) -> Tensor:
        """The tensor on the device and in the precision of the options."""
        import torch

        from tfnas.utils.devices import named_device

        return tensor.to(device=named_device(options.device), dtype=getattr(torch, options.dtype))

    def image_shape(self, options: ScoreOptions) -> tuple[int, ...]:
        """The shape of a batch of noise: (N, channels, [frames,] height, width)."""
        size, structure = self.image_size(options), self.any_structure
        if structure is not None and structure.is_video:
            shape: tuple[int, ...] = (structure.in_channels, self.frames(options))
        elif structure is not None or self.architecture is not None:
            known = structure or self.architecture
            assert known is not None
            shape = (known.in_channels,)
        else:
            from tfnas.nn.counting import input_shape

            assert self.module is not None
            shape = input_shape(self.module, self.frames(options))
        return (options.batch_size, *shape, size, size)
