"""The family of training-free networks (ZenNet, DeepMAD, MAE-DET and their kin): built, counted, written, mutated.

A mutation changes one number of one super-block, the first and the last included: its width, bottleneck, number of
layers, kernel, expansion, kind, or bits. Strides stay, channels are chained again, widths are multiples of 8, and
kernels never grow beyond what the map they see is worth. Source of the rules: ZenNAS and TinyNAS; where one of them
leaves parts of a structure out of reach by accident (the last block, its sampling weights), this does not.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, ClassVar, TypeVar

from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import MOST_CLASSES, MOST_IMAGE_SIZE, check_number
from tfnas.core.units import PLAIN, CostPart
from tfnas.spaces.zen.structure import Structure, round_to_8
from tfnas.spaces.zen.structure_counts import structure_parts
from tfnas.spaces.zen.super_block import SuperBlock

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

T = TypeVar("T")
_TRIES = 100
_EXPANSIONS = (1, 2, 4, 6)
_BITS = (3, 4, 5, 6)
_SMALLEST_KERNEL = 3
_KERNEL_SHARE = 1.5
"""A kernel of which so much is more than the map has pixels a side sees mostly padding."""
_KINDS = ("kxkx", "k1kxk1")
"""Block types that may take each other's place, in notation zennas."""


@dataclass(frozen=True, kw_only=True)
class MutationRules:
    """What mutation may reach. Values of a structure that lie outside stay until they are changed."""

    scales: tuple[float, ...] = (2.5, 2.0, 1.5, 1.25, 0.8, 2 / 3, 0.5, 0.4)
    """Factors of widths, which are then rounded to a multiple of 8."""
    largest_width: int = 2048
    """Most channels of a block."""
    kernels: tuple[int, ...] = (3, 5, 7)
    """Kernels of residual blocks and of stems."""
    layer_steps: tuple[int, ...] = (-2, -1, 1, 2)
    """Changes of a block's number of layers."""
    most_layers: int = 12
    """Most layers of a block."""


def mutate_structure(
    structure: Structure, resolution: int, rules: MutationRules, generator: np.random.Generator
) -> Structure:
    """A valid structure that differs in one number of one block; the same one where no block can change."""
    for _ in range(_TRIES):
        number = int(generator.integers(len(structure.blocks)))
        block = structure.blocks[number]
        name = _pick(_fields(block, structure.notation), generator)
        changed = _changed(block, name, rules, generator)
        if changed is None or changed == block:
            continue
        try:
            found = _chained(structure, number, changed)
            if name in ("kernel", "block_type") and not _kernel_fits(found, number, resolution):
                continue
        except InputError:  # groups that do not divide channels, a kernel that a notation has no name for
            continue
        return found
    return structure


def _fields(block: SuperBlock, notation: str) -> list[str]:
    """What of a block may change."""
    if block.block_type == PLAIN:
        return ["out_channels"] if block.kernel == 1 else ["out_channels", "kernel"]
    names = ["out_channels", "kernel", "bottleneck", "layers"]
    if notation == "zennas" and block.block_type in _KINDS:
        names.append("block_type")
    if block.expansion is not None:
        names.append("expansion")
    if block.quantized:
        names.append("bits")
    return names


def _changed(block: SuperBlock, name: str, rules: MutationRules, generator: np.random.Generator) -> SuperBlock | None:
    """The block with another value, where the one drawn may be."""
    if name in ("out_channels", "bottleneck"):
        old = getattr(block, name)
        width = round_to_8(old * _pick(rules.scales, generator))
        return None if width > max(rules.largest_width, old) else _with(block, name, width)
    if name == "layers":
        layers = block.layers + _pick(rules.layer_steps, generator)
        return None if not 1 <= layers <= max(rules.most_layers, block.layers) else _with_layers(block, layers)
    if name == "bits":
        return _with_other_bits(block, generator)
    if name == "block_type":
        return dataclasses.replace(block, block_type=_pick(_KINDS, generator))
    choices: Sequence[int] = rules.kernels if name == "kernel" else _EXPANSIONS
    return _with(block, name, _pick(choices, generator))


def _with(block: SuperBlock, name: str, value: Any) -> SuperBlock:
    fields: dict[str, Any] = {name: value}
    return dataclasses.replace(block, **fields)


def _with_layers(block: SuperBlock, layers: int) -> SuperBlock:
    """With more or fewer layers; the bits of new ones are those of the first."""

    def fitted(bits: tuple[int, ...]) -> tuple[int, ...]:
        per_layer = len(bits) // block.layers
        return (bits + bits[:per_layer] * max(0, layers - block.layers))[: per_layer * layers]

    return dataclasses.replace(
        block, layers=layers, weight_bits=fitted(block.weight_bits), activation_bits=fitted(block.activation_bits)
    )


def _with_other_bits(block: SuperBlock, generator: np.random.Generator) -> SuperBlock | None:
    """With the bits of one layer's weights or inputs a step higher or lower, the same for all of its convolutions."""
    name = _pick(("weight_bits", "activation_bits"), generator)
    bits = list(getattr(block, name))
    if not bits or len(bits) % block.layers:
        return None
    per_layer, layer = len(bits) // block.layers, int(generator.integers(block.layers))
    first = layer * per_layer
    value = bits[first] + _pick((-1, 1), generator)
    if value not in _BITS:
        return None
    bits[first : first + per_layer] = [value] * per_layer
    return _with(block, name, tuple(bits))


def _chained(structure: Structure, number: int, changed: SuperBlock) -> Structure:
    """The structure with a block replaced, and the one behind it taking as many channels as that gives."""
    blocks = list(structure.blocks)
    blocks[number] = changed
    if number + 1 < len(blocks):
        blocks[number + 1] = dataclasses.replace(blocks[number + 1], in_channels=changed.out_channels)
    return Structure(tuple(blocks), structure.notation)


def _kernel_fits(structure: Structure, number: int, resolution: int) -> bool:
    """Whether the kernel of a block is small enough for the map that the block receives."""
    first = next(unit for unit in structure.units(resolution) if unit.block == number)
    kernel = structure.blocks[number].kernel
    return kernel <= _SMALLEST_KERNEL or kernel * _KERNEL_SHARE <= first.resolution_in


def _pick(values: Sequence[T], generator: np.random.Generator) -> T:
    return values[int(generator.integers(len(values)))]


IMAGE_SIZE = 224
NUM_CLASSES = 1000
"""What a structure's text alone does not say."""
SAMPLING_MUTATIONS = 8
STRUCTURE_FILE = "structure.txt"
_HEAD = re.compile(r"\s*i(\d{1,9})x(\d{1,9})_n(\d{1,9})(_se)?:", re.ASCII)
_BODY = re.compile(r"\s*(?:[{\[#\ufeff]|[A-Za-z_]\w*\(|Super)")
_INITIAL = (
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,1,8,1)SuperResK3K3(16,32,2,16,1)SuperResK3K3(32,64,2,32,1)"
    "SuperResK3K3(64,64,2,32,1)SuperConvK1BNRELU(64,128,1,1)"
)


@dataclass(frozen=True)
class StructureArchitecture:
    """A structure as a network for images of a size and a number of classes: what is trained, tested and exported.

    `use_se` adds squeeze-and-excite to notation zennas. Raises InputError for a structure of videos.
    """

    family: ClassVar[str] = "zen"
    structure: Structure
    image_size: int = IMAGE_SIZE
    num_classes: int = NUM_CLASSES
    use_se: bool = False

    def __post_init__(self) -> None:
        check_number("image_size", self.image_size, MOST_IMAGE_SIZE)
        check_number("num_classes", self.num_classes, MOST_CLASSES)
        if self.structure.is_video:
            raise InputError("the structure takes videos: it can be scored and counted, but takes no images")
        if self.use_se and self.structure.notation != "zennas":
            raise InputError("squeeze-and-excite can be added to notation zennas only; in tinynas the blocks say it")

    @property
    def in_channels(self) -> int:
        """Channels of its images."""
        return self.structure.in_channels

    def adapted(self, *, image_size: int, num_classes: int) -> StructureArchitecture:
        """The same network for other images and classes."""
        return dataclasses.replace(self, image_size=image_size, num_classes=num_classes)

    def to_text(self) -> str:
        """Images and classes, then the structure in its notation: `i3x32_n10:SuperConvK3BNRELU(3,8,1,1)...`."""
        se = "_se" if self.use_se else ""
        return f"i{self.in_channels}x{self.image_size}_n{self.num_classes}{se}:{self.structure.to_text()}"

    @classmethod
    def parse(cls, text: str) -> StructureArchitecture:
        """Read the text form, or a structure's text alone, which is then for 224 pixels and 1000 classes.

        Raises InputError with the place and the reason.
        """
        head = _HEAD.match(text)
        if head is None:
            return cls(Structure.parse(text))
        channels, size, classes = (int(number) for number in head.groups()[:3])
        structure = Structure.parse(text[head.end() :])
        if channels != structure.in_channels:
            raise InputError(f"its images have {channels} channels, but its first block takes {structure.in_channels}")
        return cls(structure, size, classes, head[4] is not None)


@dataclass(frozen=True)
class ZenFamily:
    """Structures that mutations of `initial` reach under `rules`."""

    initial: StructureArchitecture = field(
        default_factory=lambda: StructureArchitecture(Structure.parse(_INITIAL), image_size=32, num_classes=10)
    )
    rules: MutationRules = field(default_factory=MutationRules)
    name: str = "zen"

    def sample(self, generator: np.random.Generator) -> StructureArchitecture:
        """The initial structure after as many mutations as it has blocks, times eight."""
        drawn = self.initial
        for _ in range(SAMPLING_MUTATIONS * len(drawn.structure.blocks)):
            drawn = self.mutate(drawn, generator)
        return drawn

    def mutate(self, architecture: StructureArchitecture, generator: np.random.Generator) -> StructureArchitecture:
        """One number of one block changed, see `tfnas.spaces.zen.zen_family`."""
        found = mutate_structure(architecture.structure, architecture.image_size, self.rules, generator)
        return dataclasses.replace(architecture, structure=found)

    def cost_parts(self, architecture: StructureArchitecture) -> tuple[CostPart, ...]:
        """Units and classifier."""
        given = architecture
        return structure_parts(given.structure, given.image_size, given.num_classes, use_se=given.use_se)

    def build(
        self,
        architecture: StructureArchitecture,
        num_classes: int | None = None,
        *,
        dropout_rate: float = 0.0,
        drop_connect_rate: float = 0.0,
        residuals: bool = True,
    ) -> nn.Module:
        """The StructureNetwork of the structure."""
        from tfnas.spaces.zen.structure_network import StructureNetwork

        return StructureNetwork(
            architecture.structure,
            num_classes=architecture.num_classes if num_classes is None else num_classes,
            use_se=architecture.use_se,
            residuals=residuals,
            dropout_rate=dropout_rate,
            drop_connect_rate=drop_connect_rate,
        )

    def recognizes(self, text: str) -> bool:
        """Whether it is a structure's text, with images and classes before it or alone."""
        head = _HEAD.match(text)
        return _BODY.match(text, 0 if head is None else head.end()) is not None

    def parse(self, text: str) -> StructureArchitecture:
        """Read the text form. Raises InputError with the place and the reason."""
        return StructureArchitecture.parse(text)

    def format(self, architecture: StructureArchitecture) -> str:
        """The text form."""
        return architecture.to_text()

    def says_images(self, text: str) -> bool:
        """Not where it is the structure's text alone."""
        return not is_bare_structure(text)

    def original_form(self, architecture: StructureArchitecture) -> tuple[str, str]:
        """The structure in its notation, as ZenNAS and TinyNAS read it."""
        return STRUCTURE_FILE, architecture.structure.to_text() + "\n"


def is_bare_structure(text: str) -> bool:
    """Whether a text is meant for a structure alone, which says neither its images' size nor its classes."""
    return _BODY.match(text) is not None
