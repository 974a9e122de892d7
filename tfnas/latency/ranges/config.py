"""Everything a user can say about the range of a space: one typed definition for command line and YAML file."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfnas.errors import InputError


@dataclass(frozen=True, kw_only=True)
class RangeConfig:
    """Settings of the range command.

    Raises:
        InputError: A value is outside its range, or neither space nor table is named.
    """

    space: str | None = None
    """Search space: imagenet, cifar, digits or a YAML file. Default: the one the table was measured for."""
    lookup_path: str | None = None
    """Latency table. Default: the one shipped for the space."""
    target_lat: float | None = None
    """A target in milliseconds, or in what the table counts: say whether it is inside; exit status 3 if it is not."""
    num_classes: int | None = None
    """Classes of the networks. Default: as many as the table was measured for."""
    image_size: int | None = None
    """Side of the input in pixels; there must be a table for it. Default: the space's."""
    width_multiple: int | None = None
    """Only widths that are multiples of it. Default: the space's own, which is any width."""
    json: bool = False
    """Print one JSON object with every figure as it is, in place of tables."""
    seed: int = 2
    """Taken by every command; nothing is drawn here, so it changes nothing."""

    def __post_init__(self) -> None:
        if self.space is None and self.lookup_path is None:
            raise InputError("give --space (imagenet, cifar, digits or a YAML file), or a table with --lookup_path")
        for name in ("num_classes", "image_size", "width_multiple"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InputError(f"--{name} must be 1 or more, got {value}")
        if self.target_lat is not None and not (math.isfinite(self.target_lat) and self.target_lat > 0):
            raise InputError(f"--target_lat must be a positive number, got {self.target_lat}")
