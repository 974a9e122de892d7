"""The family of training-free networks (ZenNet, DeepMAD, MAE-DET and their kin): built, counted, written, mutated.

What a mutation draws are the rules of a structure space: `tfnas.spaces.zen.structure_rules`.
"""

from __future__ import annotations

import dataclasses
import hashlib
import re
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, ClassVar

from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import MOST_CLASSES, MOST_IMAGE_SIZE, check_number
from tfnas.core.units import CostPart
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_counts import structure_parts
from tfnas.spaces.zen.structure_mutation import StructureMutation
from tfnas.spaces.zen.structure_rules import StructureRules, rules_of_blocks

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

    from tfnas.core.units import CostPart

IMAGE_SIZE = 224
NUM_CLASSES = 1000
"""What a structure's text alone does not say."""
STRUCTURE_FILE = "structure.txt"
FRAMES = 16
"""Of videos, where nothing says how many."""
_HEAD = re.compile(r"\s*i(\d{1,9})x(\d{1,9})(?:_f(\d{1,9}))?_n(\d{1,9})(_se)?:", re.ASCII)
_BODY = re.compile(r"\s*(?:[{\[#\ufeff]|[A-Za-z_]\w*\(|Super)")
_INITIAL = (
    "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,1,8,1)SuperResK3K3(16,32,2,16,1)SuperResK3K3(32,64,2,32,1)"
    "SuperResK3K3(64,64,2,32,1)SuperConvK1BNRELU(64,128,1,1)"
)


@dataclass(frozen=True)
class StructureArchitecture:
    """A structure as a network for images of a size, or for videos, and a number of classes.

    `use_se` adds squeeze-and-excite to notation zennas. `frames` are those of a video; 0 becomes 16, and of images 1.
    One of images is trained, tested and exported; one of videos can be searched, counted and scored.
    """

    family: ClassVar[str] = "zen"
    structure: Structure
    image_size: int = IMAGE_SIZE
    num_classes: int = NUM_CLASSES
    use_se: bool = False
    frames: int = 0

    def __post_init__(self) -> None:
        check_number("image_size", self.image_size, MOST_IMAGE_SIZE)
        check_number("num_classes", self.num_classes, MOST_CLASSES)
        if self.frames == 0:
            object.__setattr__(self, "frames", FRAMES if self.is_video else 1)
        check_number("frames", self.frames, MOST_IMAGE_SIZE)
        if self.frames > 1 and not self.is_video:
            raise InputError(f"the structure takes images, not videos of {self.frames} frames")
        if self.use_se and self.structure.notation != "zennas":
            raise InputError("squeeze-and-excite can be added to notation zennas only; in tinynas the blocks say it")

    def __hash__(self) -> int:
        """Of the structure alone, which remembers it: in a search all have the same images and classes."""
        return hash(self.structure)

    @property
    def in_channels(self) -> int:
        """Channels of its images."""
        return self.structure.in_channels

    @property
    def is_video(self) -> bool:
        """Whether it takes videos."""
        return self.structure.is_video

    def adapted(self, *, image_size: int, num_classes: int) -> StructureArchitecture:
        """The same network for other images and classes."""
        return dataclasses.replace(self, image_size=image_size, num_classes=num_classes)

    def with_structure(self, structure: Structure) -> StructureArchitecture:
        """The same images and classes for another structure that takes them, which is not checked."""
        found = object.__new__(StructureArchitecture)
        found.__dict__.update(self.__dict__, structure=structure)
        return found

    def to_text(self) -> str:
        """Images and classes, then the structure in its notation: `i3x32_n10:SuperConvK3BNRELU(3,8,1,1)...`.

        Of videos the frames, too: `i3x160_f13_n400:...`.
        """
        frames, se = f"_f{self.frames}" if self.is_video else "", "_se" if self.use_se else ""
        return f"i{self.in_channels}x{self.image_size}{frames}_n{self.num_classes}{se}:{self.structure.to_text()}"

    @classmethod
    def parse(cls, text: str) -> StructureArchitecture:
        """Read the text form, or a structure's text alone, which is then for 224 pixels and 1000 classes.

        Raises InputError with the place and the reason.
        """
        head = _HEAD.match(text)
        if head is None:
            return cls(Structure.parse(text))
        channels, size, classes = (int(head[number]) for number in (1, 2, 4))
        structure = Structure.parse(text[head.end() :])
        if channels != structure.in_channels:
            raise InputError(f"its images have {channels} channels, but its first block takes {structure.in_channels}")
        if head[3] is not None:
            check_number("frames", int(head[3]), MOST_IMAGE_SIZE)
        return cls(structure, size, classes, head[5] is not None, int(head[3] or 0))


@dataclass(frozen=True)
class ZenFamily:
    """Structures that mutations of `initial` reach under `rules`.

    The rules are those of the built-in space that has its block types, unless given; `max_layers`, counted as the
    program of its notation does, is what changes of fields look at.
    """

    initial: StructureArchitecture = field(
        default_factory=lambda: StructureArchitecture(Structure.parse(_INITIAL), image_size=32, num_classes=10)
    )
    rules: StructureRules | None = None
    max_layers: int | None = None
    name: str = "zen"

    @cached_property
    def mutation(self) -> StructureMutation:
        """What draws under the rules."""
        initial = self.initial.structure
        return StructureMutation(self.rules or rules_of_blocks(initial.blocks, initial.notation), self.max_layers)

    @property
    def fingerprint(self) -> str:
        """Short digest of what it draws: the rules, and the network that it begins at."""
        return hashlib.sha256(f"{self.mutation.rules!r} {self.initial.to_text()}".encode()).hexdigest()[:16]

    def sample(self, generator: np.random.Generator) -> StructureArchitecture:
        """The initial structure after as many mutations as it has blocks, times a number of the rules."""
        drawn = self.initial
        for _ in range(self.mutation.rules.sampling_mutations * len(drawn.structure.blocks)):
            drawn = self.mutate(drawn, generator)
        return drawn

    def mutate(
        self, architecture: StructureArchitecture, generator: np.random.Generator, changes: int | None = None
    ) -> StructureArchitecture:
        """Drawn under the rules: `changes` blocks or fields are another, as many as the rules say unless given.

        Raises InputError where nothing can change, and naming the block that has no place in the space.
        """
        found = self.mutation.mutate(architecture.structure, architecture.image_size, generator.random, changes)
        return architecture.with_structure(found)

    def cost_parts(self, architecture: StructureArchitecture) -> tuple[CostPart, ...]:
        """Units and classifier."""
        given = architecture
        return structure_parts(
            given.structure, given.image_size, given.num_classes, use_se=given.use_se, frames=given.frames
        )

    def build(
        self,
        architecture: StructureArchitecture,
        num_classes: int | None = None,
        *,
        dropout_rate: float = 0.0,
        drop_connect_rate: float = 0.0,
        residuals: bool = True,
    ) -> nn.Module:
        """The StructureNetwork of the structure. Raises InputError for one of videos, which nothing here trains."""
        if architecture.is_video:
            raise InputError(
                "the structure takes videos: it can be searched, counted and scored, but not trained, tested or "
                "exported; tfnas.StructureNetwork(structure) builds it for a program of your own"
            )
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
