"""What a family of networks is: one protocol for everything that takes an architecture.

A family draws architectures (`sample`, `mutate`), says what a cost adds up (`cost_parts`), builds the network and has a
text form. `tfnas.spaces.families` has those that there are, and takes more.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    import numpy as np
    from torch import nn
    from typing_extensions import Self

    from tfnas.core.units import CostPart


class NetworkArchitecture(Protocol):
    """A network as frozen data, of whatever family."""

    @property
    def family(self) -> str:
        """The name of its family."""

    @property
    def image_size(self) -> int:
        """Pixels along a side of its images."""

    @property
    def in_channels(self) -> int:
        """Channels of its images."""

    @property
    def num_classes(self) -> int:
        """Outputs of its classifier."""

    def adapted(self, *, image_size: int, num_classes: int) -> Self:
        """The same network for other images and classes."""

    def to_text(self) -> str:
        """One line from which its family reads an equal architecture."""


class Family(Protocol):
    """Networks that are searched, read, counted and built in one way.

    An architecture handed in is one of the family's own. Equal generators in equal states draw equal architectures.
    """

    @property
    def name(self) -> str:
        """The name that its architectures give as `family`; files hold it."""

    def sample(self, generator: np.random.Generator) -> Any:
        """Draw an architecture."""

    def mutate(self, architecture: Any, generator: np.random.Generator) -> Any:
        """Draw a valid architecture that differs from this one a little.

        Raises InputError where it is none of the family's space.
        """

    def cost_parts(self, architecture: Any) -> tuple[CostPart, ...]:
        """Its parts in order; the last is the classifier, which receives the last feature map."""

    def build(
        self,
        architecture: Any,
        num_classes: int | None = None,
        *,
        dropout_rate: float = 0.0,
        drop_connect_rate: float = 0.0,
        residuals: bool = True,
    ) -> nn.Module:
        """Its network: images (N, channels, H, W) to logits (N, classes), with PyTorch's initial weights.

        `num_classes` replaces the architecture's own. The rates act in training only; without `residuals` there are no
        shortcuts.
        """

    def recognizes(self, text: str) -> bool:
        """Whether a text is meant for this family, well-formed or not."""

    def parse(self, text: str) -> Any:
        """Read the text form. Raises InputError with the place and the reason."""

    def format(self, architecture: Any) -> str:
        """One line that `parse` reads again."""

    def says_images(self, text: str) -> bool:
        """Whether a text form says image size and classes; else they are to be adapted to."""

    def original_form(self, architecture: Any) -> tuple[str, str] | None:
        """The form that the program which its architectures are known from reads: the file's name and its contents."""
