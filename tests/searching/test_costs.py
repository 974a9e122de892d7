"""Searching for a number of MACs or parameters, and in multiples of a width: small runs, whole."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
import yaml
from rich.console import Console
from small_search import small_config
from test_resume import as_an_earlier_version_saved_it

import tfnas
from tfnas.cli import train_search
from tfnas.core.errors import Infeasible, InputError
from tfnas.latency.counted_table import counted_table, write_counted_table
from tfnas.report.parse_report import print_report
from tfnas.runs.run_directory import search_checkpoints
from tfnas.searching.differentiable.differentiable_search import search
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.searching.differentiable.search_setup import prepare
from tfnas.searching.parsing import parse_model

QUIET = Console(quiet=True)


def counted_config(folder, cost, **changes):
    """A small run with a budget in the middle of the tiny space's range, and the budget."""
    config = small_config(folder, "run", epochs=2, batch_size=270, save_minutes=60.0)
    low, high = counted_table(tfnas.space(config.space), cost).range_ms(tfnas.space(config.space), 10)
    settings = {**vars(config), "cost": cost, "lookup_path": None, "target_lat": (low + high) / 2}
    return SearchConfig(**{**settings, **changes})


@pytest.fixture(scope="module", params=["macs", "params"])
def counted(request, tmp_path_factory):
    config = counted_config(tmp_path_factory.mktemp("counted"), request.param)
    return config, search(config, QUIET)


def test_the_budget_is_met(counted):
    config, result = counted
    with torch.device("meta"):
        network = tfnas.Network(result.architecture)
    reached = getattr(tfnas.count(network, result.architecture.image_size), config.cost)
    assert 0.995 * config.target_lat <= reached <= config.target_lat
    assert result.summary[f"table_{config.cost}"] == result.summary[config.cost] == reached


def test_the_summary_names_the_cost_and_nothing_is_called_milliseconds(counted):
    config, result = counted
    summary = json.loads((result.run_dir / "summary.json").read_text())
    assert summary["cost"] == config.cost and summary[f"target_{config.cost}"] == config.target_lat
    assert not [name for name in (*summary, *summary["history"][-1]) if name.endswith("_ms")]
    assert {f"expected_{config.cost}", f"derived_{config.cost}"} <= set(summary["history"][-1])
    saved = yaml.safe_load((result.run_dir / "config.yaml").read_text())
    assert saved["cost"] == config.cost and saved["lookup_path"] is None
    log = (result.run_dir / "log.txt").read_text()
    unit = {"macs": "MACs", "params": "parameters"}[config.cost]
    for words in (f"k {unit}; reachable ", f"k {unit}; the network has ", f"k {unit}  derived "):
        assert words in log
    spoken = [line for line in log.splitlines() if "time  " not in line]  # of the steps, which take milliseconds
    assert not any(" ms" in line for line in spoken)


def test_tensorboard_tags_name_the_cost(counted):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(counted[1].run_dir / "tensorboard"))
    events.Reload()
    tags = events.Tags()["scalars"]
    assert f"epoch/expected_{counted[0].cost}" in tags and not any(tag.endswith("_ms") for tag in tags)


def test_parsing_holds_it_against_its_budget(counted, tmp_path):
    config, result = counted
    for path in (result.run_dir, result.run_dir / "architecture.json"):
        parsed = parse_model(path)
        assert parsed.target_ms is None and parsed.source.target == config.target_lat
        assert parsed.reached == result.summary[config.cost]
        assert parsed.error_percent == pytest.approx(result.summary["error_percent"])
    write_counted_table(tfnas.space(config.space), "macs", tmp_path / "counted.json")
    parsed = parse_model(result.run_dir, lookup_path=tmp_path / "counted.json")
    assert parsed.table_ms is None and parsed.error_percent == pytest.approx(result.summary["error_percent"])
    console = Console(width=100, color_system=None)
    with console.capture() as capture:
        print_report(console, parsed, ())
    unit = {"macs": "MACs", "params": "parameters"}[config.cost]
    assert f"{unit} ({unit} {parsed.error_percent:+.2f} %)" in capture.get()
    assert " ms per batch" not in capture.get() and "counted and not measured" in capture.get()
    unfinished = parse_model(next((result.run_dir / "checkpoints").glob("*.pt")))
    assert unfinished.source.cost == config.cost and unfinished.source.target == config.target_lat


def test_a_resumed_run_needs_the_same_cost(counted, tmp_path):
    config, result = counted
    again = search(SearchConfig(resume=str(result.run_dir)), QUIET)
    assert again.summary["architecture"] == result.summary["architecture"]
    other = {"macs": "params", "params": "macs"}[config.cost]
    with pytest.raises(InputError, match=f"--cost {other} differs from the run's own {config.cost}"):
        search(SearchConfig(resume=str(result.run_dir), cost=other, target_lat=config.target_lat), QUIET)
    before = (result.run_dir / "config.yaml").read_text()
    (result.run_dir / "config.yaml").write_text(before.replace(f"cost: {config.cost}", f"cost: {other}"))
    with pytest.raises(InputError, match=rf"contains cost '{other}' \('{config.cost}' when it was saved\)"):
        search(SearchConfig(resume=str(result.run_dir)), QUIET)
    shutil.copytree(result.run_dir, tmp_path / "older")
    (result.run_dir / "config.yaml").write_text(before)
    as_an_earlier_version_saved_it(tmp_path / "older")
    with pytest.raises((InputError, Infeasible), match=r"its cost was|the target of"):
        search(SearchConfig(resume=str(tmp_path / "older")), QUIET)


def test_a_table_file_says_its_own_cost(tmp_path):
    config = counted_config(tmp_path, "macs")
    write_counted_table(tfnas.space(config.space), "macs", tmp_path / "counted.json")
    settings = {**vars(config), "lookup_path": str(tmp_path / "counted.json")}
    for cost in (None, "macs"):
        setup = prepare(SearchConfig(**{**settings, "cost": cost}))
        assert setup.table.cost.name == "macs" and setup.lookup_path == settings["lookup_path"]
    with pytest.raises(InputError, match=r"--cost is params, but .* contains MACs"):
        prepare(SearchConfig(**{**settings, "cost": "params"}))


def test_a_run_of_milliseconds_says_so(small_search):
    summary = json.loads((small_search / "summary.json").read_text())
    assert summary["cost"] == "ms" and {"target_ms", "table_ms"} <= set(summary)
    assert yaml.safe_load((small_search / "config.yaml").read_text())["cost"] == "ms"


# ---- the command line ---------------------------------------------------------------------------------------------


def status_and_words(capsys, *arguments):
    status = train_search.main(list(arguments))
    return status, capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "status", "words"),
    [
        (["--cost", "macs", "--target", "3e8", "--target_lat", "15"], 2, "--target and --target_lat are the same flag"),
        (["--cost", "macs"], 2, "--cost macs needs a --target, a number of multiply-accumulates, such as 300e6"),
        (["--cost", "params", "--target", "-1"], 2, "target_lat must be a positive number of parameters, got -1"),
        (["--cost", "flops"], 2, "--cost must be one of ms, macs, params, got 'flops'"),
        (["--cost", "macs", "--target", "1e6", "--lookup_path", "latency_pkl/digits_cpu.json"], 2, "contains ms"),
        (["--cost=params", "--target=100", "--device=cpu"], 3, "the target of 100 parameters is below"),
        (["--width_multiple", "65"], 2, "k3_e3 in stage1.block1 may be 32 to 64 wide, and no multiple lies there"),
        (["--width_multiple", "0"], 2, "width_multiple must be 1 or more, got 0"),
    ],
)
def test_refusals(capsys, monkeypatch, request, arguments, status, words):
    monkeypatch.chdir(request.config.rootpath)
    found, message = status_and_words(capsys, *arguments)
    assert found == status and words in message


def test_target_is_target_lat(monkeypatch):
    asked = []
    monkeypatch.setattr(
        "tfnas.searching.differentiable.differentiable_search.search",
        lambda config, given: asked.append((config, given)),
    )
    assert train_search.main(["--cost", "macs", "--target", "300e6"]) == 0
    assert train_search.main(["--target=12.5"]) == 0
    assert [config for config, _ in asked] == [SearchConfig(cost="macs", target_lat=3e8), SearchConfig(target_lat=12.5)]
    assert asked[1][1] == {"target_lat"}


# ---- multiples ----------------------------------------------------------------------------------------------------


def test_every_width_of_a_search_is_a_multiple(tmp_path):
    config = counted_config(tmp_path, "macs", width_multiple=2, candidates=2)
    result = search(config, QUIET)
    assert 0.995 * config.target_lat <= result.summary["macs"] <= config.target_lat
    assert all(place.block.mid_channels % 2 == 0 and place.block.mid_step == 2 for place in result.architecture.blocks)
    for saved in sorted((tmp_path / "run" / "checkpoints").glob("*.pt")):
        state, _, _ = search_checkpoints(tmp_path / "run").load_latest()
        assert all(len(index) % 2 == 0 for row in state["active"] for index in row), saved
    assert tfnas.Architecture.load(result.run_dir) == result.architecture
    again = search(SearchConfig(resume=str(result.run_dir)), QUIET)
    assert again.architecture == result.architecture
    with pytest.raises(InputError, match="--width_multiple 3 differs from the run's own 2"):
        search(SearchConfig(resume=str(result.run_dir), width_multiple=3), QUIET)
