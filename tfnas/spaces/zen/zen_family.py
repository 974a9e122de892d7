"""The family of training-free networks: structures of ZenNAS and TinyNAS (ZenNet, DeepMAD, MAE-DET and their kin)."""

from __future__ import annotations

import dataclasses
import re
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, ClassVar

from tfnas.core.errors import InputError
from tfnas.core.family import CostPart
from tfnas.core.mbconv_blocks import MOST_CLASSES, MOST_IMAGE_SIZE, check_number
from tfnas.spaces.zen.mutation import MutationRules, mutate_structure
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_parts import structure_parts

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

IMAGE_SIZE = 224
NUM_CLASSES = 1000
"""What a structure's text alone does not say."""
SAMPLING_MUTATIONS = 8
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
        """One number of one block changed, see `tfnas.spaces.zen.mutation`."""
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


def is_bare_structure(text: str) -> bool:
    """Whether a text is meant for a structure alone, which says neither its images' size nor its classes."""
    return _BODY.match(text) is not None
