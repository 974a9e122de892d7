"""The closed loop on benches of known truth, and the run directory that it writes."""

from __future__ import annotations

import hashlib
import io
import json
import os
import random
import re
import shutil
import signal

import numpy as np
import pytest
import yaml
from made_bench import MadeBench, SlowNoise
from made_tables import random_table
from rich.console import Console
from small_search import write_inputs
from tiny import tiny_contents, tiny_space

import tfnas
from tfnas.bench import benches
from tfnas.bench.benches import LocalBench
from tfnas.bench.benchmark_cases import network_case, random_architectures
from tfnas.cli import latency as command
from tfnas.core.errors import Infeasible, InputError, Interrupted, RunFailed
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.table_contents import Conditions
from tfnas.runs.architecture_source import read_source
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import RunDirectory
from tfnas.searching.parsing import parse_model
from tfnas.searching.refitting import refit_plan as plan
from tfnas.searching.refitting.refit_config import CloseConfig
from tfnas.searching.refitting.refit_loop import Goal, fitted_at, refit_to_target, widths_range_ms
from tfnas.searching.refitting.refit_run import close_run, phase_text
from tfnas.spaces.families import architecture_counts
from tfnas.training.train_config import TrainConfig
from tfnas.training.train_setup import prepare
from tfnas.utils.devices import usable_cores

QUIET = Console(quiet=True)


def rising(random, count):
    return 0.2 + np.linspace(0, 1, count) * random.uniform(0.3, 1)


@pytest.fixture(scope="module")
def table():
    return random_table(tfnas.space("digits"), np.random.default_rng(0), rising)


@pytest.fixture(scope="module")
def starts():
    return random_architectures(tfnas.space("digits"), 20, 10, seed=0)


def slow_truth(table):
    """A device unlike the table: 1.2 times as slow, with a fixed part, and more so where there is more to compute."""

    def truth_ms(architecture):
        ms = table.architecture_ms(architecture)
        return 0.3 + 1.2 * ms + 0.01 * ms**2

    return truth_ms


def within_widths(start, table, target_ms):
    """Whether widths alone truly reach a target, with 2 % to spare."""
    low, high = (slow_truth(table)(fitted_at(start, table, aim_ms, 0.01)) for aim_ms in (1e-9, 1e9))
    return 1.02 * low < target_ms < 0.98 * high


def closed_at(start, table, ratio, bench, *, epsilon=0.01, seconds=300.0, iterations=8):
    """The result for a target of `ratio` times what the start truly takes, and the target."""
    target_ms = ratio * bench.truth(start)
    goal = Goal(target_ms=target_ms, epsilon=epsilon, iterations=iterations, seconds=seconds)
    return refit_to_target(start, table, bench, goal, clock=bench.clock), target_ms


# ---- the loop -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("ratio", [0.94, 1.0, 1.06])
def test_the_true_latency_comes_within_epsilon(table, starts, ratio):
    truth_ms = slow_truth(table)
    reachable = [start for start in starts if within_widths(start, table, ratio * truth_ms(start))]
    assert len(reachable) >= 10
    for seed, start in enumerate(reachable[:6]):
        bench = MadeBench(truth_ms, noise=0.01, memory=10, jitter=0.01, seed=seed)
        closed, target_ms = closed_at(start, table, ratio, bench)
        assert closed.verdict == "inside" and closed.ending == "certified"
        assert bench.truth(closed.point.architecture) == pytest.approx(target_ms, rel=0.01)
        assert len(closed.history) <= 6
        assert operations_of(closed.point.architecture) == operations_of(start)


def operations_of(architecture):
    """Everything but the widths."""
    return [
        [(block.kernel_size, block.se_channels, block.stride, block.mid_range) for block in blocks]
        for blocks in architecture.stages
    ]


def test_it_converges_without_noise_to_a_small_epsilon(table, starts):
    for start in starts[:5]:
        bench = MadeBench(slow_truth(table))
        closed, target_ms = closed_at(start, table, 0.95, bench, epsilon=0.002)
        assert closed.verdict == "inside"
        assert bench.truth(closed.point.architecture) == pytest.approx(target_ms, rel=0.002)


@pytest.mark.parametrize("seeds", [16, pytest.param(40, marks=pytest.mark.slow)])
def test_the_certificate_holds_the_truth_about_as_often_as_it_says(table, starts, seeds):
    held = []
    for seed in range(seeds):
        bench = MadeBench(slow_truth(table), noise=0.02, memory=30, jitter=0.01, seed=seed)
        closed, _ = closed_at(starts[seed % 20], table, 1.0, bench, epsilon=0.02)
        low, high = closed.point.found.interval_ms
        held.append(low <= bench.truth(closed.point.architecture) <= high)
    assert np.mean(held) >= 0.875


@pytest.mark.parametrize("places", [range(8), pytest.param(range(8, 20), marks=pytest.mark.slow)])
def test_it_never_claims_what_is_not_so(table, starts, places):
    for seed in places:
        start = starts[seed]
        bench = MadeBench(slow_truth(table), noise=0.04, memory=800, wave=0.02, seed=seed)
        closed, target_ms = closed_at(start, table, 1.0, bench, seconds=60)
        if closed.verdict == "inside":
            assert bench.truth(closed.point.architecture) == pytest.approx(target_ms, rel=0.01)


def test_a_network_far_from_the_target_is_not_known_closely(table, starts):
    """Beyond all widths: three epsilons off it is measured to tell, fifty off for a fraction of the time."""
    found = {}
    for beyond in (1.03, 1.5):
        bench = SlowNoise(0.3, 0.01, 0, truth=slow_truth(table))
        widest = bench.truth(fitted_at(starts[0], table, 1e9, 0.01))
        goal = Goal(target_ms=beyond * widest, epsilon=0.01, iterations=8, seconds=300.0)
        closed = refit_to_target(starts[0], table, bench, goal, clock=bench.clock)
        assert closed.verdict == "outside" and closed.certificates == 1
        found[beyond] = closed.point.found
    assert found[1.03].half_width < 0.005
    assert found[1.5].seconds < found[1.03].seconds / 1.5


def test_every_phase_is_told_before_it_is_timed(table, starts):
    told = []
    bench = SlowNoise(0.3, 0.005, 0, truth=slow_truth(table))
    goal = Goal(target_ms=0.97 * bench.truth(starts[0]), epsilon=0.01, iterations=8, seconds=300.0)
    closed = refit_to_target(starts[0], table, bench, goal, told.append, bench.clock, told.append)
    phases, points = told[::2], told[1::2]
    assert [phase.purpose for phase in phases] == [point.purpose for point in points]
    assert list(closed.history) == points and len(points) >= 3
    fits = [phase for phase in phases if phase.purpose == "fit"]
    assert [phase.number for phase in fits] == list(range(1, len(fits) + 1))
    assert phase_text(fits[1], goal).startswith("timing the network, fit 2 of at most 8; at most 9 s")
    assert "for the certificate; " in phase_text(phases[-1], goal)


def test_with_little_time_certificates_are_still_for_networks_that_are_there(table, starts):
    """A fit of a third of a second would often call a network near that is not: ten of forty certificates were such."""
    wasted = 0
    for seed in range(40):
        bench = SlowNoise(0.3, 0.01, seed, truth=slow_truth(table))
        closed, target_ms = closed_at(starts[seed % 20], table, 0.97, bench, seconds=10)
        certified = [bench.truth(point.architecture) for point in closed.history if point.purpose == "certify"]
        wasted += sum(abs(truth_ms / target_ms - 1) > 0.01 for truth_ms in certified)
    assert wasted <= 5


def test_noise_larger_than_epsilon_is_told(table, starts):
    undecided = 0
    for seed, start in enumerate(starts[:8]):
        bench = MadeBench(slow_truth(table), noise=0.06, memory=300, jitter=0.02, seed=seed)
        closed, target_ms = closed_at(start, table, 1.0, bench, seconds=40)
        assert closed.verdict != "inside"
        found = closed.point.found
        if closed.verdict == "undecided":
            undecided += 1
            assert found.half_width > 0.005 and found.supported_epsilon(target_ms) > 0.01
    assert undecided >= 5


def test_the_certificate_is_of_fresh_calls(table, starts):
    bench = MadeBench(slow_truth(table), noise=0.01, seed=1)
    closed, _ = closed_at(starts[0], table, 0.95, bench)
    *before, last = closed.history
    assert last is closed.point and last.purpose == "certify"
    assert {point.purpose for point in before} == {"fit"} and before[-1].architecture == last.architecture
    calls = sum(point.found.runs for point in closed.history)
    assert calls <= bench.count / 2  # every call counts once, each with one of the reference


@pytest.fixture(scope="module")
def noisy_endings(table, starts):
    """Loops on a machine whose noise outlasts certificates, so that several are made."""
    endings = []
    for seed in range(10):
        bench = MadeBench(slow_truth(table), noise=0.012, memory=2000, jitter=0.01, seed=seed)
        endings.append((bench, *closed_at(starts[seed % len(starts)], table, 1.0, bench)))
    return endings


def certificates_of(closed):
    return [point for point in closed.history if point.purpose == "certify"]


def test_a_network_is_certified_once_and_never_again(noisy_endings):
    for _, closed, _ in noisy_endings:
        networks = [point.architecture.to_text() for point in certificates_of(closed)]
        assert len(set(networks)) == len(networks) == closed.certificates
    assert max(closed.certificates for _, closed, _ in noisy_endings) >= 2


def test_the_last_certificate_is_told_not_the_luckiest(noisy_endings):
    luckier = 0
    for _, closed, target_ms in noisy_endings:
        *before, last = certificates_of(closed)
        assert closed.point is last
        assert all(point.found.verdict(target_ms, 0.01) != "inside" for point in before)
        told = last.found.supported_epsilon(target_ms)
        luckier += any(point.found.supported_epsilon(target_ms) < told for point in before)
    assert luckier >= 1


def test_the_time_budget_is_that_of_everything(noisy_endings, table):
    visit_s = 0.25 * 1.1
    for bench, closed, _ in noisy_endings:
        assert bench.clock() <= 300 + 2 * visit_s * len(closed.history)  # what prepares a measurement is not counted
        assert sum(point.found.seconds for point in closed.history) <= 300


@pytest.mark.parametrize(("ratio", "end"), [(0.2, 0), (5.0, 1)])
def test_a_target_beyond_all_widths_ends_at_their_bounds(table, starts, ratio, end):
    bench = MadeBench(slow_truth(table), noise=0.005, seed=2)
    closed, _ = closed_at(starts[0], table, ratio, bench)
    assert (closed.verdict, closed.ending) == ("outside", "all widths are at their bounds")
    widths = [place.block.mid_channels for place in closed.point.architecture.blocks]
    assert widths == [place.block.mid_range[end] for place in closed.point.architecture.blocks]
    assert len(closed.history) <= 4
    assert closed.bounds_ms[end] == pytest.approx(bench.truth(closed.point.architecture), rel=0.01)


def test_steps_too_coarse_for_epsilon_end_too():
    space = tiny_space()
    table = random_table(space, np.random.default_rng(1), lambda random, count: 1 + (np.arange(count) >= 10) * 3.0)
    (start,) = random_architectures(space, 1, 10, 4)
    bench = MadeBench(slow_truth(table))
    low_ms, high_ms = (bench.truth(fitted_at(start, table, aim_ms, 0.01)) for aim_ms in (1e-9, 1e9))
    target_ms = low_ms + 0.37 * (high_ms - low_ms)
    goal = Goal(target_ms=target_ms, epsilon=0.002, iterations=20, seconds=1000)
    closed = refit_to_target(start, table, bench, goal, clock=bench.clock)
    assert closed.verdict == "outside" and "no other widths are closer" in closed.ending
    fits = [point.architecture for point in closed.history if point.purpose == "fit"]
    assert len(fits) < 20
    best = min(abs(bench.truth(network) - target_ms) for network in fits)
    assert abs(bench.truth(closed.point.architecture) - target_ms) == pytest.approx(best)


def test_iterations_and_time_are_kept_to(table, starts):
    bench = MadeBench(slow_truth(table), noise=0.05, memory=2000, seed=5)
    closed, _ = closed_at(starts[0], table, 0.95, bench, seconds=30, iterations=3)
    assert sum(point.purpose == "fit" for point in closed.history) <= 3
    assert bench.clock() < 60
    one, _ = closed_at(starts[0], table, 0.93, MadeBench(slow_truth(table)), iterations=1)
    assert [point.purpose for point in one.history] == ["fit", "certify"]


def test_a_fit_is_near_its_aim_and_moves_little(table, starts):
    for start in starts:
        low, high = widths_range_ms(start, table)
        now_ms = table.architecture_ms(start)
        for aim_ms in (0.97 * now_ms, 1.03 * now_ms):
            aim_ms = float(np.clip(aim_ms, low, high))
            fitted = fitted_at(start, table, aim_ms, 0.01)
            assert table.architecture_ms(fitted) == pytest.approx(aim_ms, rel=0.0026)
        assert fitted_at(start, table, 1.002 * now_ms, 0.01) == start
        assert table.architecture_ms(fitted_at(start, table, 0.5 * low, 0.01)) == pytest.approx(low)
        assert table.architecture_ms(fitted_at(start, table, 2 * high, 0.01)) == pytest.approx(high)


# ---- the run directory ----------------------------------------------------------------------------------------------


def write_search(folder):
    """A finished search's run directory, as far as others read it: for a network in the middle of the tiny space."""
    inputs = write_inputs(folder)
    run_dir, space = folder / "searched", tiny_space()
    run_dir.mkdir()
    (architecture,) = random_architectures(space, 1, 10, 1)
    table = LatencyTable.load(inputs["lookup_path"])
    summary = {"target_ms": 1.25 * table.architecture_ms(architecture), "architecture": architecture.to_text()}
    summary |= {"lookup_path": inputs["lookup_path"], "table_fingerprint": table.fingerprint}
    config = {"data": "digits", "test_ratio": 0.2, "val_ratio": 0.25, "img_root": None, **inputs, "seed": 4}
    (run_dir / "config.yaml").write_text(yaml.safe_dump(config))
    (run_dir / "architecture.json").write_text(json.dumps(architecture.to_json()))
    (run_dir / "model.config").write_text(json.dumps(architecture.to_model_config()))
    (run_dir / "summary.json").write_text(json.dumps(summary))
    return run_dir, table, architecture


def opener(bench):
    return {"bench": lambda reference: bench, "clock": bench.clock}


def contents_of(folder):
    return {path: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.rglob("*") if path.is_file()}


def close_made(searched, table, **changes):
    bench = MadeBench(slow_truth(table), noise=0.005, jitter=0.005, seed=3)
    settings = {"model_path": str(searched), "run_dir": str(searched.parent / "closed"), "epsilon": "3%"}
    config = CloseConfig(**{**settings, **changes})
    return close_run(config, QUIET, **opener(bench)), bench


def test_the_new_run_directory_holds_what_others_read(tmp_path):
    run_dir, table, start = write_search(tmp_path)
    before = contents_of(run_dir)
    closed, bench = close_made(run_dir, table)
    summary = json.loads((closed.run_dir / "summary.json").read_text())
    assert closed.summary == summary and contents_of(run_dir) == before
    found = parse_model(closed.run_dir)
    network = found.architecture
    assert network == tfnas.Architecture.load(closed.run_dir / "architecture.json") != start
    document = json.loads((closed.run_dir / "model.config").read_text())
    assert document == network.to_model_config()
    assert any("measured as a whole" in note for note in found.notes)
    counts = architecture_counts(network)
    expected = {"target_ms": found.target_ms, "table_ms": table.architecture_ms(network), "seed": 0, "cost": "ms"}
    expected |= {"params": counts.params, "macs": counts.macs, "architecture": network.to_text(), "verdict": "inside"}
    expected |= {"table_fingerprint": table.fingerprint, "architecture_before": start.to_text(), "epsilon": 0.03}
    assert expected.items() <= summary.items()
    certificate = summary["certificate"]
    low, high = certificate["interval_ms"]
    assert 0.97 * summary["target_ms"] <= low <= certificate["median_ms"] <= high <= 1.03 * summary["target_ms"]
    assert summary["measured_ms"] == certificate["median_ms"] == pytest.approx(bench.truth(network), rel=0.02)
    assert summary["error_percent"] == pytest.approx(100 * (summary["measured_ms"] / summary["target_ms"] - 1))
    conditions = certificate["conditions"]
    assert (conditions["device"], conditions["runtime"], conditions["batch_size"]) == ("Made-up Processor", "made", 4)
    assert len(conditions["load"]) == 2 and not conditions["worker"]
    assert [entry["purpose"] for entry in summary["history"]][-1] == "certify"
    assert summary["certificates"] == 1 and "one certificate was made" in (closed.run_dir / "log.txt").read_text()
    assert ["interval_ms" in entry for entry in summary["history"]] == [
        entry["purpose"] == "certify" for entry in summary["history"]
    ]
    assert "certify" in (closed.run_dir / "log.txt").read_text()


def test_training_goes_on_with_the_data_of_the_search(tmp_path):
    run_dir, table, _ = write_search(tmp_path)
    first, _ = close_made(run_dir, table)
    again, _ = close_made(first.run_dir, table, run_dir=str(tmp_path / "again"))  # a closed loop can be closed again
    for closed in (first, again):
        saved = yaml.safe_load((closed.run_dir / "config.yaml").read_text())
        assert (saved["data"], saved["val_ratio"], saved["searched_in"]) == ("digits", 0.25, None)
        config = TrainConfig(model_path=str(closed.run_dir), device="cpu")
        setup = prepare(config, DistributedContext(0, 1, "cpu"))
        assert setup.architecture == tfnas.Architecture.load(closed.run_dir) and setup.data.name == "digits"
        assert setup.recorded["target_ms"] == closed.summary["target_ms"]
    assert first.summary["target_ms"] == again.summary["target_ms"]


def test_a_lone_architecture_needs_target_and_table_and_has_no_data(tmp_path):
    run_dir, table, start = write_search(tmp_path)
    lone = tmp_path / "lone" / "architecture.json"
    lone.parent.mkdir()
    shutil.copy(run_dir / "architecture.json", lone)
    bench = MadeBench(slow_truth(table), noise=0.005)
    with pytest.raises(InputError, match="names no target latency: give one with --target_lat"):
        close_run(CloseConfig(model_path=str(lone)), QUIET, **opener(bench))
    target_ms = bench.truth(start)
    with pytest.raises(InputError, match=r"names no latency table.*--lookup_path"):
        close_run(CloseConfig(model_path=str(lone), target_lat=target_ms), QUIET, **opener(bench))
    given = {"lookup_path": str(tmp_path / "table.json"), "target_lat": target_ms, "run_dir": str(tmp_path / "closed")}
    closed = close_run(CloseConfig(model_path=str(lone), **given), QUIET, **opener(bench))
    assert closed.summary["verdict"] == "inside"
    with pytest.raises(InputError, match="name them with --data"):
        prepare(TrainConfig(model_path=str(closed.run_dir), device="cpu"), DistributedContext(0, 1, "cpu"))


def test_figures_are_told_where_the_result_cannot_be_written(tmp_path, monkeypatch):
    """A disk that fills up: the log too takes no more."""
    run_dir, table, _ = write_search(tmp_path)
    said = Console(file=io.StringIO())

    def full(*_):
        raise RunFailed("the disk is full")

    def certified(run, lines, say_all=RunDirectory.say_all):
        monkeypatch.setattr(RunDirectory, "_log", full)
        say_all(run, lines)

    monkeypatch.setattr(RunDirectory, "say_all", certified)
    bench = MadeBench(slow_truth(table), noise=0.005)
    settings = {"model_path": str(run_dir), "run_dir": str(tmp_path / "closed"), "epsilon": "3%"}
    with pytest.raises(RunFailed, match="the disk is full"):
        close_run(CloseConfig(**settings), said, **opener(bench))
    assert "\nmeasured  " in said.file.getvalue() and "\ntarget    within 3 % of" in said.file.getvalue()
    assert "files" not in said.file.getvalue()


def test_what_was_not_reached_is_written_and_raised(tmp_path):
    run_dir, table, _ = write_search(tmp_path)
    with pytest.raises(
        Infeasible, match=r"not within 3 % of 0.5 ms.*The closest result was.*Widths alone reach about"
    ) as error:
        close_made(run_dir, table, target_lat=0.5)
    assert error.value.exit_status == 3
    summary = json.loads((tmp_path / "closed" / "summary.json").read_text())
    assert summary["verdict"] == "outside" and summary["ending"] == "all widths are at their bounds"
    assert summary["widths_reach_ms"][0] == pytest.approx(summary["measured_ms"], rel=0.01)
    assert parse_model(tmp_path / "closed").target_ms == 0.5


def test_noise_is_told_with_the_interval_that_it_supports(tmp_path):
    run_dir, table, start = write_search(tmp_path)
    bench = MadeBench(slow_truth(table), noise=0.1, memory=100, seed=1)
    config = {"model_path": str(run_dir), "run_dir": str(tmp_path / "closed"), "time_budget": "20s"}
    config |= {"target_lat": bench.truth(start), "iterations": 2}
    with pytest.raises(Infeasible, match=r"the noise is larger.*supports an epsilon of .* %") as error:
        close_run(CloseConfig(**config), QUIET, **opener(bench))
    assert error.value.exit_status == 3 and "longer --time_budget" in str(error.value)
    summary = json.loads((tmp_path / "closed" / "summary.json").read_text())
    assert summary["verdict"] == "undecided" and summary["supported_epsilon"] > 0.01


def test_a_hopeless_target_costs_little_time_and_says_what_widths_reach(tmp_path):
    run_dir, table, start = write_search(tmp_path)
    bench = MadeBench(slow_truth(table), noise=0.005, jitter=0.005, seed=1)
    low, high = (slow_truth(table)(fitted_at(start, table, aim_ms, 0.01)) for aim_ms in (1e-9, 1e9))
    config = CloseConfig(model_path=str(run_dir), run_dir=str(tmp_path / "closed"), target_lat=20 * high)
    with pytest.raises(
        Infeasible,
        match=r"all widths are at their bounds. Widths alone reach about ([\d.]+) to ([\d.]+) ms: changing operations",
    ) as error:
        close_run(config, QUIET, **opener(bench))
    reach = re.search(r"about ([\d.]+) to ([\d.]+) ms", str(error.value))
    assert float(reach[2]) == pytest.approx(high, rel=0.02) and float(reach[1]) < 1.1 * low * 1.2
    assert bench.seconds < 100  # of 300


# ---- ended early ----------------------------------------------------------------------------------------------------


class Ending(MadeBench):
    """Sends this process a signal in the visit of its hundredth call."""

    def calls_ms(self, true_ms):
        if self.count <= 100 < self.count + len(true_ms):
            os.kill(os.getpid(), self.signal)
        return super().calls_ms(true_ms)


@pytest.mark.parametrize(
    ("number", "word", "status"), [(signal.SIGINT, "interrupted", 130), (signal.SIGTERM, "terminated", 143)]
)
def test_interrupted_it_leaves_nothing(tmp_path, number, word, status):
    run_dir, table, _ = write_search(tmp_path)
    bench = Ending(slow_truth(table), jitter=0.005)
    bench.signal = number
    config = CloseConfig(model_path=str(run_dir), run_dir=str(tmp_path / "closed"))
    with pytest.raises(Interrupted, match=f"{word}; nothing is saved") as error:
        close_run(config, QUIET, **opener(bench))
    assert error.value.exit_status == status and not (tmp_path / "closed").exists()


def test_what_a_killed_one_has_left_is_removed(tmp_path):
    run_dir, table, _ = write_search(tmp_path)
    closed, _ = close_made(run_dir, table)
    for path in closed.run_dir.iterdir():
        if path.name not in ("config.yaml", "log.txt", ".lock"):
            path.unlink()
    with (closed.run_dir / "log.txt").open("a") as log:
        log.write("killed here\n")
    with RunDirectory(closed.run_dir, QUIET).locked(), pytest.raises(InputError, match="another process is using"):
        close_made(run_dir, table)  # not killed, but at work
    assert "killed here" in (closed.run_dir / "log.txt").read_text()
    again, _ = close_made(run_dir, table)
    assert again.summary["verdict"] == "inside" and "killed here" not in (closed.run_dir / "log.txt").read_text()
    (closed.run_dir / "summary.json").unlink()
    with pytest.raises(InputError, match="is not empty"):  # it holds an architecture
        close_made(run_dir, table)


# ---- refusals -------------------------------------------------------------------------------------------------------


def test_trained_weights_are_never_touched(tmp_path):
    run_dir, table, _ = write_search(tmp_path)
    trained = tmp_path / "trained"
    shutil.copytree(run_dir, trained)
    (trained / "model.pt").write_bytes(b"weights")
    before = contents_of(trained)
    with pytest.raises(InputError, match=r"is a training run: trained weights fix the widths.*latency certify"):
        close_made(trained, table)
    with pytest.raises(InputError, match=r"--run_dir .*trained is not empty: choose another directory"):
        close_made(run_dir, table, run_dir=str(trained))
    with pytest.raises(InputError, match="is not empty"):
        close_made(run_dir, table, run_dir=str(run_dir))
    with pytest.raises(InputError, match="is a file"):
        close_made(run_dir, table, run_dir=str(trained / "model.pt"))
    assert contents_of(trained) == before and not (tmp_path / "closed").exists()


def test_tables_that_do_not_say_how_to_measure_are_refused(tmp_path):
    run_dir, _, _ = write_search(tmp_path)
    contents = tiny_contents(tiny_space(), random.Random(3))
    for changes, message in (
        (
            {"worker": True},
            r"was measured on another machine \(Made-up Processor\): give the command to reach it with --worker",
        ),
        ({"device_kind": "cuda"}, "this machine has 0 CUDA devices|device cuda"),
    ):
        elsewhere = {**vars(contents.measurement), **changes}
        path = tmp_path / "other.json"
        LatencyTable(type(contents)(**{**vars(contents), "measurement": type(contents.measurement)(**elsewhere)})).save(
            path
        )
        config = CloseConfig(model_path=str(run_dir), lookup_path=str(path), run_dir=str(tmp_path / "closed"))
        with pytest.raises(InputError, match=message):
            close_run(config, QUIET)
    with pytest.raises(InputError, match="--device is cuda, but"):
        close_run(CloseConfig(model_path=str(run_dir), device="cuda", run_dir=str(tmp_path / "closed")), QUIET)
    assert not (tmp_path / "closed").exists()


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("", "--model_path must be given"),
        ("--model_path nowhere", "nowhere cannot be read"),
        ("--model_path x --epsilon 2", "--epsilon must be a share like 3% or 0.03, got '2'"),
        ("--model_path x --time_budget soon", "--time_budget must be a time like"),
        ("--model_path x --target_lat -1", "--target_lat must be a positive number of milliseconds, got -1"),
        ("--model_path x --iterations 0", "--iterations must be 1 or more, got 0"),
        ("--model_path x --seed -1", "--seed must be 0 to"),
        ("--model_pat x", "did you mean --model_path?"),
    ],
)
def test_bad_flags_are_one_message(line, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert command.main(["close", *line.split()]) == 2
    told = capsys.readouterr().err
    assert message in told and "Traceback" not in told and list(tmp_path.iterdir()) == []


def test_damaged_files_of_the_search_are_one_message(tmp_path):
    run_dir, table, _ = write_search(tmp_path)
    (run_dir / "config.yaml").write_text("data: digits\nval_ratio: much")
    with pytest.raises(InputError, match=r"config.yaml: val_ratio must be a number, got 'much'"):
        close_made(run_dir, table)
    (run_dir / "summary.json").write_text("{")
    with pytest.raises(InputError, match=r"summary.json cannot be read as JSON"):
        close_made(run_dir, table)


@pytest.mark.parametrize("target_ms", ["x", 0, -1.5, True, [1], float("nan"), float("inf"), 10**400])
def test_a_target_that_is_none_is_refused_before_anything_is_written(tmp_path, target_ms):
    run_dir, table, _ = write_search(tmp_path)
    summary = json.loads((run_dir / "summary.json").read_text())
    (run_dir / "summary.json").write_text(json.dumps({**summary, "target_ms": target_ms}))
    with pytest.raises(
        InputError, match=r"searched names must be a number of milliseconds above 0, got .*--target_lat"
    ):
        close_made(run_dir, table)
    assert not (tmp_path / "closed").exists()
    assert close_made(run_dir, table, target_lat=summary["target_ms"])[0].summary["verdict"] == "inside"


def test_more_threads_than_cores_are_refused(tmp_path):
    run_dir, _, _ = write_search(tmp_path)
    contents = tiny_contents(tiny_space(), random.Random(3))
    threads = usable_cores() + 1
    measured = type(contents.measurement)(**{**vars(contents.measurement), "threads": threads})
    LatencyTable(type(contents)(**{**vars(contents), "measurement": measured})).save(tmp_path / "table.json")
    with pytest.raises(InputError, match=rf"{threads} threads need a core each, but this process may use"):
        close_run(CloseConfig(model_path=str(run_dir), run_dir=str(tmp_path / "closed")), QUIET)
    assert not (tmp_path / "closed").exists()


# ---- what times -----------------------------------------------------------------------------------------------------


def test_the_bench_counts_every_call_and_has_the_time_of_the_worker(tmp_path, monkeypatch):
    run_dir, table, _ = write_search(tmp_path)
    opened, made = [], MadeBench(slow_truth(table), noise=0.005, seed=3)

    def open_made(conditions, reference, worker, seed, worker_timeout_s, *, every_call):
        opened.append((worker, seed, worker_timeout_s, every_call))
        return made

    monkeypatch.setattr(plan, "open_bench", open_made)
    config = CloseConfig(model_path=str(run_dir), seed=4, worker="python3 -", worker_timeout=7.0, epsilon="3%")
    plan.prepare(config, None, made.clock)
    assert opened == [("python3 -", 4, 7.0, True)]
    with pytest.raises(InputError, match="--worker_timeout must be above 0 s, got 0"):
        CloseConfig(model_path="x", worker_timeout=0.0)


@pytest.mark.parametrize(("every_call", "tries"), [(True, 1), (False, 8)])
def test_disturbed_calls_count_where_every_call_does(monkeypatch, every_call, tries):
    """Another program takes the core in every call; of a table's calls the first try is slow and the others are not."""
    (network,) = random_architectures(tiny_space(), 1, 10, 0)
    case = network_case(network)
    bench = LocalBench(Conditions(), case, every_call=every_call)
    switches, called = iter(range(10**6)), []

    def call_ms(prepared):
        called.append(prepared)
        return float(len(called))

    monkeypatch.setattr(benches, "_switches", lambda: next(switches))
    monkeypatch.setattr(bench, "_call_ms", call_ms)
    (visit,) = bench.measure([case], [0], 3)
    assert len(called) == 4 + 3 * 2 * tries  # three of the reference at first, one of the network
    if every_call:
        assert visit.own_ms == (6.0, 8.0, 10.0)


# ---- the real thing -------------------------------------------------------------------------------------------------


def test_pytorch_is_timed_as_a_whole(tmp_path, capsys):
    """The clock of this machine decides how it ends; what is written must be whole in any case."""
    run_dir, _, _ = write_search(tmp_path)
    line = f"--model_path {run_dir} --run_dir {tmp_path}/real --time_budget 1s --iterations 2 --epsilon 20%"
    status = command.main(["close", *line.split()])
    summary = json.loads((tmp_path / "real" / "summary.json").read_text())
    assert status == (0 if summary["verdict"] == "inside" else 3)
    told = capsys.readouterr()
    assert "median" in told.out and "Traceback" not in told.err
    assert parse_model(tmp_path / "real").architecture.to_text() == summary["architecture"]
    certificate = summary["certificate"]
    assert certificate["conditions"]["runtime"] == "torch" and certificate["runs"] >= 32
    assert 0 < certificate["interval_ms"][0] <= certificate["median_ms"] <= certificate["interval_ms"][1]


def test_training_inherits_from_the_search_behind(tmp_path, small_search):
    run_dir = shutil.copytree(small_search, tmp_path / "searched")
    table, start = LatencyTable.load(small_search.parent / "table.json"), tfnas.Architecture.load(run_dir)
    widest = fitted_at(start, table, 1e9, 0.01)
    closed, _ = close_made(run_dir, table, target_lat=slow_truth(table)(widest))
    assert read_source(closed.run_dir, None).architecture == widest != start
    config = TrainConfig(inherit=str(closed.run_dir), run_dir=str(tmp_path / "trained"), device="cpu", epochs=1)
    trained = tfnas.retrain(config, QUIET)
    assert tfnas.Architecture.load(trained.run_dir) == widest and trained.summary["inherited"]
    shutil.rmtree(run_dir)
    with pytest.raises(InputError, match=r"which has no checkpoints any more.*--inherit SEARCH_DIR --model_path"):
        prepare(config, DistributedContext(0, 1, "cpu"))
