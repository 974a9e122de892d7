"""A whole search, small: it meets its target, writes what it says, and refuses before it writes anything."""

import json

import numpy as np
import pytest
import yaml
from rich.console import Console
from small_search import middle_ms, small_config, write_inputs

import tfnas
from tfnas.core.choice import Choice
from tfnas.core.errors import Infeasible, InputError, RunFailed
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import open_table
from tfnas.nn.network import Network
from tfnas.searching.differentiable import differentiable_search
from tfnas.searching.differentiable.differentiable_search import search
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.searching.differentiable.search_setup import prepare
from tfnas.searching.differentiable.search_text import (
    collapsed,
    depth_entropy,
    health_warnings,
    near_chance,
    operation_entropy,
)
from tfnas.searching.differentiable.supernet_learner import build_learner, learned_choice, scale_widths
from tfnas.supernet.supernet import operations_and_depths
from tfnas.utils.text import clock

QUIET = Console(quiet=True)


@pytest.fixture
def finished(searched_small):
    return searched_small


def test_target_is_met_by_the_table(finished):
    config, result = finished
    table_ms = LatencyTable.load(config.lookup_path).architecture_ms(result.architecture)
    assert 0.995 * config.target_lat <= table_ms <= config.target_lat
    assert result.summary["table_ms"] == pytest.approx(table_ms, rel=1e-12)
    assert result.summary["error_percent"] == pytest.approx(100 * (table_ms / config.target_lat - 1))


def test_run_directory_holds_what_it_should(finished):
    config, result = finished
    run = result.run_dir
    assert json.loads((run / "summary.json").read_text()) == result.summary
    assert tfnas.Architecture.load(run) == result.architecture
    assert tfnas.Architecture.parse(result.summary["architecture"]) == result.architecture
    assert json.loads((run / "model.config").read_text()) == result.architecture.to_model_config()
    saved = yaml.safe_load((run / "config.yaml").read_text())
    assert saved["target_lat"] == config.target_lat
    assert saved["epochs"] == 3 and saved["w_mom"] == 0.9  # the space's defaults, written out
    assert len(list((run / "tensorboard").iterdir())) == 1
    log = (run / "log.txt").read_text()
    for words in ("epoch 3/3", "time      about", "reachable", "Search result", "chance 10.0 %"):
        assert words in log
    network = Network(result.architecture)
    assert result.summary["params"] == sum(parameter.numel() for parameter in network.parameters())


@pytest.mark.parametrize("there", [True, False])
def test_a_search_without_compiled_kernels_says_so(tmp_path, monkeypatch, there):
    monkeypatch.setattr("tfnas.supernet.cpu.CpuKernels.compiled", lambda: there)
    one_step = {"epochs": 1, "warmup_epochs": 0, "batch_size": 1079}
    result = search(small_config(tmp_path, "run", **one_step), QUIET)
    assert ("without compiled kernels" in (result.run_dir / "log.txt").read_text()) is not there


def test_tensorboard_has_scalars_and_histograms(finished):
    accumulators = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    events = accumulators.EventAccumulator(str(finished[1].run_dir / "tensorboard"))
    events.Reload()
    tags = events.Tags()
    names = {f"epoch/{name}" for name in ("weight_loss", "expected_ms", "derived_ms", "temperature", "path_accuracy")}
    assert names <= set(tags["scalars"])
    assert {"alphas/stage1.block1", "depth/stage2"} <= set(tags["histograms"])


def test_learning_raises_accuracy(finished):
    history = finished[1].summary["history"]
    assert history[-1]["path_accuracy"] > history[0]["path_accuracy"] > 0
    assert [entry["epoch"] for entry in history] == [1, 2, 3]
    assert "alpha_move" not in history[0] and history[1]["alpha_move"] > 0  # the first epoch is warm-up


@pytest.mark.parametrize("factor", [0.2, 5.0])
def test_infeasible_target_leaves_nothing_behind(tmp_path, factor):
    config = small_config(tmp_path, "run")
    with pytest.raises(Infeasible, match="stem and head alone take") as raised:
        search(SearchConfig(**{**vars(config), "target_lat": factor * config.target_lat}), QUIET)
    assert raised.value.exit_status == 3
    assert not (tmp_path / "run").exists()


def test_non_finite_loss_stops_before_the_update(tmp_path, monkeypatch):
    config = small_config(tmp_path, "run", epochs=1, warmup_epochs=0, batch_size=360)
    real, calls = differentiable_search.weight_loss, []

    def broken(*arguments):
        calls.append(None)
        loss, correct = real(*arguments)
        return (loss * float("nan"), correct) if len(calls) == 2 else (loss, correct)

    monkeypatch.setattr(differentiable_search, "weight_loss", broken)
    with pytest.raises(RunFailed, match=r"loss nan.*--w_lr.*intact.*--resume"):
        search(config, QUIET)
    monkeypatch.undo()
    search(SearchConfig(resume=config.run_dir, w_lr=0.01), QUIET)  # the way out that the message names
    assert (tmp_path / "run" / "summary.json").is_file()


def test_out_of_memory_names_the_batch_size(tmp_path, monkeypatch):
    def exhausted(*_):
        raise RuntimeError("DefaultCPUAllocator: can't allocate memory: you tried to allocate 1 bytes")

    monkeypatch.setattr(differentiable_search, "weight_loss", exhausted)
    with pytest.raises(RunFailed, match=r"batch size 96.*--batch_size 48"):
        search(small_config(tmp_path, "run"), QUIET)


def test_width_scaling_reaches_the_derived_operations_only(tmp_path):
    config = small_config(tmp_path, "run")
    setup = prepare(config)
    learner = build_learner(setup)
    before = np.array(learner.supernet.widths())
    choice = learned_choice(learner)
    derived_ms = scale_widths(learner, setup.table, 1.02 * setup.table.architecture_ms(choice.derived()))
    after = np.array(learner.supernet.widths())
    blocks = [setup.space.first_blocks[p.stage] + p.position for p in choice.derived().blocks]
    changed = {tuple(index) for index in np.argwhere(before != after).tolist()}
    assert changed <= {(number, choice.best_operations[number]) for number in blocks}
    assert derived_ms == pytest.approx(setup.table.architecture_ms(learned_choice(learner).derived()))
    for number, row in enumerate(learner.supernet.widths()):  # the latencies it trains against follow the widths
        for index, width in enumerate(row):
            place, operation = setup.space.blocks[number], setup.space.operations[index]
            expected = setup.table.block_ms(setup.space.block(place, operation, width), place.input_size)
            assert learner.table_ms[number, index] == expected


def test_every_operation_is_found():
    space = tfnas.space("imagenet")
    operations = [number % 8 for number in range(18)]
    widths = [space.initial_width(p, space.operations[o]) for p, o in zip(space.blocks, operations, strict=True)]
    depths = (2, 1, 4, 3, 2, 1)
    route, found = operations_and_depths(space, space.architecture(operations, depths, widths, 10))
    assert found == depths
    for number, place in enumerate(space.blocks):
        if place.position < depths[place.stage]:
            assert route[number] == operations[number]


def choice_with(log_alphas, space):
    depths = tuple(np.log(np.full(len(choices), 1 / len(choices))) for choices in space.depth_choices)
    widths = np.array([[space.initial_width(p, o) for o in space.operations] for p in space.blocks])
    return Choice(space, 10, log_alphas, depths, widths)


@pytest.mark.parametrize(
    ("top1", "classes", "expected"),
    [
        (54, 2, True),
        (56, 2, False),
        (18, 10, True),
        (20, 10, False),
        (0.15, 1000, True),
        (0.3, 1000, False),
        (100, 1, False),
    ],
)
def test_what_is_near_chance(top1, classes, expected):
    """Of two classes, no accuracy is twice chance."""
    assert near_chance(top1, 100 / classes) is expected


def test_health_watch():
    space = tfnas.space("digits")
    uniform = np.log(np.full((5, 8), 1 / 8))
    assert operation_entropy(choice_with(uniform, space)) == pytest.approx(1)
    assert depth_entropy(choice_with(uniform, space)) == pytest.approx(1)
    assert collapsed(choice_with(uniform, space)) is None
    sure = np.full((5, 8), 0.3 / 7)
    sure[:, 3] = 0.7
    decided = choice_with(np.log(sure), space)
    assert collapsed(decided) == "k5_e6"
    expected = -(0.7 * np.log(0.7) + 0.3 * np.log(0.3 / 7)) / np.log(8)
    assert operation_entropy(decided) == pytest.approx(expected)
    assert "collapsed" in health_warnings(decided, [])[0]
    still = [{"alpha_move": 1e-5}] * 3
    assert "has stopped changing" in health_warnings(choice_with(uniform, space), still)[0]
    assert health_warnings(choice_with(uniform, space), [{"alpha_move": 0.1}] * 3) == []


def test_table_for_a_part_of_a_shipped_space(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: digits\noperations: [k3_e3, k3_e6]\n")
    table, path = open_table(None, tfnas.space(file), ["--space", str(file)])
    assert path.endswith("digits_cpu.json") and table.batch_size == 32
    file.write_text("extends: digits\nstem_channels: 24\n")
    with pytest.raises(InputError, match=r"there is no bundled latency table for space mine.*latency build"):
        open_table(None, tfnas.space(file), ["--space", str(file)])


def test_wrong_devices_are_refused(tmp_path):
    settings = vars(small_config(tmp_path, "run"))
    for device in ("gpu", "cuda:99", "meta"):
        with pytest.raises(InputError, match="device"):
            prepare(SearchConfig(**{**settings, "device": device}))


def test_table_of_another_space_is_refused(tmp_path):
    write_inputs(tmp_path)
    with pytest.raises(InputError, match="px"):
        open_table(str(tmp_path / "table.json"), tfnas.space("digits"), ["--space", "digits"])


def test_middle_target_is_feasible(tmp_path):
    inputs = write_inputs(tmp_path)
    low, high = LatencyTable.load(inputs["lookup_path"]).range_ms(tfnas.space(inputs["space"]))
    assert low < middle_ms(inputs) < high


@pytest.mark.parametrize(
    ("seconds", "words"), [(42, "42 s"), (125, "2 min 5 s"), (11400, "3 h 10 min"), (2e5, "2.3 days")]
)
def test_clock(seconds, words):
    assert clock(seconds) == words
