"""What a space reaches with a table, and why: against enumeration, and tables whose truth is known."""

from __future__ import annotations

import dataclasses
import itertools
import json
import pickle
import random
import re
import subprocess
import sys
from fractions import Fraction

import numpy as np
import pytest
from made_tables import full_contents, table_of
from rich.console import Console
from tiny import tiny_contents, tiny_space

import tfnas
from tfnas.cli import latency
from tfnas.core.errors import Infeasible, InputError, UnmetTarget
from tfnas.core.space import Operation, Stage
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import default_table_path, is_default, open_table, table_space
from tfnas.latency.meet_target import SpaceBounds, check_target
from tfnas.latency.reachable import Band
from tfnas.latency.space_range import RangeConfig, space_range
from tfnas.report.range_report import explained, print_range, range_document, shares_text
from tfnas.spaces.mbconv.mbconv_family import block_counts
from tfnas.spaces.mbconv.table_keys import latency_key


@pytest.fixture
def space():
    return tiny_space()


@pytest.fixture
def table(space):
    return LatencyTable(tiny_contents(space, random.Random(3)))


def enumerated(space, table, operations, num_classes=10):
    """The range over every architecture that uses only these operations (their indices)."""
    choices = []
    for place in space.blocks:
        ranges = [(index, space.width_range(place, space.operations[index])) for index in operations]
        choices.append([(index, width) for index, (low, high) in ranges for width in range(low, high + 1)])
    found = []
    for depths in itertools.product(*space.depth_choices):
        kept = [place.position < depths[place.stage] for place in space.blocks]
        for chosen in itertools.product(*(row if keep else row[:1] for row, keep in zip(choices, kept, strict=True))):
            indices, widths = zip(*chosen, strict=True)
            found.append(table.architecture_ms(space.architecture(indices, depths, widths, num_classes)))
    return min(found), max(found)


def test_ranges_without_operations_and_traits_equal_enumeration(space, table):
    found = space_range(space, table)
    assert (found.lowest_ms, found.highest_ms) == pytest.approx(enumerated(space, table, [0, 1]), rel=1e-12)
    without = {operation.name: operation.without_ms for operation in found.operations}
    assert without["k3_e2"] == pytest.approx(enumerated(space, table, [1]), rel=1e-12)
    assert without["k3_e3_se"] == pytest.approx(enumerated(space, table, [0]), rel=1e-12)
    assert found.traits == ()  # no two of its operations differ in one trait only


def test_operations_without_an_expansion_are_in_the_range():
    space = tiny_space(operations=tuple(map(Operation.parse, ("k3_e1", "k3_e2", "k3_e1_se"))))
    table = LatencyTable(tiny_contents(space, random.Random(3)))
    found = space_range(space, table)
    assert (found.lowest_ms, found.highest_ms) == pytest.approx(enumerated(space, table, [0, 1, 2]), rel=1e-12)
    without = {operation.name: operation.without_ms for operation in found.operations}
    for index, name in enumerate(("k3_e1", "k3_e2", "k3_e1_se")):
        others = [other for other in range(3) if other != index]
        assert without[name] == pytest.approx(enumerated(space, table, others), rel=1e-12)
    assert {trait.name: trait.against for trait in found.traits} == {"SE": "none", "e2": "e1"}


@pytest.mark.parametrize(
    ("names", "against"),
    [
        ("k3_e1 k3_e3 k3_e6", {"e3": "e1", "e6": "e3"}),
        ("k3_e1 k5_e3 k3_e6", {"e6": "e1"}),  # none differs from k3_e6 in its expansion alone but k3_e1
        ("k3_e1 k5_e3", {}),
        ("k3_e2 k3_e3 k3_e6", {"e3": "e2", "e6": "e2"}),
    ],
)
def test_an_expansion_is_held_against_a_smaller_one_before_none(names, against):
    space = tiny_space(operations=tuple(map(Operation.parse, names.split())))
    found = space_range(space, LatencyTable(tiny_contents(space, random.Random(3)))).traits
    assert {trait.name: trait.against for trait in found if trait.name.startswith("e")} == against


def test_a_space_without_an_expansion_has_no_widths_to_speak_of():
    space = tiny_space(operations=tuple(map(Operation.parse, ("k3_e1", "k5_e1"))))
    table = LatencyTable(tiny_contents(space, random.Random(3)))
    found = space_range(space, table)
    assert (found.lowest_ms, found.highest_ms) == pytest.approx(enumerated(space, table, [0, 1]), rel=1e-12)
    for target_ms in (0.9 * found.lowest_ms, 1.1 * found.highest_ms):
        with pytest.raises(Infeasible) as outside:
            check_target(space, table, target_ms)
        assert "widths" not in explained(outside.value) and "width_bounds" not in explained(outside.value)


def test_the_number_of_classes_counts(space, table):
    found = space_range(space, table, 1000)
    assert (found.lowest_ms, found.highest_ms) == pytest.approx(enumerated(space, table, [0, 1], 1000), rel=1e-12)
    with pytest.raises(InputError, match="not for 1001"):
        space_range(space, table, 1001)


@pytest.mark.parametrize("make", [tiny_contents, full_contents])
def test_the_parts_add_up_to_both_ends(space, make):
    found = space_range(space, LatencyTable(make(space, random.Random(5))))
    for end in ("lowest_ms", "highest_ms"):
        parts = sum(getattr(part, end) for part in (*found.base, *found.stages))
        assert parts == pytest.approx(getattr(found, end), rel=1e-12)
    names = ["first stem", "second stem", "head"] + ["correction"] * (make is full_contents) + ["stage 1", "stage 2"]
    assert [part.name for part in (*found.base, *found.stages)] == names


def test_what_one_block_more_or_fewer_gives_is_the_range_of_that_space():
    stages = (Stage(4, 1, 2, "relu", min_blocks=1), Stage(6, 2, 2, "swish", min_blocks=2))
    space = tiny_space(stages=stages)
    table = LatencyTable(tiny_contents(space, random.Random(3)))
    first, second = space_range(space, table).stages
    none = dataclasses.replace(stages[0], min_blocks=0)
    assert first.shallower_ms == pytest.approx(table.range_ms(tiny_space(stages=(none, stages[1])))[0], rel=1e-12)
    three = dataclasses.replace(stages[1], blocks=3)
    assert second.deeper_ms == pytest.approx(table.range_ms(tiny_space(stages=(stages[0], three)))[1], rel=1e-12)
    assert second.shallower_ms is not None and second.depths == (2,)
    forced = space_range(tiny_space(), LatencyTable(tiny_contents(tiny_space(), random.Random(3)))).stages
    assert [stage.shallower_ms for stage in forced] == [None, None]  # by the shapes


# ---- what is expensive on a device ----------------------------------------------------------------------------------


def known_table(space, se_factor=1.0, kernel_factor=1.0):
    """Milliseconds are the multiply-accumulates, times a factor for SE and for 5x5 kernels."""
    curves = {}
    for place in space.blocks:
        for operation in space.operations:
            low, high = space.width_range(place, operation)
            factor = (se_factor if operation.se else 1) * (kernel_factor if operation.kernel_size == 5 else 1)
            macs = [
                block_counts(space.block(place, operation, width), place.input_size).macs
                for width in range(low, high + 1)
            ]
            key = latency_key(space.block(place, operation, low), place.input_size)
            widths, ms = curves.get(key, ((), ()))
            points = dict(zip(widths, ms, strict=True)) | {
                width: 1e-6 * factor * count for width, count in zip(range(low, high + 1), macs, strict=True)
            }
            curves[key] = tuple(zip(*sorted(points.items()), strict=True))
    return table_of(0.5, curves)


def test_factors_that_were_put_in_are_found():
    space = tfnas.space("imagenet")
    found = space_range(space, known_table(space, se_factor=1.9, kernel_factor=0.8))
    traits = {trait.name: trait for trait in found.traits}
    assert set(traits) == {"SE", "k5", "e6"}
    assert traits["SE"].excess == pytest.approx(1.9) and traits["SE"].is_expensive
    assert traits["SE"].ratio == pytest.approx(1.9 * traits["SE"].macs_ratio, rel=0.01)
    assert traits["SE"].remaining_operations == ("k3_e3", "k3_e6", "k5_e3", "k5_e6")
    assert traits["k5"].excess == pytest.approx(0.8) and not traits["k5"].is_expensive
    assert traits["e6"].excess == pytest.approx(1.0) and traits["e6"].against == "e3"
    assert [trait.name for trait in found.expensive_traits] == ["SE"]
    plain = dataclasses.replace(space, operations=tuple(o for o in space.operations if not o.se))
    assert traits["SE"].without_ms == pytest.approx(found.table.range_ms(plain), rel=1e-12)
    costs = {operation.name: operation for operation in found.operations}
    assert costs["k3_e3_se"].excess > 1.5 > costs["k5_e3"].excess
    assert [o.ratio for o in found.operations] == sorted(o.ratio for o in found.operations)
    assert found.operations[-1].name == "k3_e6_se"  # five by five is cheap on this device


def test_the_worst_stage_is_named():
    space = tfnas.space("digits")
    table = known_table(space, se_factor=1.3)
    place = space.blocks[1]
    curves = {key: (curve.widths, curve.ms) for key, curve in table.contents.curves.items()}
    for operation in space.operations:
        if operation.se:  # three times as slow in the first block of stage 2, so also in the median of its two
            key = latency_key(space.block(place, operation, space.initial_width(place, operation)), place.input_size)
            curves[key] = (curves[key][0], [3 * ms for ms in curves[key][1]])
    (trait, *_) = space_range(space, table_of(0.5, curves)).traits
    assert (trait.name, trait.worst_stage) == ("SE", "stage 2") and trait.worst_ratio > 1.5


def test_a_space_of_one_operation_has_nothing_to_drop():
    space = tiny_space(operations=(Operation(3, 3, False),))
    found = space_range(space, LatencyTable(tiny_contents(space, random.Random(1))))
    assert [operation.without_ms for operation in found.operations] == [None] and found.traits == ()
    assert "without" in printed(found)


# ---- words ----------------------------------------------------------------------------------------------------------


def printed(found, target_ms=None):
    console = Console(width=80, file=None, record=True, quiet=False)
    with console.capture() as capture:
        print_range(console, found, target_ms)
    return capture.get()


def test_the_short_form_names_the_range_and_the_base(space, table):
    low, high = table.range_ms(space)
    text = SpaceBounds.of(space, table).description
    assert text.startswith(f"{low:.4g} to {high:.4g} ms; stem and head alone take {table.base_ms():.4g} ms")


def test_shares_go_from_the_largest_to_the_smallest_and_make_a_hundred(space, table):
    found = space_range(space, table)
    for lowest in (True, False):
        text = shares_text(found, lowest)
        shares = [int(share) for share in re.findall(r"\((\d+) %\)", text)]
        assert shares == sorted(shares, reverse=True) and abs(sum(shares) - 100) <= 3


@pytest.mark.parametrize("name", ["digits", "imagenet"])
def test_tables_fit_80_columns_and_say_the_same_as_the_json(name):
    space = tfnas.space(name)
    found = space_range(space, known_table(space, se_factor=1.9))
    text = printed(found, 10.0)
    assert max(len(line) for line in text.splitlines() if not line.startswith("   ")) <= 100
    tables = [line for line in text.splitlines() if re.match(r"(where|stage|head|in all|operation|k\d|SE|e6)\b", line)]
    assert max(map(len, tables)) <= 80
    words = " ".join(text.split())
    assert (
        re.search(r"expensive SE costs (1\.9|2\.0) x on this device", words)
        and "operations: [k3_e3, k3_e6, k5_e3, k5_e6]" in words
    )
    document = json.loads(json.dumps(range_document(found, 10.0)))
    assert document["lowest_ms"] == found.lowest_ms and document["unit"] == "ms"
    assert [trait["name"] for trait in document["traits"] if trait["is_dear"]] == ["SE"]
    assert document["target_is_inside"] == Band.of(10.0).overlaps(found.lowest_ms, found.highest_ms)


def test_a_target_outside_is_explained_by_the_breakdown_and_what_bounds_it():
    stages = (Stage(4, 1, 2, "relu", min_blocks=1), Stage(6, 2, 2, "swish"))
    space = tiny_space(stages=stages, width_bounds=(Fraction(3, 4), Fraction(5, 4)))
    table = LatencyTable(tiny_contents(space, random.Random(3)))
    found = space_range(space, table)
    with pytest.raises(Infeasible) as below:
        check_target(space, table, 0.9 * found.lowest_ms)
    bounds = SpaceBounds.of(space, table)
    assert bounds.description in str(below.value) and "\n" not in str(below.value)
    for words in (str(below.value), shares_text(found, True), "dropping operations cannot lower it", "3/4"):
        assert words in explained(below.value)
    shallower = f"min_blocks: 0 for stage 1 would make the lowest {found.stages[0].shallower_ms:.4g} ms"
    assert shallower in explained(below.value)
    with pytest.raises(Infeasible) as above:
        check_target(space, table, 1.1 * found.highest_ms)
    for words in (shares_text(found, False), "all 4 blocks", "5/4", f"stage 2 {found.stages[1].deeper_ms:.4g}"):
        assert words in explained(above.value)
    assert all(len(explained(error.value).splitlines()) <= 6 for error in (below, above))
    for error, target_ms in ((below, 0.9 * found.lowest_ms), (above, 1.1 * found.highest_ms)):
        assert error.value.unmet == UnmetTarget(
            target=target_ms,
            unit="ms",
            space=space.name,
            table=table.source,
            lowest=found.lowest_ms,
            highest=found.highest_ms,
        )
    assert str(pickle.loads(pickle.dumps(below.value))) == str(below.value)
    assert Band.of(found.highest_ms * 1.004).overlaps(
        found.lowest_ms, found.highest_ms
    )  # its band reaches into the range


# ---- the command ----------------------------------------------------------------------------------------------------


def test_the_command_takes_the_space_from_the_table_and_the_table_from_the_space(capsys):
    path = default_table_path("digits")
    for flags in (["--space", "digits"], ["--lookup_path", str(path)]):
        assert latency.main(["range", *flags, "--json"]) == 0
        document = json.loads(capsys.readouterr().out)
        low, high = LatencyTable.load(path).range_ms(tfnas.space("digits"))
        assert (document["lowest_ms"], document["highest_ms"]) == pytest.approx((low, high), rel=1e-12)
        assert (document["space"], document["table"]) == ("digits", str(path))


def test_the_command_answers_a_target_by_its_exit_status(capsys):
    assert latency.main(["range", "--space", "digits", "--target_lat", "15"]) == 0
    assert "15 ms is inside" in capsys.readouterr().out
    assert latency.main(["range", "--space", "digits", "--target_lat", "1"]) == 3
    captured = capsys.readouterr()
    assert "1 ms is outside" in captured.out and "the target of 1 ms is below" in captured.err
    assert "breakdown of the lowest, " in captured.err and "dropping operations cannot lower it" in captured.err
    assert re.search(
        r"\n  details: .*-m tfnas latency range --space digits --lookup_path .*digits_cpu.json\n", captured.err
    )


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ([], "give --space .* or a table with --lookup_path"),
        (["--space", "digits", "--target_lat", "-1"], "--target_lat must be a positive number, got -1"),
        (["--space", "digits", "--num_classes", "0"], "--num_classes must be 1 or more, got 0"),
        (["--space", "digits", "--num_classes", "100000"], "classes, not for 100000"),
        (["--space", "digits", "--image_size", "32"], "measured for images of 16 px"),
        (["--space", "digitz"], "did you mean digits"),
        (["--lookup_path", "none.json"], "none.json cannot be read"),
    ],
)
def test_the_command_refuses_bad_input_in_one_message(capsys, flags, message):
    assert latency.main(["range", *flags]) == 2
    captured = capsys.readouterr()
    assert re.search(message, captured.err) and captured.out == ""


def test_a_table_of_a_space_of_ones_own_wants_the_space(space, table, tmp_path):
    table.save(tmp_path / "mine.json")
    with pytest.raises(InputError, match=r"is for the space 'tiny', which is not a built-in space: .*--space"):
        table_space(LatencyTable.load(tmp_path / "mine.json"))
    with pytest.raises(InputError, match="does not say which space"):
        table_space(table_of(1.0, {"MBInvertedResBlock_4_4_0_4_k3_s1_relu": ([6], [1.0])}))
    assert RangeConfig(lookup_path="x").space is None


def test_which_table_is_a_spaces_default():
    digits = tfnas.space("digits")
    _, path = open_table(None, digits, ["--space", "digits"])
    assert is_default(path, digits) and not is_default(path, tfnas.space("cifar")) and not is_default(None, digits)


def test_no_torch_is_needed():
    code = "import sys, tfnas.report.range_report; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_counted_tables_have_units_and_nothing_that_is_expensive(tmp_path):
    from tfnas.latency.counted_table import counted_table

    space = tfnas.space("digits")
    found = space_range(space, counted_table(space, "macs", 10))
    assert found.expensive_traits == () and np.isfinite(found.lowest_ms)
    text = printed(found)
    assert "MACs" in text and " ms" not in text.replace("its MACs", "")
    with pytest.raises(Infeasible, match=r"the target of 1 k MACs is below .* to .* M MACs"):
        check_target(space, found.table, 1000)
