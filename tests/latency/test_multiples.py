"""Widths in multiples: on the grid everywhere, met where enumeration finds an architecture, single steps as before."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import numpy as np
import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st
from made_tables import random_choice, random_table, staged_space, table_of

import tfnas
from tfnas.bench.benchmark_cases import random_architectures
from tfnas.core.architecture import Architecture
from tfnas.core.errors import Infeasible, InputError
from tfnas.core.space import Stage
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.counted_table import counted_table
from tfnas.latency.default_table import default_table_path
from tfnas.latency.meet_target import meet_target
from tfnas.latency.widths import fit_widths
from tfnas.spaces.mbconv.space_file import space_from_json
from tfnas.spaces.mbconv.table_keys import latency_key

TINY = staged_space(Stage(channels=6, stride=1, blocks=1, activation="relu", min_blocks=0))


def allowed(space, place, operation, multiple):
    """Every width, from the definition: the multiples between the bounds, in fractions."""
    usual = operation.expansion * place.in_channels
    low, high = (bound * usual for bound in space.width_bounds)
    return [width for width in range(multiple, int(high) + 1, multiple) if low <= width]


# ---- the space ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiple", [2, 3, 8, 32])
def test_ranges_and_initial_widths(multiple):
    plain = tfnas.space("imagenet")
    space = plain.in_multiples_of(multiple)
    for place in space.blocks:
        for operation in space.operations:
            widths = allowed(plain, place, operation, multiple)
            assert list(space.widths(place, operation)) == widths
            assert space.width_range(place, operation) == (widths[0], widths[-1])
            usual = operation.expansion * place.in_channels
            distance = abs(space.initial_width(place, operation) - usual)
            assert space.initial_width(place, operation) in widths
            assert distance == min(abs(width - usual) for width in widths)


def test_a_multiple_of_one_changes_nothing():
    space = tfnas.space("digits")
    assert space.in_multiples_of(1) == space
    table = LatencyTable.load(default_table_path("digits"))
    assert table.contents.measurement.space_fingerprint == space.fingerprint
    assert space.in_multiples_of(8).fingerprint not in (space.fingerprint, space.in_multiples_of(16).fingerprint)
    block = space.block(space.blocks[0], space.operations[0], 40)
    assert block.to_text() == "mb_k3_s2_m40_w32-64_c24_relu" and block.mid_step == 1
    architecture = random_architectures(space, 1, 10, seed=0)[0]
    assert "mid_step" not in json.dumps(architecture.to_json())


def test_it_is_a_line_of_a_space_file(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: imagenet\nwidth_multiple: 8\n")
    space = tfnas.space(file)
    assert space == dataclasses.replace(tfnas.space("imagenet"), name="mine", width_multiple=8)
    file.write_text(yaml.safe_dump(space.to_json()))
    assert tfnas.space(file) == space == space_from_json(space.to_json())


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("width_multiple: 0", "width_multiple must be 1 or more, got 0"),
        ("width_multiple: 8.0", "width_multiple must be a whole number"),
        ("width_multiple: 7\nwidth_bounds: [1, 1]", r"width_multiple 7: k3_e3 in stage1\.block1 may be 48 to 48 wide"),
        ("width_multiple: 65", r"k3_e3 in stage1\.block1 may be 32 to 64 wide, and no multiple lies there"),
    ],
)
def test_refused(tmp_path, line, message):
    (tmp_path / "mine.yaml").write_text(f"extends: imagenet\n{line}\n")
    with pytest.raises(InputError, match=message):
        tfnas.space(tmp_path / "mine.yaml")


def test_widths_off_the_grid_are_refused():
    space = tfnas.space("digits").in_multiples_of(8)
    place, operation = space.blocks[0], space.operations[0]
    with pytest.raises(InputError, match=r"mid_channels must be 32 to 64 in steps of 8, got 41"):
        space.block(place, operation, 41)
    with pytest.raises(InputError, match=r"in steps of 8, got 41"):
        space.block(place, operation, 40).with_width(41)
    with pytest.raises(InputError, match=r"mid_range must consist of whole steps of 8"):
        dataclasses.replace(space.block(place, operation, 40), mid_range=(32, 63))
    choice = random_choice(space, np.random.default_rng(0))
    choice.widths[2, 1] += 1
    with pytest.raises(InputError, match=r"k3_e6 in stage2\.block2 must be a multiple of 8 from"):
        dataclasses.replace(choice)


def test_shipped_tables_serve_multiples():
    space = tfnas.space("digits").in_multiples_of(8)
    table = LatencyTable.load(default_table_path("digits"))
    table.check(space)
    block = space.block(space.blocks[1], space.operations[5], 96)
    singles = [table.block_ms(block.with_width(width), 8) for width in range(96, 193, 8)]
    assert table.widths_ms(block, 8).tolist() == singles
    assert table.range_ms(space)[0] >= table.range_ms(tfnas.space("digits"))[0]


# ---- the architecture ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("multiple", [1, 2, 8, 24])
def test_text_and_json_keep_the_step(tmp_path, multiple):
    space = tfnas.space("digits").in_multiples_of(multiple)
    for architecture in random_architectures(space, 5, 10, seed=multiple):
        assert Architecture.parse(architecture.to_text()) == architecture
        document = json.loads(json.dumps(architecture.to_json()))
        assert Architecture.from_json(document) == architecture
        for place in architecture.blocks:
            assert place.block.mid_channels % multiple == 0
            assert all(width % multiple == 0 for width in place.block.widths)
            found = space.operation_index(space.blocks[space.first_blocks[place.stage] + place.position], place.block)
            assert space.operations[found].kernel_size == place.block.kernel_size


def test_a_block_of_multiples_is_one_of_the_plain_space_too():
    plain = tfnas.space("digits")
    for place, operation in itertools.product(plain.blocks, plain.operations):
        index = plain.operations.index(operation)
        coarse = plain.in_multiples_of(8)
        for width in (coarse.widths(place, operation)[0], coarse.widths(place, operation)[-1]):
            assert plain.operation_index(place, coarse.block(place, operation, width)) == index
    with pytest.raises(InputError, match="offers no operation like"):
        odd = plain.block(plain.blocks[0], plain.operations[0], 41)
        plain.in_multiples_of(8).operation_index(plain.blocks[0], odd)


# ---- fitting ------------------------------------------------------------------------------------------------------


@settings(max_examples=60, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4, 7]))
def test_steps_fit_as_single_channels_of_a_network_so_many_times_narrower(seed, step):
    random = np.random.default_rng(seed)

    def network(factor):
        made = ",".join(
            f"mb_k{kernel}_s1_m{factor * width}_w{factor * low}-{factor * high}{suffix[factor]}_c2_relu"
            for kernel, (low, width, high) in zip((1, 3, 5, 7), ranges, strict=True)
        )
        stages = made.replace("_relu,mb_k5", "_relu:mb_k5")
        return Architecture.parse(f"i3x8_n10:conv_k3_s1_c2_relu:mb_k3_s1_m2_c2_relu:{stages}:conv_k1_s1_c4_relu")

    suffix = {1: "", step: f"x{step}"}
    ranges = []
    for _ in range(4):
        low = int(random.integers(2, 9))
        high = int(random.integers(low + 1, 25))
        ranges.append((low, int(random.integers(low, high + 1)), high))
    narrow, wide = network(1), network(step)
    curves, wide_curves = {}, {}
    for place in narrow.blocks:
        ms = random.uniform(0.5, 3) + np.cumsum(random.uniform(0, 0.2, 24))
        key = latency_key(place.block, 8)
        curves[key] = (range(1, 25), ms.tolist())
        every = np.interp(np.arange(1, 24 * step + 1) / step, np.arange(1, 25), ms) + random.uniform(0, 9, 24 * step)
        every[step - 1 :: step] = ms  # between the multiples anything may stand
        wide_curves[key] = (range(1, 24 * step + 1), every.tolist())
    narrow_table, wide_table = table_of(0.5, curves), table_of(0.5, wide_curves)
    target_ms = narrow_table.architecture_ms(narrow) * random.uniform(0.6, 1.5)
    expected = fit_widths(narrow, narrow_table, target_ms)
    found = fit_widths(wide, wide_table, target_ms)
    assert [p.block.mid_channels for p in found.blocks] == [step * p.block.mid_channels for p in expected.blocks]


@settings(max_examples=25, deadline=None, derandomize=True)
@given(st.integers(0, 2**32 - 1), st.sampled_from([2, 4]))
def test_targets_are_met_exactly_where_enumeration_finds_an_architecture(seed, multiple):
    random = np.random.default_rng(seed)
    space = TINY.in_multiples_of(multiple)
    table = random_table(space, random, lambda random, count: random.uniform(0.5, 3, count))
    items = []
    for place in space.blocks:
        pairs = itertools.product(space.operations, range(multiple, 100, multiple))
        blocks = [TINY.block(place, o, width) for o, width in pairs if width in allowed(TINY, place, o, multiple)]
        items.append(np.array([table.block_ms(block, place.input_size) for block in blocks]))
    reachable = []
    for first, second in itertools.product((1, 2), (0, 1)):
        total = np.array([table.base_ms()])
        for place, ms in zip(space.blocks, items, strict=True):
            if place.position < (first, second)[place.stage]:
                total = np.unique(np.add.outer(total, ms).round(10))
        reachable.append(total)
    reachable = np.unique(np.concatenate(reachable))
    low, high = table.range_ms(space)
    assert (low, high) == pytest.approx((reachable.min(), reachable.max()))
    target_ms = float(low + (high - low) * random.uniform(0.001, 0.3))
    choice = random_choice(space, random)
    if ((reachable >= 0.995 * target_ms) & (reachable <= target_ms)).any():
        found = meet_target(choice, table, target_ms)
        assert 0.995 * target_ms <= table.architecture_ms(found) <= target_ms
        assert all(place.block.mid_channels % multiple == 0 for place in found.blocks)
        return
    with pytest.raises(Infeasible, match=rf"lower its width_multiple of {multiple}") as error:
        meet_target(choice, table, target_ms)
    near = re.search(r"nearest reachable latencies are ([\d.]+) ms and ([\d.]+) ms", str(error.value))
    below, above = reachable[reachable < target_ms].max(), reachable[reachable > target_ms].min()
    assert [float(text) for text in near.groups()] == pytest.approx([below, above], rel=2e-6)


@pytest.mark.parametrize("multiple", [8, 16])
def test_budgets_on_imagenet_are_met_on_the_grid(multiple):
    random = np.random.default_rng(multiple)
    space = tfnas.space("imagenet").in_multiples_of(multiple)
    table = counted_table(space, "macs")
    found = meet_target(random_choice(space, random), table, 300e6)
    assert 0.995 * 300e6 <= tfnas.count(tfnas.Network(found), 224).macs <= 300e6
    assert all(place.block.mid_channels % multiple == 0 for place in found.blocks)
