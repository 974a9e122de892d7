"""What the latency of a unit follows from, in closed form: work, memory traffic and operations of its convolutions.

A weighted sum of these with weights of 0 or more is the baseline of `unit_latency_model.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache

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
    "other operations",
    "MACs, classifier",
    "classifiers",
)
"""Of one image; a classifier counts as an operation of its own."""
_KNOWN = 1 << 15


def unit_features(shapes: Sequence[UnitShape], multiple: int) -> NDArray[np.float64]:
    """A row for each unit, a column for each of `FEATURES`. Convolutions are taken as if their channels were rounded up
    to the multiple, as libraries do that compute on whole vectors of channels.
    """
    return np.array([_row(shape, multiple) for shape in shapes], dtype=np.float64).reshape(len(shapes), len(FEATURES))


@lru_cache(_KNOWN)
def _row(shape: UnitShape, multiple: int) -> tuple[float, ...]:
    values = dict.fromkeys(FEATURES, 0.0)
    if shape.block_type == CLASSIFIER:
        values["activations read"] += shape.in_channels * shape.size**2
        values["MACs, classifier"] += shape.in_channels * shape.out_channels
        values["classifiers"] += 1
        return tuple(values.values())
    unit = shape.unit()
    for conv in unit.convs:
        _add_conv(values, conv, multiple)
    if unit.squeeze_excite is not None:
        _add_squeeze_excite(values, unit, multiple)
    if unit.shortcut is not None:
        _add_shortcut(values, unit, multiple)
    return tuple(values.values())


def _add_conv(values: dict[str, float], conv: ConvShape, multiple: int) -> None:
    inputs, outputs = (_up(channels, multiple) for channels in (conv.in_channels, conv.out_channels))
    read, written = inputs * conv.resolution_in**2, outputs * conv.positions
    kernel = _KERNELS[min(conv.kernel // 2, len(_KERNELS) - 1)]
    weights = (1 if conv.depthwise else inputs // conv.groups) * outputs * conv.kernel**2
    kind = f"{'depthwise' if conv.depthwise else 'full'} {kernel}"
    values[f"MACs, {kind}"] += weights * conv.positions
    values[f"convolutions, {kind}"] += 1
    values["weights"] += weights
    for count in _MANY_WEIGHTS:
        values[f"weights beyond {count}"] += max(0, weights - count)
    values["activations read"] += read
    values["activations written"] += written


def _add_squeeze_excite(values: dict[str, float], unit: Unit, multiple: int) -> None:
    assert unit.squeeze_excite is not None
    positions = unit.convs[unit.squeeze_excite.after].positions
    values["activations touched again"] += 2 * unit.squeeze_excite.channels * positions
    values["other operations"] += 2
    for conv in unit.squeeze_excite.convs:
        _add_conv(values, conv, multiple)


def _add_shortcut(values: dict[str, float], unit: Unit, multiple: int) -> None:
    assert unit.shortcut is not None
    if unit.shortcut.pools:
        values["activations touched again"] += unit.in_channels * unit.resolution_in**2
        values["other operations"] += 1
    if unit.shortcut.projection is not None:
        _add_conv(values, unit.shortcut.projection, multiple)
    values["activations touched again"] += unit.out_channels * unit.resolution_out**2
    values["other operations"] += 1


def _up(channels: int, multiple: int) -> int:
    """The multiple above; few channels, such as those of an image, stay as they are."""
    return channels if channels < 8 else -(-channels // multiple) * multiple
