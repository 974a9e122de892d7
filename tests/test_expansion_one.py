"""Spaces with operations that have no expansion, from the search to the file to ship."""

from __future__ import annotations

import re

import onnxruntime
import pytest
import torch
from rich.console import Console
from small_search import small_config, write_inputs
from tiny import SOME_EXPAND

import tfnas
from tfnas.bench.timing import RoundLimits
from tfnas.core.space import Operation
from tfnas.export import export_checks
from tfnas.latency.cost_table import LatencyTable
from tfnas.runs.model_file import TrainedModel
from tfnas.runs.run_directory import search_checkpoints
from tfnas.searching.differentiable.differentiable_search import search
from tfnas.searching.refitting.refit_loop import widths_range_ms
from tfnas.supernet.extract import extract_network, supernet_from_state
from tfnas.training.retraining import retrain
from tfnas.training.train_config import TrainConfig

QUIET = Console(quiet=True)
SHORT = {"epochs": 2, "batch_size": 270, "save_minutes": 60.0}  # four steps of warm-up, and four
NONE_EXPANDS = tuple(map(Operation.parse, ("k3_e1", "k5_e1_se")))


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """Configuration and result of a search with every procedure of the small spaces."""
    folder = tmp_path_factory.mktemp("some expand")
    config = small_config(folder, "run", write_inputs(folder, operations=SOME_EXPAND), **SHORT)
    return config, search(config, QUIET)


@pytest.fixture(scope="module")
def searched_without_widths(tmp_path_factory):
    """Of a space that has nothing else: a target that one of its architectures takes, on the paper's procedure."""
    folder = tmp_path_factory.mktemp("none expands")
    inputs = write_inputs(folder, operations=NONE_EXPANDS)
    space, table = tfnas.space(inputs["space"]), LatencyTable.load(inputs["lookup_path"])
    widths = [place.in_channels for place in space.blocks]
    target_ms = table.architecture_ms(space.architecture([1, 0, 1], [1, 2], widths, 10)) * (1 + 1e-9)
    config = small_config(folder, "run", inputs, target_lat=target_ms, recipe="paper", warmup_epochs=1, **SHORT)
    return config, search(config, QUIET)


@pytest.mark.parametrize("name", ["searched", "searched_without_widths"])
def test_the_target_is_met_and_widths_without_an_expansion_stay(name, request):
    config, result = request.getfixturevalue(name)
    table = LatencyTable.load(config.lookup_path)
    assert 0.995 * config.target_lat <= table.architecture_ms(result.architecture) <= config.target_lat
    assert tfnas.Architecture.load(result.run_dir) == result.architecture
    state, _, _ = search_checkpoints(result.run_dir).load_latest()
    supernet = supernet_from_state(state)
    for number, index, operation in supernet.operations():
        if not supernet.space.operations[index].expands:
            assert operation.active.tolist() == list(range(supernet.space.blocks[number].in_channels))
    extract_network(supernet, result.architecture)  # is one of the space's
    log = (result.run_dir / "log.txt").read_text()
    for place in result.architecture.blocks:
        low, high = place.block.mid_range
        name = supernet.space.blocks[supernet.space.first_blocks[place.stage] + place.position].name
        width_range = f"{low}-{high}" if place.block.expands else "fixed"
        assert re.search(rf"{name} .* {place.block.mid_channels} . {width_range} ", log)


def test_a_network_of_nothing_else_trains_on_what_it_inherits_and_is_exported(
    searched_without_widths, tmp_path, monkeypatch
):
    _, result = searched_without_widths
    assert not any(place.block.expands for place in result.architecture.blocks)
    low, high = widths_range_ms(result.architecture, LatencyTable.load(searched_without_widths[0].lookup_path))
    assert low == high  # what a closed loop could change
    config = TrainConfig(inherit=str(result.run_dir), run_dir=str(tmp_path / "run"), device="cpu", epochs=1, seed=3)
    trained = retrain(config, QUIET)
    assert trained.summary["inherited"]["top1"] is not None
    monkeypatch.setattr(export_checks, "_TIMED", RoundLimits(seconds=0.0, fewest=10, most=10))
    model = TrainedModel.load(tmp_path / "run")
    generator = torch.Generator().manual_seed(5)
    for name, values in model.state.items():
        if name.endswith(("bn.weight", "running_var")):  # after one epoch they are near 1
            values.mul_(0.5 + torch.rand(values.shape, generator=generator))
    network = model.network()
    model.save(tmp_path / "run" / "model.pt")
    tfnas.export_model(tfnas.ExportConfig(model_path=str(tmp_path / "run")))
    session = onnxruntime.InferenceSession(str(tmp_path / "run" / "model.onnx"), providers=["CPUExecutionProvider"])
    images = torch.rand(5, 3, 8, 8, generator=torch.Generator().manual_seed(1))
    (found,) = session.run(["logits"], {"images": images.numpy()})
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocessing.mean, model.preprocessing.std)
    )
    with torch.no_grad():
        expected = network((images - mean) / std)
    assert expected.std(0).min() > 1e-3  # logits that depend on the image
    torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-4, atol=1e-4 * float(expected.abs().max()))
