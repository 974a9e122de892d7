"""The budgets of an evolutionary search: what a network may cost at most, by any number of measures at once."""

from __future__ import annotations

import math
from dataclasses import dataclass

from tfnas.core.cost import FLOOR
from tfnas.core.errors import InputError

_LIMITS = (
    "max_params",
    "max_macs",
    "max_layers",
    "target_lat",
    "max_ms",
    "max_memory",
    "max_effectiveness",
    "max_feature",
)


@dataclass(frozen=True, kw_only=True)
class BudgetSettings:
    """Upper limits on what a network costs; one that is exactly at a limit is within it.

    Raises InputError for a limit that is not a positive, finite number, and for latencies without a table.
    """

    max_params: float | None = None
    """Most parameters, such as 1e6."""
    max_macs: float | None = None
    """Most multiply-accumulates of one image, such as 400e6."""
    max_layers: int | None = None
    """Most layers: of notation zennas those of its super-blocks, of notation tinynas convolutions without those of
    shortcuts and squeeze-and-excite, of other families the parts of a network but its classifier."""
    target_lat: float | None = None
    """Latency to meet, also spelled --target: milliseconds by the latency table. The result takes 99.5 to 100 % of
    it."""
    max_ms: float | None = None
    """Most milliseconds by the latency table; the result may be far faster."""
    max_memory: float | None = None
    """Most bytes of activations that are live at once for one image, in float32: operations run one after the other,
    and a tensor is freed after its last use."""
    max_effectiveness: float | None = None
    """Largest effectiveness, DeepMAD's measure of depth over width (its searches take 0.3 and 0.5)."""
    max_feature: float | None = None
    """Most bytes of feature maps of a quantised depthwise structure, as the TinyNAS program counts them."""
    lookup_path: str | None = None
    """Latency table of --target_lat and --max_ms. Default for MBConv spaces: the table shipped for the space."""
    reference_counts: bool = False
    """Count parameters and MACs as the original programs do in their searches: ZenNAS without squeeze-and-excite and
    with rounding of its own, TinyNAS without classifier and by bits. Default: as they are."""

    def __post_init__(self) -> None:
        for name in _LIMITS:
            limit = getattr(self, name)
            if limit is not None and not (math.isfinite(limit) and limit > 0):
                raise InputError(f"{name} must be a positive number, got {limit}")
        if self.target_lat is not None and self.max_ms is not None and self.max_ms < FLOOR * self.target_lat:
            raise InputError(
                f"--max_ms {self.max_ms} is below the {FLOOR * self.target_lat:.6g} ms that --target_lat "
                f"{self.target_lat} asks for at least: give one of them"
            )
        if self.lookup_path is not None and self.target_lat is None and self.max_ms is None:
            raise InputError("--lookup_path is for --target_lat and --max_ms: give one of them, or omit it")
