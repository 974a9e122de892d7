"""What the latency of a unit follows from, in closed form: work, memory traffic and operations of its convolutions.

A weighted sum of these with weights of 0 or more is the baseline of `unit_latency_model.py`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tfnas.spaces.zen.structure import squeezed_channels
from tfnas.spaces.zen.super_block import BLOCK_TYPES
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


_PLACES = {name: place for place, name in enumerate(FEATURES)}
_MACS, _CONVS = _PLACES["MACs, full 1"], _PLACES["convolutions, full 1"]
_READ, _WRITTEN, _AGAIN = (_PLACES[f"activations {how}"] for how in ("read", "written", "touched again"))
_WEIGHTS, _BEYOND = _PLACES["weights"], _PLACES[f"weights beyond {_MANY_WEIGHTS[0]}"]
_MACS_BEYOND = _PLACES[f"MACs with weights beyond {_MANY_WEIGHTS[0]}"]
_OTHER = _PLACES["other operations"]


def unit_features(shapes: Sequence[UnitShape]) -> NDArray[np.float64]:
    """A row for each unit, a column for each of `FEATURES`."""
    return np.array([_row(shape) for shape in shapes], dtype=np.float64).reshape(len(shapes), len(FEATURES))


def unit_macs(shape: UnitShape) -> float:
    """Multiply-accumulates of the convolutions of a unit, or of a classifier's layer, without biases."""
    row = _row(shape)
    return sum(row[_MACS:_CONVS]) + row[_PLACES["MACs, classifier"]]


def _row(shape: UnitShape) -> list[float]:
    """In plain arithmetic, as a search asks for many; the tests compare it with the convolutions of the unit."""
    values = [0.0] * len(FEATURES)
    inputs, inside, outputs = shape.channels
    size, size_out = shape.size, -(-shape.size // shape.stride)
    if shape.block_type == CLASSIFIER:
        values[_READ] = inputs * size**2
        values[_PLACES["MACs, classifier"]] = inputs * outputs
        values[_PLACES["classifiers"]] = 1
        return values
    block_type = BLOCK_TYPES[shape.notation, shape.block_type]
    last = len(block_type.layers) - 1
    for number, layer in enumerate(block_type.layers):
        given, made = inside if number else inputs, outputs if number == last else inside
        kernel, groups = 1 if layer == "point" else shape.kernel, given if layer == "depthwise" else shape.groups
        before = size_out if number > block_type.strided else size
        _add_conv(values, (given, made, kernel, groups), before, size_out if number >= block_type.strided else size)
        if shape.squeeze_excite and number == block_type.squeeze_excite_after:
            values[_AGAIN] += 2 * made * (size_out if number >= block_type.strided else size) ** 2
            values[_OTHER] += 2
            squeezed = squeezed_channels(shape.notation, made)
            _add_conv(values, (made, squeezed, 1, 1), 1, 1)
            _add_conv(values, (squeezed, made, 1, 1), 1, 1)
    has_shortcut = block_type.shortcut != "none" and not (block_type.shortcut == "identity" and inputs != outputs)
    if has_shortcut:
        _add_shortcut(values, shape, size_out, pools=block_type.shortcut != "strided" and shape.stride > 1)
    return values


def _add_conv(values: list[float], conv: tuple[int, int, int, int], size: int, size_out: int) -> None:
    """A convolution: channels in and out, kernel and groups."""
    inputs, outputs, kernel, groups = conv
    weights, positions = inputs * outputs * kernel**2 // groups, size_out**2
    kind = min(kernel // 2, len(_KERNELS) - 1) + (len(_KERNELS) if groups == inputs == outputs else 0)
    values[_MACS + kind] += weights * positions
    values[_CONVS + kind] += 1
    values[_READ] += inputs * size**2
    values[_WRITTEN] += outputs * positions
    values[_WEIGHTS] += weights
    for place, count in enumerate(_MANY_WEIGHTS):
        if weights > count:
            values[_BEYOND + place] += weights - count
            values[_MACS_BEYOND + place] += (weights - count) * positions


def _add_shortcut(values: list[float], shape: UnitShape, size_out: int, *, pools: bool) -> None:
    if pools:
        values[_AGAIN] += shape.in_channels * shape.size**2
        values[_OTHER] += 1
    if shape.projected:
        _add_conv(values, (shape.in_channels, shape.out_channels, 1, 1), size_out if pools else shape.size, size_out)
    values[_AGAIN] += shape.out_channels * size_out**2
    values[_OTHER] += 1
