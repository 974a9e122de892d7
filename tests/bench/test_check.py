"""Checking a table against whole networks: on benches of known truth, refused, on the command line, and for real."""

from __future__ import annotations

import dataclasses
import io
import itertools
import json
import random
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from made_benches import MadeBench
from PIL import Image
from tiny import tiny_contents

import tfnas
from tfnas.bench.bench_config import CheckConfig
from tfnas.bench.benches import LocalBench
from tfnas.bench.check_table import check_table, fitting_part
from tfnas.bench.check_timing import RoundsTimed
from tfnas.bench.timing import Timing
from tfnas.cli import latency
from tfnas.core.errors import InputError, RunFailed
from tfnas.latency.authors_table import LatencyTableWarning
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import shipped_table_paths, table_space
from tfnas.latency.table_contents import Conditions, Correction, SumErrors

LITTLE_YAML = """\
name: little
image_size: 8
stem_channels: 4
stem_stride: 2
stem_activation: relu
second_stem_channels: 4
second_stem_se_channels: 2
stages:
  - {channels: 4, stride: 1, blocks: 3, activation: relu, min_blocks: 0}
  - {channels: 6, stride: 2, blocks: 4, activation: swish}
feature_mix_channels: 8
feature_mix_activation: swish
operations: [k3_e3, k3_e6, k5_e3_se]
"""


def truth(sum_ms, blocks):
    return 0.9 * sum_ms + 0.3 + 0.02 * blocks


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "little.yaml").write_text(LITTLE_YAML)
    return tmp_path


@pytest.fixture
def plain():
    table = LatencyTable(tiny_contents(tfnas.space("little.yaml"), random.Random(1)))
    table.save("t.json")
    return table


@pytest.fixture
def drawn():
    """Without it nothing is drawn, which takes longer than everything else."""


@pytest.fixture(autouse=True)
def seldom_drawn(request, monkeypatch):
    if "drawn" not in request.fixturenames:
        monkeypatch.setattr("tfnas.bench.check_table.check_picture", lambda _: b"a picture")


def put(monkeypatch, bench):
    """Have the next checks measure on a made-up bench."""
    monkeypatch.setattr("tfnas.bench.check_inputs.open_bench", lambda *_: bench)
    return bench


def check(**changes):
    return check_table(CheckConfig(**{"lookup_path": "t.json", "space": "little.yaml", **changes}))


def changed(table, path="t.json", **changes):
    LatencyTable(dataclasses.replace(table.contents, **changes)).save(path)


def measurement_changed(table, **changes):
    changed(table, measurement=dataclasses.replace(table.contents.measurement, **changes))


# ---- what is measured ------------------------------------------------------------------------------------------------


def test_networks_are_interleaved_and_blocks_follow_one_another(plain, monkeypatch):
    bench = put(monkeypatch, MadeBench(plain, truth))
    report = check(num_networks=7, rounds=4)
    assert report.rounds == 4 and [network.runs for network in report.networks] == [8] * 7
    size = 7 + report.level.blocks
    rounds = [bench.visited[start : start + size] for start in range(0, 4 * size, size)]
    assert len(bench.visited) == 4 * size and len({tuple(names) for names in rounds}) == 4
    for names in rounds:
        assert len(set(names)) == size
        assert [name.startswith("MBInvertedResBlock") for name in names] == [False] * 7 + [True] * (size - 7)
    assert {network.architecture for network in report.networks} == set(rounds[0][:7])


def test_the_time_budget_leaves_three_rounds_at_least(plain, monkeypatch):
    put(monkeypatch, MadeBench(plain, truth))
    seconds = itertools.count(0, 10)
    monkeypatch.setattr("tfnas.bench.check_timing.time.monotonic", lambda: float(next(seconds)))
    assert check(num_networks=6, rounds=50, time_budget="1s").rounds == 3
    told = []
    config = CheckConfig(lookup_path="t.json", space="little.yaml", num_networks=6, rounds=50, time_budget="85s")
    report = check_table(config, on_measurement=lambda done, planned: told.append((done, planned)))
    assert report.rounds == 8
    visits = 8 * (6 + report.level.blocks)
    assert told[-1] == (visits, visits) and [done for done, _ in told] == list(range(1, visits + 1))


def test_figures_follow_from_the_truth(plain, monkeypatch):
    put(monkeypatch, MadeBench(plain, truth))
    report = check()
    for network in report.networks:
        architecture = tfnas.Architecture.parse(network.architecture)
        assert network.sum_ms == network.predicted_ms == pytest.approx(plain.architecture_ms(architecture))
        assert network.blocks == len(architecture.blocks)
        assert network.measured_ms == pytest.approx(truth(network.sum_ms, network.blocks))
    fitted = [index for index, network in enumerate(report.networks) if network.part == "fitted"]
    assert fitted == fitting_part(20, 0) and len(fitted) == 10
    assert fitting_part(20, 1) != fitting_part(20, 0) and fitting_part(5, 0) == [] and len(fitting_part(7, 0)) == 3


def test_reference_evens_out_a_machine_that_wavers(plain, monkeypatch):
    bench = put(monkeypatch, MadeBench(plain, truth))
    made = bench.measure
    pace = random.Random(0)

    def wavering(*arguments):
        for visit in made(*arguments):
            factor = pace.uniform(1, 2)
            yield type(visit)(*(tuple(factor * ms for ms in row) for row in (visit.own_ms, visit.reference_ms)))

    bench.measure = wavering
    report = check()
    assert report.evened
    ratios = [network.measured_ms / truth(network.sum_ms, network.blocks) for network in report.networks]
    assert np.ptp(ratios) < 1e-9 and 1.3 < ratios[0] < 1.7


# ---- what becomes of it ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
def test_a_correction_is_found_stored_and_used(plain, monkeypatch, seed):
    put(monkeypatch, MadeBench(plain, truth, noise=0.01, seed=seed))
    report = check(seed=seed)
    table = LatencyTable.load("t.json")
    correction = table.contents.correction
    assert report.table_written == "t.json" and "stored" in report.verdict
    assert correction.fitted_networks == 10 and correction.before.networks == correction.after.networks == 10
    assert (correction.seed, correction.level, correction.runtime) == (seed, "now", "torch 2.11.0")
    assert correction.machine_ratio == report.level.ratio == pytest.approx(1, rel=0.02)
    assert correction.after.median_percent < 0.7 < 3 < correction.before.median_percent
    assert correction.after == report.errors("corrected_ms", "held_out")
    assert correction.before == report.errors("sum_ms", "held_out")
    space = tfnas.space("little.yaml")
    for network in report.networks:
        architecture = tfnas.Architecture.parse(network.architecture)
        assert table.architecture_ms(architecture) == pytest.approx(network.corrected_ms, rel=1e-12)
        assert table.architecture_ms(architecture) == pytest.approx(truth(network.sum_ms, network.blocks), rel=0.03)
    assert table.range_ms(space)[0] != plain.range_ms(space)[0]
    assert dataclasses.replace(table.contents, correction=None) == plain.contents


def test_a_second_check_starts_from_the_plain_sums(plain, monkeypatch):
    put(monkeypatch, MadeBench(plain, truth))
    check()
    first = LatencyTable.load("t.json").contents.correction
    put(monkeypatch, MadeBench(plain, lambda sum_ms, _: 1.5 * sum_ms))
    report = check()
    second = LatencyTable.load("t.json").contents.correction
    assert report.present == first and "in place of the old one" in report.verdict
    assert report.errors("predicted_ms").median_percent > 30
    assert (second.scale, second.offset_ms, second.block_ms) == (pytest.approx(1.5, rel=1e-6), 0, 0)


def test_a_correction_that_is_still_right_stays(plain, monkeypatch):
    put(monkeypatch, MadeBench(plain, truth))
    check()
    before = Path("t.json").read_bytes()
    put(monkeypatch, MadeBench(plain, truth, noise=0.0005, seed=1))
    report = check()
    assert report.table_written is None and Path("t.json").read_bytes() == before
    assert "no better than the table's own correction" in report.verdict
    assert report.errors("predicted_ms").median_percent < 0.5 < 3 < report.errors("sum_ms").median_percent


def test_a_correction_that_has_become_wrong_is_taken_out(plain, monkeypatch):
    errors = SumErrors(networks=3, bias_percent=0.0, median_percent=1.0, worst_percent=2.0, kendall_tau=1.0)
    wrong = Correction(
        scale=1.4, offset_ms=0.0, block_ms=0.0, fitted_networks=3, before=errors, after=errors, date="2025-01-01",
        seed=0, level="now", machine_ratio=1.0, runtime="torch 2.11.0",
    )  # fmt: skip
    changed(plain, correction=wrong)
    put(monkeypatch, MadeBench(plain, lambda sum_ms, _: sum_ms, noise=0.01))
    report = check(correct=False)
    assert report.table_written is None and LatencyTable.load("t.json").contents.correction == wrong
    assert "--correct false" in report.verdict and "is removed" in report.verdict
    assert "is removed" in check().verdict
    assert LatencyTable.load("t.json").contents == plain.contents


@pytest.mark.parametrize("seed", range(4))
def test_noise_is_not_stored(plain, monkeypatch, folder, seed):
    before = (folder / "t.json").read_bytes()
    rng = random.Random(seed)
    put(monkeypatch, MadeBench(plain, lambda sum_ms, _: sum_ms * rng.gauss(1, 0.02)))
    report = check(seed=seed, rounds=3)
    assert report.table_written is None and "is unchanged" in report.verdict
    assert (folder / "t.json").read_bytes() == before


def test_single_disturbed_networks_change_little(plain, monkeypatch):
    put(monkeypatch, MadeBench(plain, lambda sum_ms, _: 0.9 * sum_ms, noise=0.005, slow={2, 11}))
    report = check()
    assert report.table_written == "t.json"
    calm = [network.corrected_ms / (0.9 * network.sum_ms) - 1 for network in report.networks]
    assert max(map(abs, calm)) < 0.03
    assert report.errors("corrected_ms").worst_percent > 20


def test_a_fit_that_others_do_not_bear_out_is_not_stored(plain, monkeypatch):
    put(monkeypatch, bench := MadeBench(plain, None))
    chosen = fitting_part(20, 0)
    names = [network.architecture for network in _drawn(plain, 20)]
    slow = {names[index] for index in chosen}
    bench.truth = None
    bench._own_ms = lambda name, _: (
        MadeBench._own_ms(bench, name, 0)
        if name.startswith("MBInv")
        else plain.architecture_ms(tfnas.Architecture.parse(name)) * (1.2 if name in slow else 1.0)
    )
    report = check()
    assert report.fit.terms.scale == pytest.approx(1.2, rel=1e-3)
    assert (
        report.table_written is None and "no better than the uncorrected sum on the held-out networks" in report.verdict
    )


def _drawn(plain, count):
    from tfnas.bench.benchmark_cases import random_architectures

    @dataclasses.dataclass
    class Drawn:
        architecture: str

    space = tfnas.space("little.yaml")
    return [Drawn(network.to_text()) for network in random_architectures(space, count, 10, 0)]


def test_only_looking_and_writing_elsewhere(plain, monkeypatch, folder):
    put(monkeypatch, MadeBench(plain, truth))
    before = (folder / "t.json").read_bytes()
    report = check(correct=False)
    assert report.fit is not None and report.table_written is None and "--correct false" in report.verdict
    assert (folder / "t.json").read_bytes() == before and (folder / "t.check.png").is_file()
    report = check(out="new/corrected.json", out_dir="found")
    assert report.table_written == "new/corrected.json" and (folder / "t.json").read_bytes() == before
    assert LatencyTable.load("new/corrected.json").contents.correction is not None
    assert sorted(path.name for path in (folder / "found").iterdir()) == ["corrected.check.json", "corrected.check.png"]


def test_the_files_of_a_check_are_not_put_beside_bundled_tables(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for bundled in shipped_table_paths():
        config = CheckConfig(lookup_path=str(bundled), correct=False)
        assert config.result_path(".check.json") == Path(f"{bundled.stem}.check.json")
    config = CheckConfig(lookup_path=str(bundled), out="corrected/mine.json")
    assert config.result_path(".check.png") == Path("corrected/mine.check.png")
    assert CheckConfig(lookup_path="t/t.json").result_path(".check.png") == Path("t/t.check.png")
    (tmp_path / "link.json").symlink_to(bundled)
    named = CheckConfig(lookup_path="link.json", out_dir="found")
    assert named.result_path(".check.json") == Path("found/link.check.json")


def test_few_networks_are_compared_only(plain, monkeypatch):
    put(monkeypatch, MadeBench(plain, truth))
    report = check(num_networks=5)
    assert report.fit is None and report.table_written is None
    assert report.verdict == "nothing is fitted: that takes 6 networks, these are 5"
    assert check(num_networks=1).errors("predicted_ms").kendall_tau == 0.0


def test_every_part_of_a_corrected_table_stays_above_zero(plain, monkeypatch):
    put(monkeypatch, MadeBench(plain, lambda sum_ms, blocks: 1.3 * sum_ms - 0.25 * blocks))
    check()
    table, space = LatencyTable.load("t.json"), tfnas.space("little.yaml")
    assert table.contents.correction is not None
    for key, curve in table.contents.curves.items():
        least = curve.dense_ms() * table.contents.correction.scale + table.contents.correction.block_ms
        assert (least >= 0.1 * table.contents.correction.scale * curve.dense_ms() - 1e-12).all(), key
    table.check(space)
    assert table.base_ms(1) > 0 and table.range_ms(space)[0] > 0


def test_on_a_restless_machine_nothing_is_stored(plain, monkeypatch, folder):
    before = (folder / "t.json").read_bytes()
    put(monkeypatch, MadeBench(plain, lambda sum_ms, _: 2 * sum_ms, noise=0.3))
    report = check()
    assert report.fit is not None and report.table_written is None and (folder / "t.json").read_bytes() == before
    assert "calls of the same network vary by" in report.verdict and "make the machine quiet" in report.verdict


def test_a_process_that_lost_its_core_says_so(plain):
    alike = [Timing(2.0, 0.02, 10)]
    timed = RoundsTimed(alike, alike, alike, alike[0], rounds=3, seconds=1.0, cpu_share=0.5, lost_core_per_s=2.0)
    assert timed.disturbance == "this process got only 50% of its core"
    assert dataclasses.replace(timed, cpu_share=0.95).disturbance is None
    assert dataclasses.replace(timed, cpu_share=None, lost_core_per_s=None).disturbance is None
    for threads, share in ((1, 0.95), (2, 1.2), (2, 1.9), (8, 6.0)):  # several wait for one another
        several = dataclasses.replace(timed, threads=threads, cpu_share=share)
        assert several.disturbance is None
        lost = dataclasses.replace(several, lost_core_per_s=120.0)
        assert lost.disturbance == ("this process was preempted by other programs, 120 times in a second of computing")


class HereBench(MadeBench, LocalBench):
    """On this machine's processor, as far as others can tell."""

    device_name = versions = conditions = None


@pytest.mark.parametrize(("lost", "threads"), [(0, 1), (0, 2), (150, 1), (150, 2)])
def test_how_often_the_core_was_lost_decides_with_any_number_of_threads(plain, monkeypatch, lost, threads):
    """A second of computing passes on each thread between any two looks at the clocks."""
    bench = put(monkeypatch, HereBench(plain, lambda sum_ms, _: 0.9 * sum_ms))
    bench.conditions = Conditions(batch_size=32, threads=threads)
    looks = itertools.count()

    class Usage:
        def __init__(self):
            computed_s = threads * next(looks)
            self.ru_utime, self.ru_stime, self.ru_nivcsw = 0.75 * computed_s, 0.25 * computed_s, lost * computed_s

    monkeypatch.setattr("tfnas.bench.check_timing.resource.getrusage", lambda _: Usage())
    seconds = itertools.count()
    monkeypatch.setattr("tfnas.bench.check_timing.time.monotonic", lambda: float(next(seconds)))
    report = check(num_networks=6, rounds=4)
    assert (report.cpu_share, report.lost_core_per_s) == (threads, lost)
    assert (report.disturbance is None) == (report.table_written is not None) == (lost == 0)


# ---- the level of the machine ----------------------------------------------------------------------------------------


def test_a_machine_slower_by_now_is_told_and_can_be_divided_out(plain, monkeypatch, capsys):
    put(monkeypatch, MadeBench(plain, lambda sum_ms, _: sum_ms, noise=0.002, pace=1.25))
    report = check(correct=False)
    assert report.level.ratio == pytest.approx(1.25, rel=0.01)
    assert report.fit.terms.scale == pytest.approx(1.25, rel=0.01)
    level = check(level="table")
    assert level.fit is None and level.errors("predicted_ms").median_percent < 1
    assert level.networks[0].plain_ms == pytest.approx(1.25 * level.networks[0].measured_ms, rel=0.02)
    assert latency.main(["check", "--lookup_path", "t.json", "--space", "little.yaml", "--correct", "false"]) == 0
    printed = capsys.readouterr().out
    assert "single blocks take 1.25 x their table latency" in printed
    assert "the machine is slower now than when the table was measured" in printed


# ---- files -----------------------------------------------------------------------------------------------------------


def test_numbers_and_picture(plain, drawn, monkeypatch, folder):
    put(monkeypatch, MadeBench(plain, truth, noise=0.01))
    report = check()
    document = json.loads((folder / "t.check.json").read_text())
    assert document["fingerprint"] == plain.fingerprint and document["rounds"] == 10 and document["seed"] == 0
    rows = document["networks"]
    assert len(rows) == 20 and {row["part"] for row in rows} == {"fitted", "held_out"}
    held_out = [abs(row["corrected_ms"] / row["measured_ms"] - 1) for row in rows if row["part"] == "held_out"]
    assert document["errors"]["corrected_ms"]["held_out"]["median_percent"] == pytest.approx(100 * np.median(held_out))
    assert [row["architecture"] for row in rows] == [network.architecture for network in report.networks]
    picture = Image.open(io.BytesIO((folder / "t.check.png").read_bytes()))
    assert picture.format == "PNG" and 1000 < picture.width < 2500 and 600 < picture.height < 1500
    assert np.asarray(picture.convert("L")).std() > 5


def test_interrupted_nothing_is_written(plain, monkeypatch, folder):
    put(monkeypatch, MadeBench(plain, truth))
    before = sorted((path.name, path.read_bytes()) for path in folder.iterdir())

    def stop(done, _):
        if done == 30:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        check_table(CheckConfig(lookup_path="t.json", space="little.yaml"), on_measurement=stop)
    assert sorted((path.name, path.read_bytes()) for path in folder.iterdir()) == before


# ---- refusals --------------------------------------------------------------------------------------------------------


def outcome(capsys, *arguments):
    status = latency.main(["check", *arguments])
    captured = capsys.readouterr()
    assert "Traceback" not in captured.err
    return status, captured


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ("", "--lookup_path must be given"),
        ("--lookup_path none.json", "none.json cannot be read"),
        ("--lookup_path little.yaml", "neither a table that"),
        (
            "--lookup_path t.json",
            "is for the space 'little', which is not a built-in space: give its YAML file",
        ),
        ("--lookup_path t.json --space digits", "was measured for|is for other networks|is not in its table"),
        ("--lookup_path t.json --num_networks 0", "--num_networks must be 1 or more, got 0"),
        ("--lookup_path t.json --rounds 0", "--rounds must be 1 or more, got 0"),
        ("--lookup_path t.json --seed -1", "--seed must be 0 or more, got -1"),
        ("--lookup_path t.json --time_budget soon", "--time_budget must be a time like 90s, 10min or 1h, got 'soon'"),
        ("--lookup_path t.json --level then", "--level must be one of now, table, got 'then'"),
        ("--lookup_path t.json --device tpu", "--device must be cpu, cuda or cuda:N, got 'tpu'"),
        ("--lookup_path t.json --space little.yaml --device cuda", "--device is cuda, but .* was measured on cpu"),
        ("--lookup_path t.json --correct false --out x.json", "--out x.json is for the corrected table"),
        ("--lookup_path t.json --worker_timeout 0", "--worker_timeout must be above 0 s, got 0.0"),
        ("--lookup_path t.json --worker_timeout inf", "--worker_timeout must be a number, got 'inf'"),
    ],
)
def test_bad_input_is_one_message(plain, capsys, arguments, message):
    status, captured = outcome(capsys, *arguments.split())
    assert status == 2 and captured.out == ""
    lines = captured.err.strip().splitlines()
    assert len(lines) == 1
    assert any(part in lines[0] or re.search(part, lines[0]) for part in message.split("|")), lines


def test_tables_that_do_not_say_how_they_were_measured(shared_data, capsys):
    status, captured = outcome(capsys, "--lookup_path", str(shared_data / "tfnas" / "latency_gpu.pkl"))
    assert status == 2 and "does not say how it was measured" in captured.err


def test_a_runtime_that_is_not_there_is_the_tables_and_no_flag(plain, capsys, folder):
    before = sorted(folder.iterdir())
    measurement_changed(plain, runtime="tensorrt")
    status, captured = outcome(capsys, "--lookup_path", "t.json", "--space", "little.yaml")
    assert status == 2 and "--runtime" not in captured.err and sorted(folder.iterdir()) == before
    assert "as latency table t.json was measured: there is no runtime 'tensorrt'; there are" in captured.err


def test_counted_tables_are_refused(plain, monkeypatch, capsys):
    counted = dataclasses.replace(plain.contents, cost="macs")
    monkeypatch.setattr(
        "tfnas.bench.check_inputs.load_table", lambda path: LatencyTable(counted, f"latency table {path}")
    )
    status, captured = outcome(capsys, "--lookup_path", "t.json", "--space", "little.yaml")
    assert status == 2 and "was counted (macs) and is exact" in captured.err


def test_a_table_of_a_worker_wants_its_worker(plain, capsys):
    measurement_changed(plain, worker=True)
    status, captured = outcome(capsys, "--lookup_path", "t.json", "--space", "little.yaml")
    assert status == 2 and "was measured on another machine (Made-up Processor)" in captured.err
    assert '--worker "ssh pi@raspberrypi python3 -"' in captured.err


def test_another_processor_is_told_and_corrects_nothing(plain, monkeypatch, folder):
    before = (folder / "t.json").read_bytes()
    bench = put(monkeypatch, MadeBench(plain, truth, device="Other Processor"))
    with pytest.warns(LatencyTableWarning, match="was measured on Made-up Processor; this is Other Processor"):
        report = check()
    assert report.table_written is None and "another device" in report.verdict and report.fit is not None
    assert (folder / "t.json").read_bytes() == before
    bench.device_name, bench.versions = "Made-up Processor", {"torch": "2.12.0", "python": "3.13.0"}
    with pytest.warns(LatencyTableWarning, match=r"was measured with torch 2.11.0; this is torch 2.12.0: .* not corr"):
        report = check()  # the other Python is not told: warnings are errors here
    assert report.table_written is None and (folder / "t.json").read_bytes() == before
    assert "it was measured with torch 2.11.0; this is torch 2.12.0" in report.verdict


def test_a_correction_says_the_level_that_it_holds(plain, monkeypatch, capsys):
    put(monkeypatch, MadeBench(plain, truth, noise=0.002, pace=1.25))
    report = check(level="table", seed=3)
    correction = LatencyTable.load("t.json").contents.correction
    assert (correction.seed, correction.level) == (3, "table")
    assert correction.machine_ratio == report.level.ratio == pytest.approx(1.25, rel=0.01)
    assert (
        correction.description
        == "10 of 20 networks drawn with seed 3, in torch 2.11.0, 1.25 x the table's, divided out"
    )
    latency.main(["check", "--lookup_path", "t.json", "--space", "little.yaml", "--correct", "false"])
    assert f"that correction was fitted to {correction.description}" in " ".join(capsys.readouterr().out.split())
    now = dataclasses.replace(correction, level="now")
    assert now.description.endswith("at the machine's level of that day, 1.25 x the table's")


@pytest.mark.parametrize("meanwhile", ["changed", "gone"])
def test_a_table_that_was_changed_meanwhile_stays(plain, monkeypatch, folder, meanwhile):
    put(monkeypatch, MadeBench(plain, truth))
    config = CheckConfig(lookup_path="t.json", space="little.yaml")

    def somebody_else(done, _):
        if done == 30 and meanwhile == "changed":
            measurement_changed(plain, procedure="measured again")
        elif done == 30:
            (folder / "t.json").unlink()

    report = check_table(config, on_measurement=somebody_else)
    assert report.table_written is None and report.fit is not None
    assert report.verdict == (
        "the table is unchanged: t.json was changed by another process in the meantime; check again"
    )
    assert json.loads((folder / "t.check.json").read_text())["table_written"] is None
    if meanwhile == "changed":
        contents = LatencyTable.load("t.json").contents
        assert contents.correction is None and contents.measurement.procedure == "measured again"
    else:
        assert not (folder / "t.json").exists()


def test_the_table_is_written_before_anything_says_so(plain, monkeypatch, folder):
    put(monkeypatch, MadeBench(plain, truth))

    def full(*_):
        raise RunFailed("the disk is full")

    monkeypatch.setattr(LatencyTable, "save", full)
    with pytest.raises(RunFailed, match="the disk is full"):
        check()
    assert sorted(path.name for path in folder.iterdir()) == ["little.yaml", "t.json"]


def test_what_was_found_is_told_where_it_cannot_be_written(plain, monkeypatch, capsys):
    """And nothing of a correction that is not in the table then."""
    put(monkeypatch, MadeBench(plain, truth))

    def full(*_):
        raise RunFailed("the disk is full")

    for place in ("tfnas.latency.cost_table.write_whole", "tfnas.bench.check_table.write_whole"):
        with monkeypatch.context() as patched:
            patched.setattr(place, full)
            status, captured = outcome(capsys, "--lookup_path", "t.json", "--space", "little.yaml")
        assert status == 1 and captured.err == "tfnas latency check: the disk is full\n"
        assert "\nerror     median" in captured.out and "result" not in captured.out and "stored" not in captured.out


def test_the_patience_with_a_worker_is_passed_on(plain, monkeypatch):
    asked = []
    bench = MadeBench(plain, truth)
    monkeypatch.setattr("tfnas.bench.check_inputs.open_bench", lambda *given: asked.append(given) or bench)
    check(worker="ssh toy python3 -", worker_timeout=300.0)
    assert asked[0][2:] == ("ssh toy python3 -", 0, 300.0)


def test_a_place_that_cannot_be_written_is_told_before_measuring(plain, monkeypatch, folder, capsys):
    bench = put(monkeypatch, MadeBench(plain, truth))
    (folder / "file").write_text("in the way")
    for flag in (("--out", "file/t.json"), ("--out_dir", "file"), ("--out", ".")):
        status, captured = outcome(capsys, "--lookup_path", "t.json", "--space", "little.yaml", *flag)
        assert status == 1 and "cannot write" in captured.err
    assert bench.visited == []


def test_the_space_of_a_table_is_found_with_its_multiple_of_widths():
    digits = tfnas.space("digits")
    for space in (digits, digits.at(24), digits.in_multiples_of(8)):
        contents = tiny_contents(space, random.Random(0))
        measured = dataclasses.replace(contents.measurement, width_multiple=space.width_multiple)
        table = LatencyTable(dataclasses.replace(contents, measurement=measured))
        assert table_space(table, None) == space == table_space(table, "digits")
    other = dataclasses.replace(digits, feature_mix_channels=32)
    with pytest.raises(InputError, match="differs from the built-in one"):
        table_space(LatencyTable(tiny_contents(other, random.Random(0))), None)


# ---- the command -----------------------------------------------------------------------------------------------------


def test_the_command_prints_what_was_found(plain, monkeypatch, capsys):
    put(monkeypatch, MadeBench(plain, truth, noise=0.01))
    status, captured = outcome(capsys, "--lookup_path", "t.json", "--space", "little.yaml")
    assert status == 0
    lines = captured.out.splitlines()
    starts = [line[:10].strip() for line in lines if line[:10].strip()]
    assert starts == [
        "table", "space", "measured", "machine", "error", "fit", "held out", "result", "plot", "numbers",
    ]  # fmt: skip
    document = json.loads(Path("t.check.json").read_text())
    errors = document["errors"]["corrected_ms"]["held_out"]
    after = next(line for line in lines if line[10:].startswith("after"))
    assert f"median {errors['median_percent']:.2f} %, worst {errors['worst_percent']:.2f} %" in after
    assert any("within 5 %" in line for line in lines) and "written to t.json" in captured.out
    status, captured = outcome(capsys, "--lookup_path", "t.json", "--space", "little.yaml", "--correct", "false")
    assert status == 0 and "with the table's correction of" in captured.out and "as is   median" in captured.out


def test_help_is_fast_and_fits_a_terminal():
    check = (
        "import os, sys, tfnas.cli.main as m\nos.environ['COLUMNS'] = '80'\n"
        "try: m.main(['latency', 'check', '--help'])\n"
        "except SystemExit: sys.exit(bool({'torch', 'matplotlib', 'scipy'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", check], capture_output=True, check=True, text=True)
    assert "--num_networks N" in done.stdout and max(map(len, done.stdout.splitlines())) <= 80


def test_whole_networks_for_real(plain, drawn, capsys):
    """The made-up table is far off; what counts is that everything goes its way, and that no figure is made up."""
    status, captured = outcome(
        capsys, "--lookup_path", "t.json", "--space", "little.yaml", "--num_networks", "6", "--rounds", "2",
        "--out", "new.json",
    )  # fmt: skip
    assert status == 0 and "6 random networks" in captured.out and "the table is unchanged" in captured.out
    assert "warning: latency table t.json was measured on Made-up Processor" in captured.err
    document = json.loads(Path("new.check.json").read_text())
    assert 0 < document["cpu_share"] < 1.5 and document["lost_core_per_s"] >= 0
    assert document["rounds"] == 2 and all(row["runs"] == 4 and row["measured_ms"] > 0 for row in document["networks"])
    assert LatencyTable.load("t.json").contents == plain.contents
