"""fit_widths against the authors' program, a literal second implementation, and hand-made corners."""

from __future__ import annotations

import dataclasses
import json
import warnings
from itertools import chain

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tables import random_table, staged_space, table_of
from tiny import SOME_EXPAND

import tfnas
from tfnas.core.errors import InputError
from tfnas.core.space import Stage
from tfnas.latency.authors_table import LatencyTableWarning
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.widths import fit_widths
from tfnas.spaces.mbconv.table_keys import latency_key

IMAGENET = tfnas.space("imagenet")

# Answers of the authors' program: per block operation, ms at smallest and largest width, width before and after.
CUT_BEYOND_REACH = (
    8.711068997979163,
    [
        [(7, 1.887, 3.668, 84, 64), (4, 0.752, 1.352, 59, 48)],
        [(6, 0.527, 1.038, 86, 48), (3, 0.775, 1.488, 205, 160), (1, 0.665, 1.277, 230, 160)],
        [(1, 0.381, 0.76, 251, 160), (0, 0.229, 0.35, 278, 160), (3, 0.408, 0.795, 335, 320)],
        [(3, 0.407, 0.798, 409, 320), (6, 0.399, 0.709, 417, 224), (4, 0.397, 0.624, 404, 224)],
        [(1, 0.291, 0.599, 474, 448)],
        [(7, 0.437, 0.908, 1483, 768)],
    ],
)
GROWN_BEYOND_REACH = (
    15.850954194664956,
    [
        [(7, 1.887, 3.668, 102, 128), (1, 1.098, 2.088, 130, 192)],
        [(4, 0.487, 0.963, 71, 96)],
        [(1, 0.381, 0.76, 283, 320), (5, 0.442, 0.842, 504, 640), (7, 0.501, 0.956, 335, 639)],
        [(1, 0.348, 0.682, 399, 640), (6, 0.399, 0.709, 389, 448), (5, 0.653, 1.186, 755, 896)],
        [(5, 0.385, 0.729, 572, 896), (2, 0.227, 0.317, 606, 768)],
        [(1, 0.287, 0.63, 949, 1536)],
    ],
)


def imagenet_architecture(operations, widths):
    """The architecture of operation indices and widths per stage and block."""
    flat_operations, flat_widths = [0] * 18, [0] * 18
    for stage, first in enumerate(IMAGENET.first_blocks):
        for position, (operation, width) in enumerate(zip(operations[stage], widths[stage], strict=True)):
            flat_operations[first + position], flat_widths[first + position] = operation, width
    return IMAGENET.architecture(flat_operations, [len(row) for row in operations], flat_widths, 1000)


def block_widths(architecture):
    return [[block.mid_channels for block in blocks] for blocks in architecture.stages]


@pytest.fixture(scope="module")
def oracle(shared_data):
    """The authors' program's answers, and their tables under `gpu` and `cpu`."""
    answers = json.loads((shared_data / "oracles" / "tfnas.json").read_text())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", LatencyTableWarning)
        tables = {name: LatencyTable.load(shared_data / "tfnas" / f"latency_{name}.pkl") for name in ("gpu", "cpu")}
    return {**answers, **tables}


@pytest.mark.parametrize("number", range(16))
def test_equals_the_authors_program(oracle, number):
    case, table = oracle["width_fits"][number], oracle[oracle["width_fits"][number]["table"]]

    def rows(document):
        return [list(document[f"stage{stage}"].values()) for stage in range(1, 7)]

    before = imagenet_architecture(rows(case["arch"]), rows(case["widths_before"]))
    after = fit_widths(before, table, case["target_ms"])
    assert block_widths(after) == rows(case["widths_after"])
    assert table.architecture_ms(before) == pytest.approx(case["before_ms"], rel=1e-14)
    assert table.architecture_ms(after) == pytest.approx(case["after_ms"], rel=1e-14)


@pytest.mark.parametrize("target_ms, stages", [CUT_BEYOND_REACH, GROWN_BEYOND_REACH])
def test_equals_kept_answers_of_the_authors_program(target_ms, stages):
    operations, _, _, before, after = ([[block[i] for block in blocks] for blocks in stages] for i in range(5))
    architecture = imagenet_architecture(operations, before)
    ends = {}
    for place, (_, low_ms, high_ms, _, _) in zip(architecture.blocks, chain(*stages), strict=True):
        ends[latency_key(place.block, place.input_size)] = (place.block.mid_range, (low_ms, high_ms))
    fitted = fit_widths(architecture, table_of(1.985807514190674, ends), target_ms)
    assert block_widths(fitted) == after


# ---- a second implementation, word by word ------------------------------------------------------------------------


def fit_by_the_book(architecture, table, target_ms):
    def latency():
        found = {place: widths[i] for i, place in enumerate(names)}
        return table.architecture_ms(architecture.with_widths(found))

    def loop(stages, sign, goes_on):
        members = [i for i, (stage, _) in enumerate(names) if stage in stages]
        if not members:
            return
        smallest = min(widths[i] for i in members)
        ratio = {i: max(round(widths[i] / smallest), 1) for i in members}
        clipped = dict.fromkeys(members, False)
        before = list(widths)
        while goes_on(latency()) and not all(clipped.values()):
            before = list(widths)
            for i in members:
                low, high = architecture.blocks[i].block.mid_range
                widths[i] += sign * ratio[i]
                clipped[i] = widths[i] >= high if sign > 0 else widths[i] <= low
                widths[i] = min(max(widths[i], low), high)
        if sign > 0:
            widths[:] = before

    names = [(place.stage, place.position) for place in architecture.blocks]
    widths = [place.block.mid_channels for place in architecture.blocks]
    count = len(architecture.stages)
    start_ms = latency()
    if start_ms > target_ms:
        loop(range(count), -1, lambda ms: ms >= target_ms)
        for first in range(1, count):
            loop(range(first, count), 1, lambda ms: ms <= target_ms)
    elif start_ms < target_ms:
        for first in range(count):
            loop(range(first, count), 1, lambda ms: ms <= target_ms)
    return architecture.with_widths(dict(zip(names, widths, strict=True)))


SMALL = staged_space(
    Stage(channels=6, stride=1, blocks=2, activation="relu", min_blocks=0),
    Stage(channels=9, stride=2, blocks=2, activation="swish"),
    operations=IMAGENET.operations,
)
SOME_OF_SMALL_EXPAND = dataclasses.replace(SMALL, operations=SOME_EXPAND)


def whole_steps(random, count):
    return np.cumsum(random.integers(0, 3, count)) + 1.0


def noise(random, count):
    return random.uniform(0.5, 3, count)


@settings(max_examples=120, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([SMALL, SOME_OF_SMALL_EXPAND]))
def test_equals_the_procedure_word_by_word(seed, space):
    random = np.random.default_rng(seed)
    rounded = random.random() < 0.5  # whole numbers of ms make ties with the target
    table = random_table(space, random, whole_steps if rounded else noise)
    operations = random.integers(0, len(space.operations), len(space.blocks))
    depths = [int(random.choice(choices)) for choices in space.depth_choices]
    ranges = [space.width_range(place, space.operations[o]) for place, o in zip(space.blocks, operations, strict=True)]
    widths = [int(random.integers(low, high + 1)) for low, high in ranges]
    architecture = space.architecture(operations, depths, widths, 10)
    target_ms = table.architecture_ms(architecture) * random.uniform(0.5, 1.6)
    target_ms = float(np.rint(target_ms - table.base_ms()) + table.base_ms()) if rounded else target_ms
    fitted = fit_widths(architecture, table, target_ms)
    assert fitted == fit_by_the_book(architecture, table, target_ms)
    for place, before in zip(fitted.blocks, architecture.blocks, strict=True):
        assert before.block.expands or place.block == before.block


def test_equal_latency_changes_nothing_and_no_blocks_are_no_trouble():
    table = random_table(SMALL, np.random.default_rng(0), noise)
    widths = [SMALL.initial_width(place, SMALL.operations[0]) for place in SMALL.blocks]
    architecture = SMALL.architecture([0] * 6, [2, 0, 2], widths, 10)
    assert fit_widths(architecture, table, table.architecture_ms(architecture)) == architecture
    bare = tfnas.Architecture.parse("i3x8_n10:conv_k3_s1_c4_relu:mb_k3_s1_m4_c4_relu:-:conv_k1_s1_c8_relu")
    assert fit_widths(bare, table, 0.1) == fit_widths(bare, table, 100.0) == bare


@pytest.mark.parametrize("target_ms", [0.0, -1.0, float("nan"), float("inf")])
def test_refuses_a_target_that_is_no_latency(target_ms):
    table = random_table(SMALL, np.random.default_rng(0), noise)
    architecture = SMALL.architecture([0] * 6, [1, 0, 1], [12, 18, 18, 18, 18, 27], 10)
    with pytest.raises(InputError, match="positive number of milliseconds"):
        fit_widths(architecture, table, target_ms)
