"""Python's search for garbage in cycles, for loops that make many small objects and no cycles."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

_OBJECTS = 50_000
"""So many new ones are waited for; a search over candidates makes some dozens for each."""


@contextmanager
def collecting_seldom() -> Iterator[None]:
    """Look for cycles seldom, and not among the objects that there are already, of which PyTorch has half a million."""
    thresholds, freezes = gc.get_threshold(), gc.get_freeze_count() == 0
    gc.set_threshold(max(_OBJECTS, thresholds[0]) if thresholds[0] else 0, *thresholds[1:])
    if freezes:
        gc.freeze()
    try:
        yield
    finally:
        gc.set_threshold(*thresholds)
        if freezes:
            gc.unfreeze()
