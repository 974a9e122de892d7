"""The parts that a data set divides into, before any transform is put on them."""

from __future__ import annotations

from dataclasses import dataclass

from tfnas.data.images import Source


@dataclass(frozen=True)
class Parts:
    """Raw images for training weights, for training the architecture, and (where there are any) for the final test."""

    weights: Source
    architecture: Source
    test: Source | None
    class_names: tuple[str, ...]
