"""Networks that training-free programs write as structures: reading, printing, building and counting them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.structures.block import SuperBlock
from tfnas.structures.book import BookCounts, book_counts
from tfnas.structures.counting import real_counts
from tfnas.structures.structure import Structure
from tfnas.structures.units import Conv, Stage, Unit

if TYPE_CHECKING:
    from tfnas.structures.network import StructureNetwork
    from tfnas.structures.published import load_published

__all__ = [
    "BookCounts",
    "Conv",
    "Stage",
    "Structure",
    "StructureNetwork",
    "SuperBlock",
    "Unit",
    "book_counts",
    "load_published",
    "real_counts",
]

__getattr__ = lazy_names(
    "tfnas.structures",
    {"StructureNetwork": "tfnas.structures.network", "load_published": "tfnas.structures.published"},
)
