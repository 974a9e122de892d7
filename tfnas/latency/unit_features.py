"""What the latency of a unit follows from, in closed form: work, memory traffic and operations of its convolutions.

A weighted sum of these with weights of 0 or more is the baseline of `unit_latency_model.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tfnas.core.units import ConvShape, Unit
from tfnas.spaces.zen.unit_shapes import CLASSIFIER, UnitShape

_KERNELS = ("1", "3", "5", "7 or more")
_KINDS = (*(f"full {kernel}" for kernel in _KERNELS), *(f"depthwise {kernel}" for kernel in _KERNELS))
_MANY_WEIGHTS = (2**19, 2**21, 2**23)
"""Of a convolution in float32: 2, 8 and 32 MB, where caches end."""
FEATURES = (
    *(f"MACs, {kind}" for kind in _KINDS),
    *(f"convolutions, {kind}" for kind in _KINDS),
    "activations read",
    "activations written",
    "activations touched again",
    "weights",
    *(f"weights beyond {count}" for count in _MANY_WEIGHTS),
    *(f"MACs with weights beyond {count}" for count in _MANY_WEIGHTS),
    "other operations",
    "MACs, classifier",
    "classifiers",
)
"""Of one image; a classifier counts as an operation of its own."""


def unit_features(shapes: Sequence[UnitShape]) -> NDArray[np.float64]:
    """A row for each unit, a column for each of `FEATURES`."""
    return np.array([_row(shape) for shape in shapes], dtype=np.float64).reshape(len(shapes), len(FEATURES))


def _row(shape: UnitShape) -> tuple[float, ...]:
    values = dict.fromkeys(FEATURES, 0.0)
    if shape.block_type == CLASSIFIER:
        values["activations read"] += shape.in_channels * shape.size**2
        values["MACs, classifier"] += shape.in_channels * shape.out_channels
        values["classifiers"] += 1
        return tuple(values.values())
    unit = shape.unit()
    for conv in unit.convs:
        _add_conv(values, conv)
    if unit.squeeze_excite is not None:
        _add_squeeze_excite(values, unit)
    if unit.shortcut is not None:
        _add_shortcut(values, unit)
    return tuple(values.values())


def _add_conv(values: dict[str, float], conv: ConvShape) -> None:
    read, written = conv.in_channels * conv.resolution_in**2, conv.out_channels * conv.positions
    kernel = _KERNELS[min(conv.kernel // 2, len(_KERNELS) - 1)]
    weights = conv.num_weights
    kind = f"{'depthwise' if conv.depthwise else 'full'} {kernel}"
    values[f"MACs, {kind}"] += weights * conv.positions
    values[f"convolutions, {kind}"] += 1
    values["weights"] += weights
    for count in _MANY_WEIGHTS:
        beyond = max(0, weights - count)
        values[f"weights beyond {count}"] += beyond
        values[f"MACs with weights beyond {count}"] += beyond * conv.positions
    values["activations read"] += read
    values["activations written"] += written


def _add_squeeze_excite(values: dict[str, float], unit: Unit) -> None:
    assert unit.squeeze_excite is not None
    positions = unit.convs[unit.squeeze_excite.after].positions
    values["activations touched again"] += 2 * unit.squeeze_excite.channels * positions
    values["other operations"] += 2
    for conv in unit.squeeze_excite.convs:
        _add_conv(values, conv)


def _add_shortcut(values: dict[str, float], unit: Unit) -> None:
    assert unit.shortcut is not None
    if unit.shortcut.pools:
        values["activations touched again"] += unit.in_channels * unit.resolution_in**2
        values["other operations"] += 1
    if unit.shortcut.projection is not None:
        _add_conv(values, unit.shortcut.projection)
    values["activations touched again"] += unit.out_channels * unit.resolution_out**2
    values["other operations"] += 1
