"""Tables made up for tests."""

from __future__ import annotations

import dataclasses
import itertools
from fractions import Fraction

import numpy as np
from tiny import tiny_contents, tiny_space

from tfnas.core.choice import Choice
from tfnas.core.space import Operation, Stage
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import (
    BasePart,
    BuildReport,
    Correction,
    Curve,
    SumErrors,
    TableContents,
    WidthClasses,
)
from tfnas.spaces.mbconv.table_keys import latency_key

HALVING = Stage(channels=6, stride=2, blocks=2, activation="relu")
"""The first stage of `staged_space`."""


def staged_space(*more, **changes):
    """A space of 8 pixels with HALVING and the stages given, where all of its architectures can be looked at."""
    fields = {
        "stem_stride": 1,
        "second_stem_se_channels": 0,
        "stages": (HALVING, *more),
        "feature_mix_activation": "relu",
        "operations": tuple(Operation.parse(name) for name in ("k3_e3", "k3_e6", "k5_e3_se")),
        "width_bounds": (Fraction(2, 3), Fraction(4, 3)),
    }
    return tiny_space(**{**fields, **changes})


def random_choice(space, random, scale=1.0):
    """What a search might have learned of a space."""
    alphas = scale * random.standard_normal((len(space.blocks), len(space.operations)))
    betas = [scale * random.standard_normal(len(choices)) for choices in space.depth_choices]
    return Choice(
        space=space,
        num_classes=10,
        log_alphas=alphas - np.log(np.exp(alphas).sum(axis=1, keepdims=True)),
        log_depths=tuple(values - np.log(np.exp(values).sum()) for values in betas),
        widths=np.array([[random.choice(space.widths(p, o)) for o in space.operations] for p in space.blocks]),
    )


def table_of(base_ms, curves):
    """A table of {key: (widths, ms)}."""
    made = {key: Curve(tuple(widths), tuple(ms), (0.0,) * len(ms)) for key, (widths, ms) in curves.items()}
    return LatencyTable(TableContents({"first_stem": BasePart("stem", base_ms, 0.0)}, made, None))


def random_table(space, random, curve):
    """A table that covers a space; `curve(random, n)` gives the milliseconds at widths 1..n of one key."""
    curves = {}
    for place in space.blocks:
        top = max(space.width_range(place, operation)[1] for operation in space.operations)
        for operation in space.operations:
            block = space.block(place, operation, space.initial_width(place, operation))
            key = latency_key(block, place.input_size)
            if key not in curves:
                curves[key] = (range(1, top + 1), [float(ms) for ms in curve(random, top)])
    return table_of(float(random.uniform(0.5, 2)), curves)


def full_contents(space, random):
    """A table with everything that our form can hold."""
    contents = tiny_contents(space, random)
    errors = SumErrors(networks=6, bias_percent=-2.5, median_percent=2.5, worst_percent=4.0, kendall_tau=0.8)
    held_out = {
        key: Curve((curve.widths[0] + 1,), (random.uniform(0.1, 2.0),), (0.01,))
        for key, curve in itertools.islice(contents.curves.items(), 2)
    }
    build = BuildReport(
        points=sum(len(curve.widths) for curve in contents.curves.values()),
        held_out_points=len(held_out),
        enumerated_points=100,
        seconds=3.5,
        visits=240,
        repeated_visits=0,
        reference="MBInvertedResBlock_4_4_0_4_k3_s1_relu_m8",
        reference_ms=0.5,
        reference_spread_ms=0.01,
        slowest_drift=1.1,
        fastest_drift=0.95,
    )
    correction = Correction(
        scale=0.9,
        offset_ms=-0.05,
        block_ms=-0.01,
        fitted_networks=12,
        seed=0,
        level="now",
        machine_ratio=1.04,
        runtime="torch 2.11.0",
        before=errors,
        after=dataclasses.replace(errors, bias_percent=0.1),
        date="2025-02-01",
    )
    return dataclasses.replace(
        contents, held_out=held_out, build=build, correction=correction, classes=WidthClasses(4, 1, 4)
    )
