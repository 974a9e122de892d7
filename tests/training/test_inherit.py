"""A network that inherits starts as the path of the supernet that it was derived from."""

import json
import shutil

import pytest
import torch
from PIL import Image
from rich.console import Console
from small_run import begun_run, small_settings, start_processes, train_checkpoints

import tfnas
from tfnas.core.errors import InputError
from tfnas.data.image_sets import Draw
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import load_checkpoint, search_checkpoints
from tfnas.supernet.extract import estimate_batch_norm, supernet_from_state
from tfnas.supernet.supernet import Path, one_hot_depths, operations_and_depths
from tfnas.training import retraining
from tfnas.training.retraining import retrain
from tfnas.training.train_config import KIND, TrainConfig
from tfnas.training.train_setup import prepare

QUIET = Console(quiet=True)


@pytest.fixture
def search_run(small_search):
    return small_search


def test_a_run_directory_brings_architecture_data_and_target(search_run):
    setup = prepare(
        TrainConfig(model_path=str(search_run), device="cpu"), DistributedContext(0, 1, torch.device("cpu"))
    )
    assert setup.architecture == tfnas.Architecture.load(search_run)
    assert (setup.data.name, setup.data.preprocessing.image_size, setup.data.num_classes) == ("digits", 8, 10)
    assert len(setup.data.train) + len(setup.data.validation) == 1797
    summary = json.loads((search_run / "summary.json").read_text())
    assert setup.recorded["target_ms"] == summary["target_ms"]


def test_the_first_checkpoint_holds_the_supernets_path(search_run, tmp_path, monkeypatch):
    together, real = [], DistributedContext.barrier

    def barrier(processes, work):
        """Meanwhile nothing may be exchanged, as joint statistics would be."""
        together.append("begin")
        result = real(processes, work)
        together.append("end")
        return result

    def estimated(*what):
        together.append("statistics")
        estimate_batch_norm(*what)

    monkeypatch.setattr(DistributedContext, "barrier", barrier)
    monkeypatch.setattr(retraining, "estimate_batch_norm", estimated)
    config = TrainConfig(
        inherit=str(search_run), run_dir=str(tmp_path / "run"), device="cpu", epochs=1, lr=1e-9, weight_decay=0.0
    )
    summary = retrain(config, QUIET).summary
    assert summary["inherited"]["top1"] is not None
    place = together.index("statistics")
    assert together[:place].count("begin") == together[:place].count("end") > 0
    architecture = tfnas.Architecture.load(search_run)
    state = load_checkpoint(train_checkpoints(tmp_path / "run").saved()[-1], KIND)
    network = tfnas.Network(architecture)
    network.load_state_dict(state["network"])
    supernet = supernet_from_state(search_checkpoints(search_run).load_latest()[0])
    operations, depths = operations_and_depths(supernet.space, architecture)
    supernet.set_widths(operations, architecture)
    data = prepare(config, DistributedContext(0, 1, torch.device("cpu"))).data
    images = torch.stack([image for image, _ in data.validation.__getitems__([Draw(0, i) for i in range(64)])])
    with torch.no_grad():
        ours = network.train()(images)
        theirs = supernet(images, Path(operations), one_hot_depths(supernet.space.depth_choices, depths))
    torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-4)


def test_a_training_run_is_no_search(search_run, tmp_path):
    trained = retrain(TrainConfig(model_path=str(search_run), run_dir=str(tmp_path / "t"), epochs=1), QUIET).run_dir
    with pytest.raises(InputError, match="is no run directory of a search"):
        retrain(TrainConfig(inherit=str(trained), run_dir=str(tmp_path / "run")), QUIET)
    setup = prepare(TrainConfig(model_path=str(trained), device="cpu"), DistributedContext(0, 1, torch.device("cpu")))
    assert setup.data.name == "digits" and setup.architecture == tfnas.Architecture.load(search_run)
    with pytest.raises(InputError, match="a run of another command"):
        retrain(TrainConfig(snapshot=str(search_run)), QUIET)
    (trained / "model.pt").unlink()
    with pytest.raises(InputError, match=r"its training was interrupted.*--snapshot"):
        tfnas.load(trained)
    with pytest.raises(InputError, match=r"not a finished training run.*--model_path"):
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


def test_an_unfinished_search_is_told(search_run, tmp_path):
    copy = tmp_path / "search"
    shutil.copytree(search_run, copy, ignore=shutil.ignore_patterns("summary.json", "architecture.json", "tensorboard"))
    setup = prepare(TrainConfig(model_path=str(copy), device="cpu"), DistributedContext(0, 1, torch.device("cpu")))
    (note,) = setup.notes
    assert "this is not the end of a search" in note and "not yet fitted to the target" in note
    assert setup.recorded["target_ms"] is None
    finished = prepare(
        TrainConfig(model_path=str(search_run), device="cpu"), DistributedContext(0, 1, torch.device("cpu"))
    )
    assert finished.notes == () and finished.recorded["target_ms"] > 0


@pytest.mark.slow
def test_a_damaged_image_is_named_where_statistics_are_joint(search_run, tmp_path):
    """One process meets it while the other waits for its sums."""
    for label in range(10):
        (tmp_path / "photos" / f"class{label}").mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (8, 8), (25 * label, 20 * index, 9)).save(
                tmp_path / "photos" / f"class{label}" / f"{index}.png"
            )
    data = {"data": "folder", "train_root": str(tmp_path / "photos"), "num_classes": 10, "workers": 0}
    settings = small_settings(tmp_path, "run", inherit=str(search_run), sync_bn=True, batch_size=16, **data)
    settings["config_path"] = str(search_run / "architecture.json")
    opened = prepare(TrainConfig(**settings), DistributedContext(0, 1, torch.device("cpu"))).data
    damaged = opened.train.sources[0].paths[3]
    (tmp_path / "photos" / damaged).write_bytes(b"junk")
    processes = start_processes(tmp_path, settings)
    assert [process.end(120) for process in processes] == [1, 1]
    assert any(damaged in process.said() for process in processes)


@pytest.mark.slow
def test_a_locked_run_is_told_once(tmp_path):
    settings = small_settings(tmp_path, "run")
    setup = prepare(TrainConfig(**settings), DistributedContext(0, 1, torch.device("cpu")))
    with begun_run(setup).locked():
        processes = start_processes(tmp_path, {"snapshot": settings["run_dir"]})
        assert [process.end(120) for process in processes] == [1, 1]
    assert "another process is using" in processes[0].said()
    assert "ReportedElsewhere" in processes[1].said() and "has exited" not in processes[1].said()
