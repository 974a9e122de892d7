"""This package's own networks, built for a score or taken apart again.

Networks that a score may do with as it likes: private copies of what a caller hands in.

What is scored: an architecture, a structure, the text of either, or a module.
"""

from __future__ import annotations

import copy
import dataclasses
import hashlib
import re
import sys
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch
from torch import nn
from torch.nn.utils import parametrize

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.nn.network import Network
from tfnas.proxies.initialise import batch_norms
from tfnas.proxies.score_options import IMAGE_SIZE, NUM_CLASSES, ScoreOptions
from tfnas.proxies.unit_entropy import Chain, architecture_chain, structure_chain
from tfnas.spaces.families import families, parse_architecture
from tfnas.spaces.zen import zoo_networks
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_network import StructureNetwork
from tfnas.spaces.zen.zen_family import StructureArchitecture, is_bare_structure
from tfnas.utils.devices import named_device

if TYPE_CHECKING:
    from torch import Tensor, nn

    from tfnas.proxies.initialise import RandomGenerator


_NAME = re.compile(r"(?:init:)?[\w/-]+", re.ASCII)
"""What names of the zoo look like, and texts of structures do not."""


def described(module: nn.Module) -> Architecture | Structure | None:
    """What one of this package's own networks was made from; None for any other module."""
    if type(module) is Network:
        return module.architecture
    if type(module) is StructureNetwork:
        return module.structure
    return None


def build(
    description: Architecture | Structure, *, num_classes: int, residuals: bool, use_se: bool = False
) -> nn.Module:
    """The network of a description, with weights of no meaning. An architecture has classes of its own."""
    with torch.device("meta"):  # no time for weights that are drawn again, and no number from the global generator
        network: nn.Module
        if isinstance(description, Architecture):
            network = Network(description, residuals=residuals)
        else:
            network = StructureNetwork(description, num_classes=num_classes, residuals=residuals, use_se=use_se)
    return network.to_empty(device="cpu")


def rebuild(module: nn.Module, *, residuals: bool) -> nn.Module:
    """A network like this package's own `module`, with or without shortcuts, with weights of no meaning."""
    with torch.device("meta"):
        network: nn.Module
        if isinstance(module, Network):
            network = Network(
                module.architecture, num_classes=module.classifier.linear.out_features, residuals=residuals
            )
        else:
            assert isinstance(module, StructureNetwork)
            network = StructureNetwork(
                module.structure,
                num_classes=None if module.classifier is None else module.classifier.out_features,
                use_se=module.use_se,
                residuals=residuals,
                batch_norm=module.batch_norm,
            )
    return network.to_empty(device="cpu")


_HOOKS = (
    "_forward_pre_hooks",
    "_forward_hooks",
    "_backward_pre_hooks",
    "_backward_hooks",
)


@contextmanager
def preserve_state(options: ScoreOptions) -> Iterator[None]:
    """Run the body with gradients on, and give the global generators back as they were."""
    device = named_device(options.device)
    devices = [] if device.type == "cpu" else [device.index or 0]
    with torch.random.fork_rng(devices), torch.inference_mode(False), torch.enable_grad():
        torch.default_generator.manual_seed(options.seed)  # for modules that draw numbers in their forward pass
        with torch.autocast(device.type, enabled=False):
            yield


def private_copy(module: nn.Module) -> nn.Module:
    """A copy without the hooks, which would tell their owner of passes that are not theirs.

    Raises InputError where the module cannot be copied, and where its weights are made by hooks or parametrizations, so
    that they cannot be drawn.
    """
    module = getattr(module, "_orig_mod", module)  # what torch.compile was given
    memo: dict[int, Any] = {}
    for name, part in module.named_modules():
        if parametrize.is_parametrized(part) or any(map(_torchs_own, part._forward_pre_hooks.values())):
            raise InputError(
                f"{name} ({type(part).__name__}) makes its weights by a parametrization, so they cannot be drawn anew: "
                "score the network without it"
            )
        for kind in _HOOKS:
            memo[id(getattr(part, kind))] = OrderedDict()
    try:
        copied = copy.deepcopy(module, memo)
    except (RuntimeError, TypeError, ValueError) as error:
        raise InputError(f"{type(module).__name__} cannot be copied, and must not be changed: {error}") from error
    assert isinstance(copied, nn.Module)
    return copied


def _torchs_own(hook: object) -> bool:
    """Whether a hook is PyTorch's and makes a weight (such as weight norm's), and no observer."""
    return type(hook).__module__.startswith("torch.nn.utils.")


def prepared(network: nn.Module, options: ScoreOptions) -> nn.Module:
    """The network on the device, in the precision, with all gradients on; batch norms train, dropout does not."""
    network.to(device=named_device(options.device), dtype=getattr(torch, options.dtype))
    network.requires_grad_(True).eval()
    for norm in batch_norms(network):
        norm.train()
        if norm.running_var is None:
            norm.track_running_stats = True
            like = next(network.parameters())
            norm.running_mean = torch.zeros(norm.num_features, device=like.device, dtype=like.dtype)
            norm.running_var = torch.ones(norm.num_features, device=like.device, dtype=like.dtype)
            norm.num_batches_tracked = torch.zeros((), device=like.device, dtype=torch.long)
    return network


def without_batch_norm(network: nn.Module) -> nn.Module:
    """The network with every batch norm replaced by the identity, in place."""
    norms = set(batch_norms(network))
    for module in list(network.modules()):
        for name, child in list(module.named_children()):
            if child in norms:
                setattr(module, name, nn.Identity())
    return network


@dataclass(frozen=True, eq=False)
class ScoredNetwork:
    """A network that gets a score, in one of the forms it can be given in."""

    text: str
    """What it is called in messages: its text form, or the class of a module."""
    description: Architecture | Structure | None
    """What the network is, where that is known."""
    module: nn.Module | None
    """The module that was given, if it was one. It is never changed."""
    sized: NetworkArchitecture | None = None
    """Of a structure, and of a family from outside, what was given: with images and classes."""

    @classmethod
    def of(cls, given: Any) -> ScoredNetwork:
        """The subject of whatever was given. Raises InputError for what cannot be scored, and for malformed texts."""
        if isinstance(given, Architecture | Structure):
            return cls(given.to_text(), given, None)
        if isinstance(given, StructureArchitecture):
            return cls(given.to_text(), given.structure, None, given)
        if isinstance(given, str):
            return cls._of_text(given)
        given_family = getattr(given, "family", None)
        family = families().get(given_family) if isinstance(given_family, str) else None
        if family is not None:  # of a family from outside: as a module
            return cls(family.format(given), None, family.build(given), given)
        if "torch" in sys.modules:  # else nobody can have made a module
            from torch import nn

            if isinstance(given, nn.Module):
                description = _description_of(given)
                name = type(given).__name__
                return cls(name if description is None else description.to_text(), description, given)
        raise InputError(
            f"cannot score a {type(given).__name__}: give an architecture, a Structure, the text of either, a name of "
            "the zoo, or a module"
        )

    @classmethod
    def _of_text(cls, given: str) -> ScoredNetwork:
        if _NAME.fullmatch(given):
            known = zoo_networks.facts(given).structure
            return cls(given, known, None, None if known.is_video else zoo_networks.zoo_architecture(given))
        if is_bare_structure(given):
            return cls(given.strip(), Structure.parse(given), None)
        return cls.of(parse_architecture(given))

    # ---- without torch ----------------------------------------------------------------------------------------

    def image_size(self, options: ScoreOptions) -> int:
        """Pixels a side: as asked for, else the size of the given images, the architecture's own, or 224."""
        if options.image_size is not None:
            return options.image_size
        if options.images is not None:
            return int(options.images.shape[-1])
        known = self.description if isinstance(self.description, Architecture) else self.sized
        return IMAGE_SIZE if known is None else known.image_size

    def architecture(self, options: ScoreOptions) -> Architecture | None:
        """The architecture with the image size and classes that are asked for; None where there is none."""
        if not isinstance(self.description, Architecture):
            return None
        size, classes = self.image_size(options), options.num_classes or self.description.num_classes
        if (size, classes) == (self.description.image_size, self.description.num_classes):
            return self.description
        return dataclasses.replace(self.description, image_size=size, num_classes=classes)

    def structure(self, score: str, notation: str | None = None) -> Structure:
        """The structure, where it is one (of that notation); InputError says that the score needs it."""
        if not isinstance(self.description, Structure) or notation not in (None, self.description.notation):
            kind = {"zennas": "a ZenNAS", "tinynas": "a TinyNAS", None: "a"}[notation]
            raise InputError(f"{score} needs {kind} structure, and got {self.kind}")
        return self.description

    @property
    def kind(self) -> str:
        """What it is, for messages."""
        if isinstance(self.description, Structure):
            return f"a structure of notation {self.description.notation}"
        return "an architecture" if self.description is not None else f"a module ({self.text})"

    def chain(self, options: ScoreOptions, score: str, *, floor: bool = False) -> Chain:
        """Its convolutions in order, with their sizes (`floor`: rounded down at a stride, as the programs have it).

        Raises InputError for a module that is not of this package: its main path cannot be told from its shortcuts.
        """
        if isinstance(self.description, Structure):
            frames = options.frames if self.description.is_video else 1
            return structure_chain(self.description, self.image_size(options), frames, floor=floor)
        architecture = self.architecture(options)
        if architecture is None:
            raise InputError(
                f"{score} needs an architecture or a structure: in a module ({self.text}) the main path cannot be told "
                "from the shortcuts"
            )
        return architecture_chain(architecture)

    @property
    def use_se(self) -> bool:
        """Whether squeeze-and-excite is added to the structure."""
        return isinstance(self.sized, StructureArchitecture) and self.sized.use_se

    def fingerprint(self) -> int:
        """A number that stands for the network: of its text, or of a module's names and shapes."""
        text = self.text
        if self.description is None and self.module is not None:
            text += "".join(f"|{name}{tuple(value.shape)}" for name, value in self.module.state_dict().items())
        return int.from_bytes(hashlib.sha256(text.encode()).digest()[:7], "big")

    # ---- with torch -------------------------------------------------------------------------------------------

    def network(self, options: ScoreOptions, *, residuals: bool) -> nn.Module:
        """A network of one's own, on the device and in the precision asked for; its weights are to be drawn.

        Batch norms train and dropout does not act. Without `residuals` it has no shortcuts, except that those of a
        module that is not of this package stay. A module that was given keeps the rest of its form.
        """

        keep = residuals if options.residuals is None else options.residuals
        if self.module is None:
            assert self.description is not None
            classes = options.num_classes or (NUM_CLASSES if self.sized is None else self.sized.num_classes)
            description = self.architecture(options) or self.description
            network = build(description, num_classes=classes, residuals=keep, use_se=self.use_se)
        elif self.description is not None and not keep:
            network = rebuild(self.module, residuals=False)
        else:
            network = private_copy(self.module)
        return prepared(network, options)

    def images(self, options: ScoreOptions, draws: RandomGenerator, *, given: bool = True) -> Tensor:
        """A batch of images or clips: those of the options if they may be used (`given`), else Gaussian noise.

        (N, channels, height, width), or (N, channels, frames, height, width).
        """
        if given and options.images is not None:
            images = options.images
        else:
            images = draws.images(self.image_shape(options))
        return self.placed(images, options)

    def placed(self, tensor: Tensor, options: ScoreOptions) -> Tensor:
        """The tensor on the device and in the precision asked for."""
        import torch

        from tfnas.utils.devices import named_device

        return tensor.to(device=named_device(options.device), dtype=getattr(torch, options.dtype))

    def image_shape(self, options: ScoreOptions) -> tuple[int, ...]:
        """The shape of a batch of noise: (N, channels, [frames,] height, width)."""
        size = self.image_size(options)
        if isinstance(self.description, Structure):
            frames = (options.frames,) if self.description.is_video else ()
            shape: tuple[int, ...] = (self.description.in_channels, *frames)
        elif self.description is not None:
            shape = (self.description.first_stem.in_channels,)
        else:
            from tfnas.nn.counting import input_shape

            assert self.module is not None
            shape = input_shape(self.module, options.frames)
        return (options.batch_size, *shape, size, size)


def _description_of(module: nn.Module) -> Architecture | Structure | None:
    """The architecture or structure of this package's own networks."""

    return described(module)
