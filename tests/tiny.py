"""A tiny space, and a complete made-up table for it in our form."""

from __future__ import annotations

from fractions import Fraction

from tfnas.core.space import Operation, SearchSpace, Stage
from tfnas.latency.table_contents import BasePart, ClassifierPart, Curve, Measurement, TableContents
from tfnas.spaces.mbconv.table_keys import STEM_PARTS, classifier_key, latency_key, stem_keys

SOME_EXPAND = tuple(map(Operation.parse, ("k3_e1", "k3_e3", "k5_e1_se", "k5_e6_se")))
"""Operations of which the first and the third have no expansion."""


def tiny_space(**changes):
    fields = {
        "name": "tiny",
        "image_size": 8,
        "stem_channels": 4,
        "stem_stride": 2,
        "stem_activation": "relu",
        "second_stem_channels": 4,
        "second_stem_se_channels": 2,
        "stages": (Stage(4, 1, 1, "relu", min_blocks=0), Stage(6, 2, 2, "swish")),
        "feature_mix_channels": 8,
        "feature_mix_activation": "swish",
        "operations": (Operation(3, 2, False), Operation(3, 3, True)),
        "width_bounds": (Fraction(3, 4), Fraction(5, 4)),
    }
    return SearchSpace(**{**fields, **changes})


def measurement(space, **changes):
    fields = {
        "space": space.name,
        "space_fingerprint": space.fingerprint,
        "image_size": space.image_size,
        "device": "Made-up Processor",
        "device_kind": "cpu",
        "runtime": "torch",
        "batch_size": 32,
        "threads": 1,
        "dtype": "float32",
        "num_classes": 10,
        "width_multiple": 1,
        "worker": False,
        "versions": {"torch": "2.11.0", "python": "3.10.1"},
        "date": "2025-01-31",
        "procedure": "made up [for  a test]",
    }
    return Measurement(**{**fields, **changes})


def tiny_contents(space, random):
    """Random milliseconds at the ends and one width between, for every key; width and latency are not related."""
    ranges = {}
    for place in space.blocks:
        for operation in space.operations:
            low, high = space.width_range(place, operation)
            key = latency_key(space.block(place, operation, low), place.input_size)
            before = ranges.get(key, (low, high))
            ranges[key] = (min(low, before[0]), max(high, before[1]))
    curves = {}
    for key, (low, high) in ranges.items():
        widths = sorted({low, (low + high) // 2, high})
        curves[key] = Curve(tuple(widths), tuple(random.uniform(0.1, 2.0) for _ in widths), (0.01,) * len(widths))
    shallowest = space.shallowest(10)
    base = {name: BasePart(stem_keys(shallowest)[name], random.uniform(0.1, 1.0), 0.02) for name in STEM_PARTS}
    classes = Curve((1, 10, 1000), tuple(random.uniform(0.1, 1.0) for _ in range(3)), (0.02,) * 3)
    classifier = ClassifierPart(classifier_key(shallowest), classes)
    return TableContents(base, curves, measurement(space), classifier)
