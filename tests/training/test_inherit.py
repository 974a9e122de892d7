"""A network that inherits starts as the path of the supernet that it was derived from."""

import json

import pytest
import torch
from rich.console import Console
from small_search import small_config as small_search_config

import tfnas
from tfnas.checkpoint import load_checkpoint
from tfnas.data import Draw
from tfnas.errors import InputError
from tfnas.searching.checkpoint import search_checkpoints
from tfnas.supernet import Path, supernet_from_state
from tfnas.supernet.extract import route_of
from tfnas.supernet.routes import one_hot_depths
from tfnas.training import TrainConfig
from tfnas.training.loop import retrain
from tfnas.training.processes import Processes
from tfnas.training.session import KIND, train_checkpoints
from tfnas.training.setup import prepare

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def search_run(tmp_path_factory):
    folder = tmp_path_factory.mktemp("search")
    return tfnas.search(small_search_config(folder, "run"), QUIET).run_dir


def test_a_run_directory_brings_architecture_data_and_target(search_run):
    setup = prepare(TrainConfig(model_path=str(search_run), device="cpu"), Processes(0, 1, torch.device("cpu")))
    assert setup.architecture == tfnas.Architecture.load(search_run)
    assert (setup.data.name, setup.data.preprocessing.image_size, setup.data.num_classes) == ("digits", 8, 10)
    assert len(setup.data.train) + len(setup.data.validation) == 1797
    summary = json.loads((search_run / "summary.json").read_text())
    assert setup.recorded["target_ms"] == summary["target_ms"]


def test_the_first_checkpoint_holds_the_supernets_path(search_run, tmp_path):
    config = TrainConfig(
        inherit=str(search_run), run_dir=str(tmp_path / "run"), device="cpu", epochs=1, lr=1e-9, weight_decay=0.0
    )
    summary = retrain(config, QUIET).summary
    assert summary["inherited"]["top1"] is not None
    architecture = tfnas.Architecture.load(search_run)
    state = load_checkpoint(train_checkpoints(tmp_path / "run").saved()[-1], KIND)
    network = tfnas.Network(architecture)
    network.load_state_dict(state["network"])
    supernet = supernet_from_state(search_checkpoints(search_run).load_latest()[0])
    operations, depths = route_of(supernet, architecture)
    supernet.set_widths(operations, architecture)
    data = prepare(config, Processes(0, 1, torch.device("cpu"))).data
    images = torch.stack([image for image, _ in data.validation.__getitems__([Draw(0, i) for i in range(64)])])
    with torch.no_grad():
        ours = network.train()(images)
        theirs = supernet(images, Path(operations), one_hot_depths(supernet.space.depth_choices, depths))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_training_run_is_no_search(search_run, tmp_path):
    trained = retrain(TrainConfig(model_path=str(search_run), run_dir=str(tmp_path / "t"), epochs=1), QUIET).run_dir
    with pytest.raises(InputError, match="is no run directory of a search"):
        retrain(TrainConfig(inherit=str(trained), run_dir=str(tmp_path / "run")), QUIET)
    setup = prepare(TrainConfig(model_path=str(trained), device="cpu"), Processes(0, 1, torch.device("cpu")))
    assert setup.data.name == "digits" and setup.architecture == tfnas.Architecture.load(search_run)
    with pytest.raises(InputError, match="a run of another command"):
        retrain(TrainConfig(snapshot=str(search_run)), QUIET)
    (trained / "model.pt").unlink()
    with pytest.raises(InputError, match=r"its training was interrupted.*--snapshot"):
        tfnas.load(trained)
    with pytest.raises(InputError, match=r"no finished training run.*--model_path"):
        tfnas.load(search_run)


def test_classes_of_another_search_are_refused(search_run, tmp_path):
    state, _, _ = search_checkpoints(search_run).load_latest()
    copy = tmp_path / "search"
    (copy / "checkpoints").mkdir(parents=True)
    for name in ("config.yaml", "architecture.json", "summary.json"):
        (copy / name).write_bytes((search_run / name).read_bytes())
    search_checkpoints(copy).save({**state, "num_classes": 7}, state["epoch"], state["step"])
    with pytest.raises(InputError, match="the search had 7 classes, the data has 10"):
        retrain(TrainConfig(inherit=str(copy), run_dir=str(tmp_path / "run"), device="cpu"), QUIET)


def test_a_search_of_another_space_is_refused(search_run, tmp_path):
    other = tmp_path / "other.json"
    text = tfnas.Architecture.load(search_run).to_text().replace("conv_k3_s2_c4", "conv_k5_s2_c4")
    other.write_text(json.dumps(tfnas.Architecture.parse(text).to_json()))
    config = TrainConfig(config_path=str(other), inherit=str(search_run), run_dir=str(tmp_path / "run"), device="cpu")
    with pytest.raises(InputError, match="not of that search's space"):
        retrain(config, QUIET)
