"""The newer fields of our JSON form: what they do to lookups, and every refusal."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
from made_tables import full_contents
from tiny import tiny_contents, tiny_space

from tfnas.core.errors import InputError
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_json import table_to_json, to_text

KEY = "MBInvertedResBlock_4_4_0_4_k3_s1_relu"


@pytest.fixture
def space():
    return tiny_space()


@pytest.fixture
def contents(space):
    return full_contents(space, random.Random(3))


def test_everything_comes_back(contents, tmp_path):
    table = LatencyTable(contents)
    table.save(tmp_path / "table.json")
    again = LatencyTable.load(tmp_path / "table.json")
    assert again.contents == contents
    assert again.fingerprint == table.fingerprint
    assert LatencyTable(dataclasses.replace(contents, correction=None)).fingerprint != table.fingerprint


# ---- lookups ------------------------------------------------------------------------------------------------------


def test_a_correction_scales_the_sum_and_adds_for_the_network_and_for_every_block(space, contents):
    corrected, plain = LatencyTable(contents), LatencyTable(dataclasses.replace(contents, correction=None))
    for depths in ([0, 1], [1, 2]):
        architecture = space.architecture([1, 0, 1], depths, [9, 9, 14], 7)
        expected = 0.9 * plain.architecture_ms(architecture) - 0.05 - 0.01 * sum(depths)
        assert corrected.architecture_ms(architecture) == pytest.approx(expected, rel=1e-12)
        parts_ms = corrected.base_ms(7) + sum(corrected.block_ms(p.block, p.input_size) for p in architecture.blocks)
        assert parts_ms == pytest.approx(expected, rel=1e-12)
    assert corrected.base_parts_ms(7)["correction"] == -0.05
    assert corrected.base_ms(7) == pytest.approx(0.9 * plain.base_ms(7) - 0.05, rel=1e-12)


def test_the_range_is_of_corrected_figures(space, contents):
    corrected, plain = LatencyTable(contents), LatencyTable(dataclasses.replace(contents, correction=None))
    (low, high), (most, least) = plain.range_ms(space), (3, 1)  # so many blocks have tiny networks
    assert corrected.range_ms(space)[1] == pytest.approx(0.9 * high - 0.05 - 0.01 * most, rel=1e-12)
    assert corrected.range_ms(space)[0] == pytest.approx(0.9 * low - 0.05 - 0.01 * least, rel=1e-12)


def test_the_base_follows_the_number_of_classes(space):
    contents = tiny_contents(space, random.Random(3))
    table = LatencyTable(contents)
    stems_ms = sum(part.ms for part in contents.base.values())
    for classes, ms in zip((1, 10, 1000), contents.classifier.curve.ms, strict=True):
        assert table.base_ms(classes) == pytest.approx(stems_ms + ms, rel=1e-12)
    assert table.base_ms() == table.base_ms(10)
    low, high = sorted(contents.classifier.curve.ms[1:])
    assert stems_ms + low <= table.base_ms(500) <= stems_ms + high
    for classes in (0, 1001):
        with pytest.raises(InputError, match=rf"measured for 1 to 1000 classes, not for {classes}.*--num_classes"):
            table.base_ms(classes)
    with pytest.raises(InputError, match="not for 1001"):
        table.architecture_ms(space.architecture([0] * 3, [0, 1], [8, 8, 12], 1001))


def test_a_correction_that_leaves_nothing_is_refused_at_the_lookup(space, contents):
    """Where a program makes such a table; a file with one is refused when it is read."""
    correction = dataclasses.replace(contents.correction, block_ms=-5.0)
    table = LatencyTable(dataclasses.replace(contents, correction=correction))
    with pytest.raises(InputError, match="the file is corrupt"):
        table.block_ms(space.block(space.blocks[0], space.operations[0], 8), 4)


# ---- refusals -----------------------------------------------------------------------------------------------------


def changed(contents, path, value):
    """The document with the field at a path set (None: removed)."""
    document = json.loads(json.dumps(table_to_json(contents)))
    *parents, last = path
    inner = document
    for name in parents:
        inner = inner[name]
    if value is None:
        del inner[last]
    else:
        inner[last] = value
    return document


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        ("cost", "joules", "cost must be one of ms, macs, params, got 'joules'"),
        ("cost", None, "field cost is missing"),
        ("worker", 1, "worker must be true or false, got 1"),
        ("num_classes", 0, "num_classes must be a whole number above 0"),
        ("num_classes", 1001, "num_classes is 1001, but classifier.widths go from 1 to 1000"),
        ("classifier", None, "field classifier is missing"),
        ("classifier.key", "", "classifier.key must be text"),
        ("classifier.ms", [1.0], "classifier: widths, ms and spread_ms must be lists of one length"),
        ("classifier.widths", [10, 1, 5], "classifier.widths must grow"),
        ("width_classes.multiple", 0, "width_classes.multiple must be a whole number above 0"),
        ("width_classes.multiple", 65537, "width_classes.multiple must be 65536 at most"),
        ("width_classes.others_stair", 0, "width_classes.others_stair must be a whole number above 0"),
        ("width_classes.step", 8, "unknown field width_classes.step"),
        ("build.points", 0, "build.points must be a whole number above 0"),
        ("build.repeated_visits", -1, "build.repeated_visits must be a whole number above -1"),
        ("build.seconds", -1, "build.seconds must be 0 or more, got -1"),
        ("build.reference_ms", 0, "build.reference_ms must be above 0"),
        ("build.reference", None, "field build.reference is missing"),
        ("correction.scale", 0, "correction.scale must be above 0, got 0"),
        ("correction.scale", float("nan"), "correction.scale must be a finite number, got nan"),
        ("correction.offset_ms", -1e6, "the correction gives -1e[+]06 ms for stem and head"),
        ("correction.block_ms", -5, f"the correction gives -4.* ms for blocks.{KEY}: the file is corrupt"),
        ("correction.scale", 1e16, "the correction gives .* ms for stem and head: the file is corrupt"),
        ("correction.level", None, "field correction.level is missing"),
        ("correction.level", "then", "correction.level must be one of now, table, got 'then'"),
        ("correction.seed", -1, "correction.seed must be a whole number above -1, got -1"),
        ("correction.machine_ratio", 0, "correction.machine_ratio must be above 0, got 0"),
        ("correction.runtime", "", "correction.runtime must be text"),
        ("correction.date", "today", "correction.date must be a day like 2025-01-31, got 'today'"),
        ("correction.before", 3, "correction.before must be an object, got 3"),
        ("correction.after.kendall_tau", 1.5, "correction.after.kendall_tau must be -1 to 1, got 1.5"),
        ("correction.after.networks", 0, "correction.after.networks must be a whole number above 0"),
        (f"held_out.{KEY}.widths", [99], f"held_out.{KEY}.widths must lie within those of the block, 6 to 10"),
        (f"held_out.{KEY.replace('k3', 'k7')}", {"widths": [7], "ms": [1.0], "spread_ms": [0.0]}, "not among the blo"),
        (f"blocks.{KEY}", None, f"held_out.{KEY} is not among the blocks"),
        ("device_kind", "any", "device_kind is 'any', but cost is 'ms'"),
        ("device", "two\nlines", "device must be text on one line without control characters, got 'two.*nlines'"),
        ("device", "half \ud800", "device must be text on one line"),
        ("date", "2025-02-30", "date must be a day like 2025-01-31, got '2025-02-30'"),
        ("date", "\u0662\u0660\u0662\u0665-\u0660\u0661-\u0663\u0661", "date must be a day"),
        ("base.first_stem.ms", 10**400, "base.first_stem.ms must be a finite number, got a whole number of 1329 bits"),
        ("base.first_stem.ms", 1e300, "base.first_stem.ms must be 1e-09 to 1e[+]15 ms"),
        ("batch_size", [[[]]], "batch_size must be a whole number above 0, got a list of 1"),
    ],
)
def test_a_wrong_field_is_named(contents, tmp_path, path, value, message):
    *parents, last = path.split(".")
    (tmp_path / "wrong.json").write_text(json.dumps(changed(contents, [*parents, last], value)))
    with pytest.raises(InputError, match=rf"wrong\.json: .*{message}") as error:
        LatencyTable.load(tmp_path / "wrong.json")
    assert "\n" not in str(error.value)


def test_a_field_that_stands_twice_is_refused(contents, tmp_path):
    text = to_text(table_to_json(contents))
    for again in ('"threads": 8,', '"base": {},'):
        name = again.partition(":")[0]
        (tmp_path / "twice.json").write_text(text.replace(f"{name}:", f"{again} {name}:", 1))
        with pytest.raises(InputError, match=f"twice.json: duplicate key '{name[1:-1]}' in one object"):
            LatencyTable.load(tmp_path / "twice.json")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (lambda data: b"\xef\xbb\xbf" + data, "neither a table that"),
        (lambda data: data.decode().encode("utf-16"), "neither a table that"),
        (lambda data: data.replace(b"Made-up", b"Made-\xff"), "not JSON: not UTF-8 at byte"),
        (lambda data: data + b"}", "not JSON: Extra data"),
        (lambda data: data.replace(b'"threads": 1', b'"threads": ' + b"9" * 5000), "not JSON|threads"),
        (lambda data: data.replace(b'"threads": 1', b'"threads": ' + b"[" * 200_000), "not JSON"),
        (lambda data: data.replace(b'"threads": 1', b'"thr\\neads": 1'), r"field threads is missing"),
        (lambda data: data.replace(b'"threads": 1', b'"threads": 1, "a\\nb": 1'), r"unknown field 'a.*nb'"),
    ],
)
def test_damaged_bytes_are_refused_in_one_line(contents, tmp_path, damage, message):
    (tmp_path / "damaged.json").write_bytes(damage(to_text(table_to_json(contents)).encode()))
    with pytest.raises(InputError, match=rf"damaged\.json: ({message})") as error:
        LatencyTable.load(tmp_path / "damaged.json")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


def test_paths_that_no_file_can_have_are_refused():
    with pytest.raises(InputError, match="cannot be read: embedded null byte"):
        LatencyTable.load("a\0b")


def test_lookups_of_a_table_with_everything_are_positive(space, contents):
    table = LatencyTable(contents)
    table.check(space)
    for place in space.blocks:
        for operation in space.operations:
            row = table.widths_ms(
                space.block(place, operation, space.initial_width(place, operation)), place.input_size
            )
            assert np.isfinite(row).all() and row.min() > 0
