"""Tables of structures: built on a device of known truth, killed and resumed, checked, searched, and for real."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from made_structure_device import MadeStructureDevice, case_ms

import tfnas
from tfnas.bench.bench_config import BuildConfig, CheckConfig
from tfnas.bench.benchmark_cases import structure_case, unit_case
from tfnas.bench.build_structure_table import build_structure_table
from tfnas.bench.check_table import check_table
from tfnas.bench.structure_points import UnitRanges, random_walk
from tfnas.cli import latency
from tfnas.core.errors import InputError
from tfnas.latency.default_table import default_table_path
from tfnas.latency.structure_table import NotInTable, StructureTable, load_table, table_family
from tfnas.latency.unit_latency_model import UnitLatencyModel
from tfnas.report.structure_table_report import held_out_errors
from tfnas.report.table_report import ALL
from tfnas.searching.parsing import parse_model
from tfnas.spaces.families import parse_architecture
from tfnas.spaces.zen.structure_spaces import structure_space, structure_space_names
from tfnas.spaces.zen.unit_shapes import CLASSIFIER, architecture_shapes

OWN_YAML = """\
extends: zen-xxbl
name: own
types: [[SuperResK1K3K1], [SuperResK3K3]]
initial: "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,2,8,1)SuperResK3K3(16,32,2,16,1)SuperConvK1BNRELU(32,64,1,1)"
max_channels: 128
"""


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "own.yaml").write_text(OWN_YAML)
    return tmp_path


@pytest.fixture
def on_device(monkeypatch):
    """Have builds and checks measure on a device."""

    def put(device):
        for module in ("build_structure_table", "check_inputs"):
            monkeypatch.setattr(f"tfnas.bench.{module}.open_bench", lambda *_: device)
        monkeypatch.setattr("tfnas.bench.check_table.check_picture", lambda _: b"a picture")
        return device

    return put


def build(**changes):
    fields = {"out": "t.json", "space": "own.yaml", "image_size": 16, "num_classes": 10, "batch": 1, "rounds": 3}
    return build_structure_table(BuildConfig(**{**fields, "held_out": 30, **changes}))


def own_networks(count, seed=5):
    family = structure_space("own.yaml", image_size=16, num_classes=10)
    walk = random_walk(family, np.random.default_rng(seed))
    return [next(walk) for _ in range(count)]


def test_few_units_predict_all(on_device):
    on_device(MadeStructureDevice(noise=0.005))
    table = build()
    contents = table.contents
    assert contents.build.points == len(contents.points) < contents.build.enumerated_points / 20
    assert len(contents.held_out) == 30 and not set(contents.held_out) & set(contents.points)
    errors = held_out_errors(table)
    assert errors[ALL].median_percent < 3 and errors[ALL].p95_percent < 15
    assert set(errors) >= {"kxkx k3", "k1kxk1 k3"}
    priced = [network for network in own_networks(40) if is_priced(table, network)]
    assert len(priced) > 35
    predicted = np.array([table.architecture_ms(network) for network in priced])
    truth = np.array([case_ms(structure_case(network)) for network in priced])
    assert np.median(np.abs(predicted / truth - 1)) < 0.02 and np.abs(predicted / truth - 1).max() < 0.12


def is_priced(table, network):
    try:
        table.architecture_ms(network)
    except NotInTable:
        return False
    return True


def test_a_network_is_the_sum_of_its_units(on_device):
    on_device(MadeStructureDevice())
    table = build()
    for network in own_networks(30):
        if is_priced(table, network):
            expected = sum(times * table.unit_ms(shape) for shape, times in architecture_shapes(network))
            assert table.architecture_ms(network) == pytest.approx(expected, rel=1e-12)
            assert StructureTable(table.contents).architecture_ms(network) == table.architecture_ms(network)


def test_a_killed_build_resumes_to_the_same_table(on_device):
    on_device(MadeStructureDevice(noise=0.02))
    build(out="whole.json")
    visited = {}
    for stop in (1, 40, 400, None):
        device = on_device(MadeStructureDevice(noise=0.02, stop_after=stop))
        device.visited = visited  # what was measured before a kill is in the journal and is not measured again
        if stop is None:
            build()
        else:
            with pytest.raises(KeyboardInterrupt):
                build()
    whole, resumed = (json.loads(Path(name).read_text()) for name in ("whole.json", "t.json"))
    for document in (whole, resumed):
        del document["build"]["seconds"]
    assert whole == resumed
    assert load_table("t.json").contents.points == load_table("whole.json").contents.points


def test_the_seed_decides_what_is_measured(on_device):
    first = on_device(MadeStructureDevice())
    build()
    second = on_device(MadeStructureDevice())
    build(out="again.json")
    assert first.names == second.names
    other = on_device(MadeStructureDevice())
    build(out="other.json", seed=1)
    assert set(first.names) != set(other.names)


def test_units_are_added_where_the_model_errs(on_device):
    on_device(MadeStructureDevice())
    plain = build(out="plain.json", tolerance="99%")
    more = build(tolerance="1%")
    assert len(more.contents.points) > len(plain.contents.points)
    assert set(plain.contents.points) < set(more.contents.points)
    most = build(out="most.json", tolerance="1%", max_points=len(plain.contents.points) + 30 + 5)
    assert len(most.contents.points) == len(plain.contents.points) + 5


def test_left_out_errors_are_those_of_fitting_without(on_device):
    on_device(MadeStructureDevice(noise=0.01))
    points = build().contents.points
    shapes = [shape for shape in points if shape.block_type in ("kxkx", "k1kxk1")]
    ms, noise = np.array([points[shape].ms for shape in shapes]), np.full(len(shapes), 0.01)
    errors = UnitLatencyModel(shapes, ms, noise).left_out_errors
    chosen = list(range(0, len(shapes), 7))
    without = []
    for place in chosen:
        rest = [number for number in range(len(shapes)) if number != place]
        model = UnitLatencyModel([shapes[number] for number in rest], ms[rest], noise[rest])
        without.append(model.ms(shapes[place]) / ms[place] - 1)
    assert np.corrcoef(errors[chosen], without)[0, 1] > 0.9


# ---- checked ---------------------------------------------------------------------------------------------------------


def test_a_check_finds_the_error_of_whole_networks(on_device):
    on_device(MadeStructureDevice())
    build()
    report = check_table(CheckConfig(lookup_path="t.json", space="own.yaml", num_networks=12, rounds=3, correct=False))
    for network in report.networks:
        assert network.measured_ms == pytest.approx(truth_of(network.architecture), rel=1e-9)
        assert network.predicted_ms == pytest.approx(network.sum_ms)
    errors = report.errors("predicted_ms")
    assert errors.median_percent < 2 and errors.kendall_tau > 0.95
    assert report.space == "own" and report.image_size == 16 and report.table_written is None


def truth_of(text):
    return case_ms(structure_case(parse_architecture(text)))


def test_a_check_corrects_what_sums_miss(on_device):
    on_device(MadeStructureDevice())
    plain = build()
    on_device(MadeStructureDevice(overhead=1.3))
    report = check_table(CheckConfig(lookup_path="t.json", space="own.yaml", num_networks=20, rounds=3))
    assert report.table_written == "t.json" and report.fit.terms.scale == pytest.approx(1.3, rel=0.05)
    corrected = load_table("t.json")
    network = next(network for network in own_networks(20) if is_priced(plain, network))
    assert corrected.architecture_ms(network) == pytest.approx(1.3 * plain.architecture_ms(network), rel=0.05)
    assert corrected.contents.points == plain.contents.points
    again = check_table(CheckConfig(lookup_path="t.json", space="own.yaml", num_networks=20, rounds=3))
    assert again.table_written is None


def test_a_check_needs_the_space_that_was_measured(on_device, folder):
    on_device(MadeStructureDevice())
    table = build()
    assert table_family(table, "own.yaml").initial.image_size == 16
    with pytest.raises(
        InputError, match=r"space 'own', which is not a built-in space: give its YAML file with --space"
    ):
        table_family(table)
    (folder / "own.yaml").write_text(OWN_YAML.replace("max_channels: 128", "max_channels: 64"))
    with pytest.raises(InputError, match=r"with other networks than own\.yaml"):
        table_family(table, "own.yaml")


# ---- used ------------------------------------------------------------------------------------------------------------


def test_a_search_meets_its_target_by_the_table_and_parse_shows_the_parts(on_device, capsys):
    on_device(MadeStructureDevice())
    table = build()
    target_ms = 2 * table.architecture_ms(structure_space("own.yaml", image_size=16, num_classes=10).initial)
    result = tfnas.evolve(
        tfnas.EvolveConfig(
            space="own.yaml",
            image_size=16,
            num_classes=10,
            lookup_path="t.json",
            target_lat=target_ms,
            score="entropy",
            iterations=300,
            population=16,
            jobs=1,
            run_dir="run",
        )
    )
    assert 0.995 * target_ms <= table.architecture_ms(result.architecture) <= target_ms
    assert result.summary["table_fingerprint"] == table.fingerprint
    capsys.readouterr()
    for parsed in (parse_model("run"), parse_model("run", lookup_path="t.json")):
        assert parsed.table_ms == pytest.approx(table.architecture_ms(result.architecture))
        assert sum(part.table_ms for part in parsed.parts) == pytest.approx(parsed.table_ms)
    with pytest.raises(InputError, match=r"is of MBConv blocks, the network is of family 'zen'"):
        parse_model("run", lookup_path=default_table_path("digits"))


def test_a_start_beyond_the_table_is_named(on_device):
    on_device(MadeStructureDevice())
    build()
    wide = (
        "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,2048,2,8,1)SuperResK3K3(2048,32,2,16,1)SuperConvK1BNRELU(32,64,1,1)"
    )
    config = tfnas.EvolveConfig(
        space="own.yaml", image_size=16, num_classes=10, lookup_path="t.json", max_ms=1e6, init=wide, iterations=5
    )
    with pytest.raises(InputError, match=r"was measured with 8 to \d+ channels out .*: 2048 is too far from that"):
        tfnas.evolve(config)


# ---- what is measured ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in structure_space_names() if not name.startswith("tinynas-3d")])
def test_every_space_has_units_to_measure(name):
    family = structure_space(name)
    ranges = UnitRanges.of(family, 0)
    units = ranges.first_units(3, 0)
    assert len(set(units)) == len(units) and all(
        ranges.allows(shape) for shape in units if shape.block_type != CLASSIFIER
    )
    assert {shape.kind for shape in units if shape.block_type != CLASSIFIER} == {
        kind for kind in ranges.ranges if kind.block_type != CLASSIFIER
    }
    drawn = ranges.network_units(40, (0, 2), units)
    assert len({*drawn, *units}) == len(drawn) + len(units) and len(drawn) == 40
    assert max(shape.counts.macs for shape in [*units, *drawn]) <= ranges.most_macs
    counts = {shape.out_channels for shape in units if shape.block_type == CLASSIFIER}
    assert counts >= {1, 10, 100}


def test_the_module_of_a_unit_is_that_of_the_network():
    for network in own_networks(10):
        parts = [(unit_case(shape), times) for shape, times in architecture_shapes(network)]
        expected = sum(times * case_ms(case) for case, times in parts)
        assert case_ms(structure_case(network)) == pytest.approx(expected, rel=1e-9)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"cost": "macs"}, r"--cost macs needs no table for structures: .*--max_macs"),
        ({"width_multiple": 8}, "--width_multiple is for spaces of MBConv blocks"),
        ({"space": "tinynas-3d-k1dwk1", "image_size": None}, "is of networks for videos"),
    ],
)
def test_what_cannot_be_measured_is_refused(changes, message):
    with pytest.raises(InputError, match=message):
        build(**changes)


# ---- for real --------------------------------------------------------------------------------------------------------


def test_a_real_build_and_check_end_to_end(folder, capsys):
    arguments = [
        "--space",
        "own.yaml",
        "--image_size",
        "16",
        "--num_classes",
        "10",
        "--batch",
        "1",
        "--out",
        "real.json",
    ]
    effort = ["--rounds", "1", "--calls", "1", "--time_budget", "1s", "--held_out", "10"]
    assert latency.main(["build", *arguments, *effort]) == 0
    shown = capsys.readouterr().out
    assert "held-out" in shown and "tfnas evolve --space own.yaml" in shown.replace("-m tfnas", "tfnas")
    table = load_table("real.json")
    assert table.architecture_ms(own_networks(1)[0]) > 0
    checked = [
        "--lookup_path",
        "real.json",
        "--space",
        "own.yaml",
        "--num_networks",
        "3",
        "--rounds",
        "1",
        "--calls",
        "1",
    ]
    assert latency.main(["check", *checked]) == 0
    assert "Kendall's tau" in capsys.readouterr().out
    assert (folder / "real.check.json").is_file() and (folder / "real.check.png").is_file()
