"""How far a table's interpolation is from points that were measured and not used."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from tfnas.latency.contents import TableContents

ALL = "all blocks"


@dataclass(frozen=True)
class InterpolationError:
    """Sizes of relative errors, in percent of what was measured, over so many points."""

    points: int
    median_percent: float
    p95_percent: float


def interpolation_errors(contents: TableContents) -> dict[str, InterpolationError]:
    """Over `ALL` held-out points, then by kind of block (`k3`, `k5 SE`); empty where the table holds none."""
    errors: dict[str, list[float]] = {}
    for key, held_out in contents.held_out.items():
        curve = contents.curves[key]
        foretold = curve.dense_ms(contents.classes)
        for width, ms in zip(held_out.widths, held_out.ms, strict=True):
            error = abs(float(foretold[width - curve.widths[0]]) / ms - 1) * 100
            for group in (ALL, _kind_of(key)):
                errors.setdefault(group, []).append(error)
    return {
        group: InterpolationError(len(row), float(np.median(row)), float(np.percentile(row, 95)))
        for group, row in sorted(errors.items(), key=lambda pair: (pair[0] != ALL, pair[0]))
    }


def _kind_of(key: str) -> str:
    """The kind of a block's key: its kernel, and whether it has SE."""
    _, _, _, se_channels, _, kernel, *_ = key.split("_")
    return kernel if se_channels == "0" else f"{kernel} SE"
