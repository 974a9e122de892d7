"""The table: interpolation, sums, ranges, the JSON form, and every refusal."""

from __future__ import annotations

import dataclasses
import itertools
import json
import random
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_tables import table_of
from tiny import SOME_EXPAND, measurement, tiny_contents, tiny_space

import tfnas
from tfnas.core.errors import InputError, RunFailed
from tfnas.core.mbconv_blocks import Block
from tfnas.core.space import Operation, Stage
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import default_table_path
from tfnas.latency.table_json import read_json, table_to_json, to_text
from tfnas.spaces.mbconv.table_keys import latency_key, widths_by_key


@pytest.fixture
def space():
    return tiny_space()


@pytest.fixture
def table(space):
    return LatencyTable(tiny_contents(space, random.Random(3)))


# ---- sums and ranges ----------------------------------------------------------------------------------------------


def test_key_has_the_authors_form():
    imagenet = tfnas.space("imagenet")
    place = imagenet.blocks[0]
    keys = [latency_key(imagenet.block(place, operation, 64), 112) for operation in imagenet.operations[1::2]]
    assert keys[0] == "MBInvertedResBlock_112_16_0_24_k3_s2_relu"
    assert keys[3] == "MBInvertedResBlock_112_16_32_24_k5_s2_relu"


def test_a_block_that_never_expands_has_a_key_of_its_own():
    """By the authors' key alone, k5_e1_se and k5_e3_se of one input channel would be one curve."""
    for name, in_channels in (("k3_e1", 4), ("k5_e1_se", 1)):
        operations = tuple(map(Operation.parse, (name, name.replace("e1", "e3"))))
        stages = (Stage(in_channels, 1, 1, "relu"), Stage(6, 1, 1, "relu"))
        space = tiny_space(operations=operations, stages=stages)
        place = space.blocks[1]
        none, some = (space.block(place, o, space.initial_width(place, o)) for o in operations)
        assert none.se_channels == some.se_channels
        assert latency_key(none, 4) == f"{latency_key(some, 4)}_m{in_channels}"
        assert set(widths_by_key(space)) >= {latency_key(none, 4), latency_key(some, 4)}
        contents = tiny_contents(space, random.Random(0))
        loaded = read_json(to_text(table_to_json(contents)).encode())
        assert loaded.curves == contents.curves
        curve = contents.curves[latency_key(none, 4)]
        assert curve.widths == (in_channels,)
        assert LatencyTable(contents).block_ms(none, 4) == curve.ms[0]
        assert LatencyTable(contents).widths_ms(none, 4).tolist() == [curve.ms[0]]


def test_the_authors_price_a_block_without_an_expansion_under_the_key_of_the_others():
    block = Block(4, 4, 0, 6, 3, 1, "relu", (4, 4))
    table = table_of(1.0, {"MBInvertedResBlock_8_4_0_6_k3_s1_relu": (range(1, 17), range(1, 17))})
    assert table.block_ms(block, 8) == 4 and table.widths_ms(block, 8).tolist() == [4]
    ours = table_of(1.0, {"MBInvertedResBlock_8_4_0_6_k3_s1_relu": (range(8, 17), range(8, 17))})
    with pytest.raises(InputError, match="has MBInvertedResBlock_8_4_0_6_k3_s1_relu at widths 8 to 16, not at width 4"):
        ours.block_ms(block, 8)


def test_a_table_of_multiples_prices_the_width_of_the_input():
    space = tiny_space(operations=SOME_EXPAND).in_multiples_of(4)
    assert {place.in_channels for place in space.blocks} == {4, 6}
    contents = tiny_contents(space, random.Random(0))
    table = LatencyTable(dataclasses.replace(contents, measurement=measurement(space, width_multiple=4)))
    table.check(space)
    with pytest.raises(InputError, match="multiples of 4 only"):
        table.check(dataclasses.replace(space, width_multiple=1))


def test_architecture_is_base_plus_blocks(space, table):
    architecture = space.architecture([0, 1, 0], [1, 2], [8, 11, 12], 10)
    expected = sum(part.ms for part in table.contents.base.values()) + table.contents.classifier.curve.ms[1]
    names = ["4_4_0_4_k3_s1_relu", "4_4_4_6_k3_s2_swish", "2_6_0_6_k3_s1_swish"]
    for name, width in zip(names, [8, 11, 12], strict=True):
        curve = table.contents.curves[f"MBInvertedResBlock_{name}"]
        expected += float(np.interp(width, curve.widths, curve.ms))
    assert table.architecture_ms(architecture) == pytest.approx(expected, rel=1e-12)


def test_widths_ms_covers_the_range_and_is_read_only(space, table):
    place = space.blocks[2]
    block = space.block(place, space.operations[1], 18)
    row = table.widths_ms(block, place.input_size)
    low, high = block.mid_range
    assert row.dtype == np.float64 and len(row) == high - low + 1
    assert [table.block_ms(block.with_width(width), place.input_size) for width in range(low, high + 1)] == list(row)
    assert table.widths_ms(block, place.input_size) is row
    with pytest.raises(ValueError, match="read-only"):
        row[0] = 1.0


@pytest.mark.parametrize("seed", range(5))
def test_range_equals_enumeration(seed):
    space = tiny_space()
    table = LatencyTable(tiny_contents(space, random.Random(seed)))
    choices = [
        [
            (index, width)
            for index, op in enumerate(space.operations)
            for width in every_width(space.width_range(place, op))
        ]
        for place in space.blocks
    ]
    found = []
    for depths in itertools.product(*space.depth_choices):
        kept = [place.position < depths[place.stage] for place in space.blocks]
        used = [options if keep else options[:1] for options, keep in zip(choices, kept, strict=True)]
        for chosen in itertools.product(*used):
            operations, widths = zip(*chosen, strict=True)
            found.append(table.architecture_ms(space.architecture(operations, depths, widths, 10)))
    assert table.range_ms(space) == pytest.approx((min(found), max(found)), rel=1e-12)


def every_width(bounds):
    return range(bounds[0], bounds[1] + 1)


# ---- lookups outside, other spaces --------------------------------------------------------------------------------


def test_unknown_key_names_the_nearest(space, table):
    block = space.block(space.blocks[0], space.operations[0], 8)
    with pytest.raises(InputError, match=r"no MBInvertedResBlock_5_4_0_4_k3_s1_relu.*nearest.*_4_4_0_4_k3_s1_relu"):
        table.block_ms(block, 5)


def test_width_outside_names_the_range_measured(space, table):
    wider = tiny_space(width_bounds=(space.width_bounds[0], 2))
    block = wider.block(wider.blocks[0], space.operations[0], 16)
    with pytest.raises(InputError, match="_4_4_0_4_k3_s1_relu at widths 6 to 10, not at width 16"):
        table.block_ms(block, 4)
    with pytest.raises(InputError, match="at widths 6 to 10, not at widths 6 to 16"):
        table.widths_ms(block, 4)


def test_check_accepts_its_own_space_with_other_classes(space, table):
    table.check(space)
    assert table.architecture_ms(space.architecture([0] * 3, [0, 1], [8, 8, 12], 1000)) > 0


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"image_size": 16}, "measured for images of 8 px, the space 'tiny' has 16 px"),
        ({"stem_stride": 1}, "first_stem is ConvLayer_8_3_4_k3_s2_relu, asked for is ConvLayer_8_3_4_k3_s1_relu"),
        ({"second_stem_se_channels": 0}, "its second_stem is"),
        ({"feature_mix_channels": 9}, "its feature_mix is"),
        (
            {"operations": tfnas.space("digits").operations[:1]},
            "stage1.block1 .* at widths 6 to 10, not at widths 9",
        ),
        (
            {"operations": tfnas.space("digits").operations[2:3]},
            "stage1.block1 .* has no .*_k5_s1_relu; the nearest",
        ),
    ],
)
def test_check_refuses_another_space(table, changes, message):
    with pytest.raises(InputError, match=message):
        table.check(tiny_space(**changes))


def test_an_architecture_with_other_stems_is_refused(table):
    other = tiny_space(stem_stride=1, stages=(tiny_space().stages[1],))
    with pytest.raises(InputError, match="its first_stem is"):
        table.architecture_ms(other.architecture([0, 0], [1], [8, 12], 10))


# ---- our JSON form ------------------------------------------------------------------------------------------------


def test_json_round_trip(table, tmp_path):
    path = tmp_path / "folder" / "table.json"
    table.save(path)
    again = LatencyTable.load(path)
    assert again.contents == table.contents
    assert again.fingerprint == table.fingerprint
    assert again.batch_size == 32
    assert again.description == "Made-up Processor, torch 2.11.0, batch 32, 1 thread, float32, 2025-01-31"
    assert [entry.name for entry in path.parent.iterdir()] == ["table.json"]


def test_instruction_sets_are_kept_and_tables_without_them_are_what_they_were(space, tmp_path):
    """A run names its table by the fingerprint, so that of a table that has been there for long must stay."""
    contents = tiny_contents(space, random.Random(3))
    made = LatencyTable(dataclasses.replace(contents, measurement=measurement(space, instruction_sets=("avx2", "fma"))))
    made.save(tmp_path / "t.json")
    again = LatencyTable.load(tmp_path / "t.json")
    assert again.contents.measurement.instruction_sets == ("avx2", "fma") and again.fingerprint == made.fingerprint
    assert made.fingerprint != LatencyTable(contents).fingerprint
    shipped = Path(__file__).parents[2] / "latency_pkl" / "digits_cpu.json"
    assert LatencyTable.load(shipped).fingerprint == "b84ee6821602bfb8"  # computed before there were instruction sets


def test_fingerprint_follows_the_contents(space):
    first, second = (LatencyTable(tiny_contents(space, random.Random(seed))) for seed in (1, 2))
    assert first.fingerprint != second.fingerprint and len(first.fingerprint) == 16


def test_saving_where_nothing_can_be_written_leaves_nothing(table, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFailed, match=r"cannot write .*table\.json"):
        table.save(tmp_path / "file" / "table.json")
    (tmp_path / "table.json").mkdir()
    with pytest.raises(RunFailed, match="cannot write"):
        table.save(tmp_path / "table.json")
    assert sorted(entry.name for entry in tmp_path.iterdir()) == ["file", "table.json"]


KEY = "MBInvertedResBlock_4_4_0_4_k3_s1_relu"


def broken(path, value):
    """Sets (or, with None, removes) the field at a path of a document."""

    def change(document):
        *parents, last = path
        for name in parents:
            document = document[name]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken(["format"], "other"), "format must be 'tfnas-latency-table', got 'other'"),
        (broken(["version"], 1), "version must be 2, got 1"),
        (broken(["device"], None), "field device is missing"),
        (broken(["device"], 3), "device must be text, got 3"),
        (broken(["device_kind"], "tpu"), "device_kind must be one of cpu, cuda"),
        (broken(["batch_size"], 0), "batch_size must be a whole number above 0"),
        (broken(["threads"], True), "threads must be a whole number above 0, got True"),
        (broken(["date"], "today"), "date must be a day"),
        (broken(["versions"], ["torch"]), "versions must be an object"),
        (broken(["versions", "torch"], 2), "versions.torch must be text"),
        (broken(["corection"], 1.1), "unknown field corection"),
        (broken(["base", "feature_mix"], None), "field base.feature_mix is missing"),
        (broken(["base", "first_stem", "ms"], -1), "base.first_stem.ms must be above 0 ms, got -1"),
        (broken(["base", "first_stem", "ms"], "1"), "base.first_stem.ms must be a finite number, got '1'"),
        (broken(["blocks"], {}), "blocks must contain at least one block"),
        (broken(["blocks", "block"], {}), "blocks.block is not the key of a block"),
        (broken(["blocks", KEY, "ms", 1], 0), rf"blocks.{KEY}.ms\[1\] must be above 0 ms"),
        (broken(["blocks", KEY, "ms", 1], float("nan")), r"ms\[1\] must be a finite number, got nan"),
        (broken(["blocks", KEY, "ms", 1], float("inf")), r"ms\[1\] must be a finite number, got inf"),
        (broken(["blocks", KEY, "spread_ms", 0], -0.1), r"spread_ms\[0\] must be 0 ms or more"),
        (broken(["blocks", KEY, "ms"], [1.0]), "lists of one length"),
        (broken(["blocks", KEY, "widths"], [10, 8, 6]), "widths must grow from entry to entry"),
        (broken(["blocks", KEY, "widths"], [6, 8, 8]), "widths must grow from entry to entry"),
        (broken(["blocks", KEY, "widths"], [6, 8, 10**9]), "up to 65536 at most"),
        (broken(["blocks", KEY, "widths", 0], 6.0), r"widths\[0\] must be a whole number"),
        (broken(["blocks", KEY, "widths"], "6"), "widths must be a list"),
    ],
)
def test_a_wrong_field_is_named(table, tmp_path, change, message):
    document = json.loads(json.dumps(table_to_json(table.contents)))
    change(document)
    path = tmp_path / "wrong.json"
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"wrong\.json: .*{message}"):
        LatencyTable.load(path)


@pytest.mark.parametrize(
    ("data", "message"),
    [(b'{"format": ', "not JSON"), (b'{"a":' * 100_000, "not JSON"), (b"\xff\xd8\xff", "neither"), (b"", "neither")],
)
def test_files_of_other_kinds_are_refused(tmp_path, data, message):
    path = tmp_path / "other"
    path.write_bytes(data)
    with pytest.raises(InputError, match=f"other: {message}"):
        LatencyTable.load(path)


def test_missing_and_oversized_files_are_refused(tmp_path):
    with pytest.raises(InputError, match=r"none\.json cannot be read: No such file"):
        LatencyTable.load(tmp_path / "none.json")
    with pytest.raises(InputError, match="cannot be read: Is a directory"):
        LatencyTable.load(tmp_path)
    with (tmp_path / "huge.json").open("wb") as file:
        file.truncate(2**30)
    with pytest.raises(InputError, match="larger than 64 MiB"):
        LatencyTable.load(tmp_path / "huge.json")


# ---- what ships ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["digits", "cifar", "imagenet"])
def test_shipped_tables_cover_their_spaces(name):
    path = default_table_path(name)
    assert path is not None
    table, space = LatencyTable.load(path), tfnas.space(name)
    table.check(space)
    assert table.contents.measurement is not None
    assert table.contents.measurement.threads == 1
    low, high = table.range_ms(space)
    assert 0 < table.base_ms() < low < high


def test_the_default_target_lies_well_inside_the_digits_table():
    path = default_table_path("digits")
    assert path is not None
    low, high = LatencyTable.load(path).range_ms(tfnas.space("digits"))
    assert low * 1.1 < 15 < high / 1.1


def test_a_space_without_a_table_has_none():
    assert default_table_path("no_such_space") is None


def test_the_table_module_does_not_import_torch():
    code = "import sys, tfnas.latency.cost_table; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
