"""Tables of structures as files and as prices: round trip, refusals, corrections; and the model's parts."""

from __future__ import annotations

import dataclasses
import json

import numpy as np
import pytest

import tfnas
from tfnas.core.errors import InputError
from tfnas.core.units import classifier_counts, unit_counts
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.structure_table import NotInTable, StructureTable, load_table
from tfnas.latency.structure_table_json import StructureTableContents, UnitTiming, structure_table_to_json
from tfnas.latency.table_contents import BuildReport, Correction, Measurement, SumErrors
from tfnas.latency.unit_features import FEATURES, unit_features
from tfnas.latency.unit_latency_model import UnitLatencyModel
from tfnas.searching.evolution.budget_settings import BudgetSettings
from tfnas.searching.evolution.budgets import Budgets
from tfnas.spaces.zen.structure_spaces import is_structure_space, structure_space, structure_space_names
from tfnas.spaces.zen.unit_shapes import CLASSIFIER, UnitShape, architecture_shapes, classifier_shape
from tfnas.spaces.zen.zen_family import StructureArchitecture

SIZE = 32


def kxkx(inputs, inside, out, **changes):
    fields = {"kernel": 3, "stride": 1, "size": SIZE, "projected": inputs != out}
    fields |= changes
    return UnitShape(
        "zennas",
        "kxkx",
        "relu",
        fields["kernel"],
        1,
        inputs,
        inside,
        out,
        fields["stride"],
        fields["size"],
        fields["projected"],
        False,
    )


def work_ms(shape):
    """A made-up truth: time by multiply-accumulates, and for starting."""
    return 0.05 + shape.counts.macs / 1e7


def made_contents(**changes):
    channels = (8, 16, 32, 64)
    shapes = [kxkx(a, b, c) for a in channels for b in channels for c in channels if not (a == c and b == 16)]
    shapes += [kxkx(a, 16, a, projected=True) for a in channels]
    shapes += [kxkx(a, a, a, size=16) for a in channels]
    shapes += [UnitShape("zennas", "conv", "relu", 3, 1, 3, 0, out, 1, SIZE, False, False) for out in channels]
    shapes += [classifier_shape("zennas", width, count, SIZE) for width in (8, 64) for count in (1, 10, 1000)]
    held_out = [kxkx(24, 24, 24), kxkx(40, 8, 16)]
    measurement = Measurement(
        space="zen-xxbl",
        space_fingerprint=structure_space("zen-xxbl", num_classes=10).fingerprint,
        image_size=SIZE,
        num_classes=10,
        width_multiple=1,
        device="Made-up Processor",
        device_kind="cpu",
        worker=False,
        runtime="torch",
        batch_size=1,
        threads=1,
        dtype="float32",
        versions={"torch": "2.11.0"},
        date="2025-02-01",
        procedure="made up",
        instruction_sets=("avx2",),
    )
    report = BuildReport(
        points=len(shapes),
        held_out_points=len(held_out),
        enumerated_points=1000,
        seconds=3.5,
        visits=240,
        repeated_visits=0,
        reference="kxkx k3 16-16-32 s2 at 32 px with projection",
        reference_ms=0.5,
        reference_spread_ms=0.01,
        slowest_drift=1.1,
        fastest_drift=0.95,
    )
    fields = {
        "measurement": measurement,
        "points": {shape: UnitTiming(work_ms(shape), 0.01 * work_ms(shape), 8) for shape in shapes},
        "held_out": {shape: UnitTiming(work_ms(shape), 0.01 * work_ms(shape), 8) for shape in held_out},
        "build": report,
    }
    return StructureTableContents(**{**fields, **changes})


def correction(**changes):
    errors = SumErrors(networks=6, bias_percent=-2.5, median_percent=2.5, worst_percent=4.0, kendall_tau=0.8)
    fields = {
        "scale": 1.2,
        "offset_ms": 0.3,
        "block_ms": 0.02,
        "fitted_networks": 12,
        "seed": 0,
        "level": "now",
        "machine_ratio": 1.04,
        "runtime": "torch 2.11.0",
        "before": errors,
        "after": errors,
        "date": "2025-02-01",
    }
    return Correction(**{**fields, **changes})


@pytest.fixture
def table():
    return StructureTable(made_contents())


@pytest.fixture
def saved(table, tmp_path):
    path = tmp_path / "t.json"
    table.save(path)
    return path


def network(text="SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,1,24,2)", **changes):
    fields = {"image_size": SIZE, "num_classes": 10} | changes
    return dataclasses.replace(StructureArchitecture.parse(text), **fields)


# ---- files -----------------------------------------------------------------------------------------------------------


def test_a_file_is_read_back_as_it_was(saved, table):
    found = load_table(saved)
    assert isinstance(found, StructureTable) and found.contents == table.contents
    assert found.fingerprint == table.fingerprint and str(saved) in found.source
    with_correction = found.with_correction(correction(), saved)
    with_correction.save(saved)
    assert load_table(saved).contents == with_correction.contents != table.contents
    again = load_table(saved).with_correction(None, saved)
    assert again.contents == table.contents and again.fingerprint == table.fingerprint


def test_points_stand_on_lines_of_their_own(saved, table):
    lines = saved.read_text().splitlines()
    assert sum('"block_type"' in line for line in lines) == len(table.contents.points) + len(table.contents.held_out)


def test_tables_of_the_other_kind_are_refused_in_words(saved, tmp_path):
    with pytest.raises(InputError, match=r"t\.json: it is a table of structures .*: one of MBConv blocks is needed"):
        LatencyTable.load(saved)
    with pytest.raises(InputError, match=r"it is a table of MBConv blocks: one of structures .* is needed"):
        StructureTable.load(default_path())
    assert isinstance(load_table(default_path()), LatencyTable)
    pickled = tmp_path / "p.json"
    pickled.write_bytes(b"\x80\x04}.")
    with pytest.raises(InputError, match="a table of structures"):
        StructureTable.load(pickled)


def default_path():
    from tfnas.latency.default_table import default_table_path

    return default_table_path("digits")


def test_networks_of_the_other_kind_are_refused_in_words(table):
    space = tfnas.space("digits")
    blocks = space.shallowest(num_classes=10)
    with pytest.raises(InputError, match=r"is of structures, the network is of family 'mbconv'"):
        table.architecture_ms(blocks)
    with pytest.raises(InputError, match="is of MBConv blocks, the network is of family 'zen'"):
        load_table(default_path()).architecture_ms(network())


def broken(place, value):
    """Puts a value at a place of a document, or takes it out."""

    def change(document):
        *path, last = place
        for name in path:
            document = document[name]
        if value is None:
            del document[last]
        else:
            document[last] = value

    return change


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (broken(["version"], 9), "version must be 1, got 9"),
        (broken(["notation"], "other"), "notation must be zennas or tinynas"),
        (broken(["units"], []), "units must contain at least one unit"),
        (broken(["units"], {}), "units must be a list"),
        (broken(["units", 3], 7), r"units\[3\] must be an object"),
        (broken(["units", 3, "ms"], None), r"field units\[3\]\.ms is missing"),
        (broken(["units", 3, "ms"], -1), r"units\[3\]\.ms must be above 0 ms"),
        (broken(["units", 3, "ms"], float("nan")), r"units\[3\]\.ms must be a finite number"),
        (broken(["units", 3, "spread_ms"], -1), r"units\[3\]\.spread_ms must be 0 ms or more"),
        (broken(["units", 3, "runs"], 0), r"units\[3\]\.runs must be a whole number above 0"),
        (broken(["units", 3, "kernel"], 4), r"units\[3\]: kernel must be odd"),
        (broken(["units", 3, "kernel"], True), r"units\[3\]\.kernel must be a whole number"),
        (broken(["units", 3, "in_channels"], 10**9), r"units\[3\]\.in_channels must be \d+ at most"),
        (broken(["units", 3, "size"], 0), r"units\[3\]\.size must be a whole number above 0"),
        (broken(["units", 3, "block_type"], "what"), r"units\[3\]: there is no block type 'what'"),
        (broken(["units", 3, "activation"], "silu"), r"units\[3\]: .*contradicts itself"),
        (broken(["units", 3, "projected"], 1), r"units\[3\]\.projected must be true or false"),
        (broken(["units", 3, "inside"], 0), r"units\[3\]: bottleneck must be given"),
        (broken(["units", 3, "more"], 1), r"unknown field units\[3\]\.more"),
        (broken(["units", -1, "kernel"], 3), "contradicts itself: there is no such classifier"),
        (broken(["held_out", 0, "size"], 8), r"held_out\[0\]: there is nothing of the kind"),
        (broken(["build", "points"], 3), "build.points is 3, but the table contains"),
        (broken(["image_size"], None), "field image_size is missing"),
        (broken(["more"], 1), "unknown field more"),
    ],
)
def test_a_wrong_field_is_named(saved, change, message):
    document = json.loads(saved.read_text())
    change(document)
    saved.write_text(json.dumps(document))
    with pytest.raises(InputError, match=rf"t\.json: .*{message}"):
        load_table(saved)


def test_points_that_contradict_each_other_are_refused(saved):
    document = json.loads(saved.read_text())
    document["units"].append(document["units"][0])
    saved.write_text(json.dumps(document))
    with pytest.raises(InputError, match=r"units\[\d+\]: .* is there twice"):
        load_table(saved)
    del document["units"][-1]
    document["units"] = [entry for entry in document["units"] if entry["block_type"] != CLASSIFIER]
    del document["build"]
    saved.write_text(json.dumps(document))
    with pytest.raises(InputError, match="units must contain a classifier"):
        load_table(saved)


@pytest.mark.parametrize("fields", [{"scale": 0.001, "block_ms": -0.05}, {"scale": 1e-3, "offset_ms": -5.0}])
def test_a_correction_that_leaves_nothing_is_refused(table, saved, fields):
    table.with_correction(correction(**fields), saved).save(saved)
    with pytest.raises(InputError, match=r"the correction gives .* the file is corrupt"):
        load_table(saved)


def test_no_cut_off_file_is_read(saved):
    text = saved.read_text()
    for share in np.linspace(0.01, 0.99, 40):
        saved.write_text(text[: int(share * len(text))])
        with pytest.raises(InputError):
            load_table(saved)


# ---- prices ----------------------------------------------------------------------------------------------------------


def test_what_was_measured_exactly_is_predicted(table):
    for shape in (kxkx(24, 24, 24), kxkx(40, 8, 16), kxkx(16, 24, 32)):
        assert table.unit_ms(shape) == pytest.approx(work_ms(shape), rel=0.05)
    found = network()
    expected = sum(times * work_ms(shape) for shape, times in architecture_shapes(found))
    assert table.architecture_ms(found) == pytest.approx(expected, rel=0.05)


def test_a_correction_counts_for_every_unit(table):
    found = network()
    units = sum(times for shape, times in architecture_shapes(found) if shape.block_type != CLASSIFIER)
    corrected = table.with_correction(correction(), "t.json").architecture_ms(found)
    assert units == 3 and corrected == pytest.approx(1.2 * table.architecture_ms(found) + 0.3 + 0.02 * units)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("SuperConvK3BNRELU(3,16,1,1)SuperResK5K5(16,32,1,24,1)", "has nothing like kxkx k5 16-24-32"),
        ("SuperConvK3BNRELU(3,16,2,1)SuperResK3K3(16,32,1,24,1)", "has nothing like conv relu k3 3-16 s2"),
        ("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,2,24,1)", "has nothing like kxkx k3 16-24-32 s2"),
        ("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,136,1,24,1)", "with 8 to 64 channels out .*: 136 is too far"),
        ("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,1,1000,1)", "with 8 to 64 channels inside .*: 1000 is too far"),
        ("SuperConvK3BNRELU(3,16,1,1)SuperResK1K3K1(16,32,1,24,1)", "has nothing like k1kxk1"),
        ("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,128,1,120,1)", "M MACs for units such as .* are too far"),
    ],
)
def test_units_far_from_what_was_measured_are_refused(table, text, message):
    for _ in range(2):
        with pytest.raises(NotInTable, match=message):
            table.architecture_ms(network(text))


def test_other_images_classes_and_notations_are_refused(table):
    with pytest.raises(InputError, match=r"for images of 32 px, the network takes 64 px: .* --image_size 64"):
        table.architecture_ms(network(image_size=64))
    with pytest.raises(NotInTable, match="1 to 1000 channels out"):
        table.architecture_ms(network(num_classes=5000))
    tinynas = structure_space("tinynas-kxkx", image_size=SIZE).initial
    with pytest.raises(InputError, match="of notation zennas, the network is of notation tinynas"):
        table.architecture_ms(tinynas)
    with pytest.raises(InputError, match="the network is of videos"):
        table.architecture_ms(structure_space("tinynas-3d-k1dwk1", image_size=SIZE).initial)
    with pytest.raises(NotInTable, match="with squeeze-and-excite"):
        table.architecture_ms(network(use_se=True))


def test_a_network_beyond_the_table_is_over_its_budget(table):
    budgets = Budgets(BudgetSettings(max_ms=1e6), table)
    assert budgets.exceeded(budgets.figures(network())) is None
    figures = budgets.figures(network("SuperConvK3BNRELU(3,16,1,1)SuperResK3K3(16,32,1,1000,1)"))
    assert figures["ms"] == np.inf and budgets.exceeded(figures) == "ms"


# ---- shapes and features ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in structure_space_names() if not name.startswith("tinynas-3d")])
def test_shapes_are_the_units_of_a_network(name):
    family = structure_space(name)
    generator = np.random.default_rng(3)
    for _ in range(3):
        drawn = family.sample(generator)
        *shapes, (classifier, _) = architecture_shapes(drawn)
        units = drawn.structure.units(drawn.image_size, use_se=drawn.use_se)
        expected = [(unit_counts(unit), unit.resolution_in, unit.stride) for unit in units]
        found = [(shape.counts, shape.size, shape.stride) for shape, times in shapes for _ in range(times)]
        assert sorted(found, key=repr) == sorted(expected, key=repr)
        size = units[-1].resolution_out
        assert classifier.counts == classifier_counts(drawn.structure.out_channels, drawn.num_classes, size**2)


@pytest.mark.parametrize("name", [name for name in structure_space_names() if not name.startswith("tinynas-3d")])
def test_features_follow_from_the_convolutions_of_a_unit(name):
    family, generator = structure_space(name), np.random.default_rng(4)
    shapes = list(dict(shape for _ in range(3) for shape in architecture_shapes(family.sample(generator))[:-1]))
    for shape, row in zip(shapes, unit_features(shapes), strict=True):
        unit, found = shape.unit(), dict(zip(FEATURES, row, strict=True))
        convs = [*unit.convs, *([] if unit.projection is None else [unit.projection])]
        convs += [] if unit.squeeze_excite is None else unit.squeeze_excite.convs
        assert total(found, "MACs, full", "MACs, depthwise") == sum(conv.num_weights * conv.positions for conv in convs)
        depthwise = sum(conv.num_weights * conv.positions for conv in convs if conv.depthwise)
        assert total(found, "MACs, depthwise") == depthwise
        assert total(found, "convolutions, ") == len(convs)
        assert found["weights"] == sum(conv.num_weights for conv in convs)
        assert found["activations read"] == sum(conv.in_channels * conv.resolution_in**2 for conv in convs)
        assert found["activations written"] == sum(conv.out_channels * conv.positions for conv in convs)
        for count in (2**19, 2**21, 2**23):
            beyond = [max(0, conv.num_weights - count) for conv in convs]
            assert found[f"weights beyond {count}"] == sum(beyond)
            work = sum(more * conv.positions for more, conv in zip(beyond, convs, strict=True))
            assert found[f"MACs with weights beyond {count}"] == work
        pools = unit.shortcut is not None and unit.shortcut.pools
        expected = (unit.shortcut is not None) + pools + 2 * (unit.squeeze_excite is not None)
        assert found["other operations"] == expected


def total(features, *beginnings):
    return sum(value for name, value in features.items() if name.startswith(beginnings))


def test_units_that_a_busy_machine_made_slow_count_less():
    points = made_contents().points
    shapes, ms = list(points), np.array([timing.ms for timing in points.values()])
    disturbed = ms.copy()
    chosen = np.random.default_rng(0).permutation(len(ms))[: len(ms) // 10]
    disturbed[chosen] *= 3
    model = UnitLatencyModel(shapes, disturbed, np.full(len(ms), 0.01))
    errors = [
        abs(model.ms(shape) / work_ms(shape) - 1) for shape in (kxkx(24, 24, 24), kxkx(40, 8, 16), kxkx(16, 24, 32))
    ]
    assert max(errors) < 0.15


def test_files_of_structure_spaces_are_told_apart(tmp_path):
    for name, text, expected in (
        ("a.yaml", "extends: zen-xxbl\n", True),
        ("b.yaml", "extends: digits\n", False),
        ("c.yaml", "notation: zennas\n", True),
        ("d.yaml", "- 1\n", False),
    ):
        (tmp_path / name).write_text(text)
        assert is_structure_space(str(tmp_path / name)) == expected
    assert is_structure_space("zen-xxbl") and not is_structure_space("digits")
    assert not is_structure_space(str(tmp_path / "missing.yaml"))
    assert structure_table_to_json(made_contents())["format"] == "tfnas-structure-latency-table"
