"""A training run from start to end: what it writes, what it refuses, and that a resumed run is the same run."""

import json
import shutil
import signal
from itertools import pairwise

import pytest
import torch
from rich.console import Console
from small_run import (
    final_state,
    random_points,
    small_config,
    summary_of,
    tiny_architecture,
    train_checkpoints,
    write_architecture,
)
from test_processes import assert_same

import tfnas
from tfnas.core.errors import InputError, Interrupted, RunFailed
from tfnas.data.image_sets import Draw
from tfnas.runs import session
from tfnas.runs.named_model import run_images
from tfnas.training.retraining import NetworkTraining, retrain
from tfnas.training.train_config import TrainConfig

QUIET = Console(quiet=True)


@pytest.fixture(scope="module")
def uninterrupted(tmp_path_factory):
    folder = tmp_path_factory.mktemp("whole")
    retrain(small_config(folder, "run", ema_decay=0.9), QUIET)
    return folder / "run"


def test_it_learns_and_leaves_everything_behind(uninterrupted):
    summary = summary_of(uninterrupted)
    assert summary["history"][-1]["train_loss"] < summary["history"][0]["train_loss"] < 2.4
    assert summary["architecture"] == tiny_architecture().to_text()
    assert summary["num_classes"] == 10 and summary["data"] == "digits" and summary["averaged_weights"]
    counts = tfnas.count(tfnas.Network(tiny_architecture()), 8)
    assert (summary["params"], summary["macs"]) == (counts.params, counts.macs)
    for name in ("config.yaml", "log.txt", "model.config", "architecture.json", "tensorboard"):
        assert (uninterrupted / name).exists()


def test_the_model_file_gives_the_judged_network(uninterrupted):
    network, data = tfnas.load(uninterrupted), run_images(uninterrupted)
    assert data.validation is not None and not network.training
    pairs = data.validation.__getitems__([Draw(0, index) for index in range(len(data.validation))])
    with torch.no_grad():
        logits = network(torch.stack([image for image, _ in pairs]))
    labels = torch.tensor([label for _, label in pairs])
    summary = summary_of(uninterrupted)
    assert summary["top1"] == pytest.approx(100 * float((logits.argmax(1) == labels).float().mean()))
    assert summary["loss"] == pytest.approx(float(torch.nn.functional.cross_entropy(logits, labels)), rel=1e-5)


def test_training_never_sees_the_test_part(uninterrupted):
    from sklearn.datasets import load_digits

    data = run_images(uninterrupted)
    assert len(data.train) + len(data.validation) == len(load_digits().target)
    train = {image.numpy().tobytes() for source in data.train.sources for image in source.images}
    judged = {image.numpy().tobytes() for source in data.validation.sources for image in source.images}
    assert not train & judged


class _InterruptAt:
    """Stands in for the signal: asks for an interruption once it has been looked at so often."""

    def __init__(self, looks):
        self.left = looks

    @property
    def signal(self):
        self.left -= 1
        return signal.SIGTERM if self.left < 0 else None

    def raise_if_asked(self, how):
        if self.left < 0:
            raise Interrupted(how, 143)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        return None


@pytest.mark.parametrize("points", [sorted({14, *random_points(1, 2, 25)})])  # 14 is the last step of an epoch
def test_interrupted_after_random_steps_and_resumed(tmp_path, uninterrupted, monkeypatch, points):
    config = small_config(tmp_path, "run", ema_decay=0.9)
    for number, looks in enumerate(later - before - 1 for before, later in pairwise([0, *points])):
        with monkeypatch.context() as patched:
            patched.setattr(session, "watch_interruption", lambda _, at=looks: _InterruptAt(at))
            with pytest.raises(Interrupted, match="--snapshot"):
                retrain(config, QUIET)
        config = TrainConfig(snapshot=str(tmp_path / "run"), workers=number % 2)
    retrain(config, QUIET)
    for ours, theirs in zip(final_state(tmp_path / "run"), final_state(uninterrupted), strict=True):
        assert_same(ours, theirs)


def test_a_truncated_checkpoint_costs_a_step(tmp_path, uninterrupted):
    shutil.copytree(uninterrupted, tmp_path / "run")
    newest = train_checkpoints(tmp_path / "run").saved()[0]
    newest.write_bytes(newest.read_bytes()[:-100])
    (tmp_path / "run" / "model.pt").unlink()
    retrain(TrainConfig(snapshot=str(tmp_path / "run")), QUIET)
    for ours, theirs in zip(final_state(tmp_path / "run"), final_state(uninterrupted), strict=True):
        assert_same(ours, theirs)


def test_the_callers_random_numbers_are_left_alone(tmp_path):
    torch.manual_seed(5)
    expected = torch.rand(3)
    torch.manual_seed(5)
    retrain(small_config(tmp_path, "run", epochs=1, batch_size=720), QUIET)
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize(
    "options",
    [
        {"opt_level": "O1"},
        {"opt_level": "O2", "channels_last": True},
        {"opt_level": "O3", "loss_scale": "128"},
        {"opt_level": "O3", "keep_batchnorm_fp32": True, "mixup": 0.2},
        {"mixup": 0.2, "cutmix": 1.0},
        {"auto_augment": "rand", "random_erasing": 0.5},
        {"auto_augment": "trivial"},
        {"accumulate": 3},
    ],
)
def test_options_train(tmp_path, monkeypatch, options):
    rounds, real = [], NetworkTraining.conclude
    allowed = torch.backends.cudnn.allow_tf32

    def concluded(*what):
        rounds.append(torch.backends.cudnn.allow_tf32)
        return real(*what)

    monkeypatch.setattr(NetworkTraining, "conclude", concluded)
    result = retrain(small_config(tmp_path, "run", epochs=1, batch_size=288, **options), QUIET)
    assert result.summary["train_loss"] < 2.45
    assert allowed and rounds == [options.get("opt_level", "O0") != "O0"]


def test_accumulation_without_batch_norm_changes_nothing_but_rounding(tmp_path, float64, monkeypatch):
    monkeypatch.setattr(torch.nn.BatchNorm2d, "forward", lambda self, features: features * self.weight[:, None, None])
    plain = {"dropout_rate": 0.0, "drop_connect_rate": 0.0, "epochs": 1, "batch_size": 360}
    losses = []
    for pieces in (1, 4):
        result = retrain(small_config(tmp_path, f"run{pieces}", accumulate=pieces, **plain), QUIET)
        losses.append(result.summary["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=1e-9)


def test_a_loss_that_is_not_finite_ends_the_run_before_the_update(tmp_path, monkeypatch):
    config = small_config(tmp_path, "run")
    real, steps = NetworkTraining.step, []

    def poisoned(training, batch):
        steps.append(None)
        images, labels = batch
        return real(training, (images * float("nan") if len(steps) == 4 else images, labels))

    monkeypatch.setattr(NetworkTraining, "step", poisoned)
    with pytest.raises(RunFailed, match=r"loss is nan.*--lr.*--snapshot"):
        retrain(config, QUIET)
    state, _, _ = train_checkpoints(tmp_path / "run").load_latest()
    assert state["step"] == 3 and all(value.isfinite().all() for value in state["network"].values())


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"config_path": None}, "which network"),
        ({"model_path": "x"}, "not both"),
        ({"batch_size": 5000}, "more than the 1438 training images"),
        ({"batch_size": 95, "accumulate": 2}, "cannot be divided into --accumulate 2"),
        ({"num_classes": 7}, "10 classes here, but --num_classes is 7"),
        ({"threads": 1025}, "threads must be at most 1024, got 1025"),
        ({"amp_backend": "apex"}, "needs --opt_level"),
        ({"amp_backend": "apex", "opt_level": "O1"}, "no working apex.amp"),
        ({"teacher": "resnet18"}, "needs --teacher_weights"),
        ({"teacher": "no_such"}, "torchvision has no classification model"),
        ({"teacher_weights": "x"}, "without --teacher"),
        ({"train_list": "x.txt"}, "--data digits reads no --train_list"),
        ({"ema_decay": 1.5}, "ema_decay must lie between"),
        ({"ema_decay": 1.0}, "ema_decay must be below 1"),
        ({"rank_timeout": float("inf")}, "rank_timeout must be at most"),
        ({"batch_size": 16, "accumulate": 16, "image_size": 2}, "batch norm cannot compute statistics"),
        ({"config_path": "x" * 300}, "cannot be read"),
        ({"inherit": "x" * 300}, "is no run directory of a search"),
        ({"teacher": "x" * 300}, "there is no such file"),
        ({"data": "folder", "train_root": "x" * 300}, "there is no such folder"),
        ({"config_path": "/nowhere.json"}, "cannot be read"),
        ({"inherit": "/nowhere"}, "is no run directory of a search"),
    ],
)
def test_wrong_input(tmp_path, changes, message):
    with pytest.raises(InputError, match=message):
        retrain(small_config(tmp_path, "run", **changes), QUIET)


def test_world_size_must_divide_the_batch(tmp_path):
    from tfnas.training.train_setup import _check_batch

    with pytest.raises(InputError, match="cannot be divided by 5 of them: give a multiple of 5"):
        _check_batch(96, 1, 1000, 5)


def test_classes_that_do_not_match(tmp_path):
    path = tmp_path / "seven.json"
    path.write_text(json.dumps(tiny_architecture(7).to_json()))
    with pytest.raises(
        InputError, match=r"architecture has 7 classes, the data \(digits\) has 10: use --num_classes 10"
    ):
        retrain(small_config(tmp_path, "run", config_path=str(path)), QUIET)
    result = retrain(small_config(tmp_path, "run", config_path=str(path), num_classes=10, epochs=1), QUIET)
    assert result.summary["num_classes"] == 10


def test_settings_of_a_resumed_run_stay(uninterrupted):
    with pytest.raises(InputError, match=r"--epochs 9 differs from the run's own 2"):
        retrain(TrainConfig(snapshot=str(uninterrupted), epochs=9), QUIET)


def test_an_occupied_directory_is_refused(tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "something").write_text("")
    with pytest.raises(InputError, match=r"not empty.*--snapshot"):
        retrain(small_config(tmp_path, "run"), QUIET)


def test_other_images_are_refused(tmp_path, uninterrupted, monkeypatch):
    monkeypatch.setattr("tfnas.data.retrain_data.RetrainData.fingerprint", "other")
    with pytest.raises(InputError, match="its images was"):
        retrain(TrainConfig(snapshot=str(uninterrupted)), QUIET)


def test_a_lone_model_config_for_other_data(tmp_path):
    architecture = tfnas.Architecture.load(write_architecture(tmp_path))
    document = {**architecture.to_model_config()}
    document["classifier"] = {**document["classifier"], "out_features": 1000}
    (tmp_path / "model.config").write_text(json.dumps(document))
    config = small_config(tmp_path, "run", config_path=str(tmp_path / "model.config"), image_size=8, epochs=1)
    assert retrain(config, QUIET).summary["num_classes"] == 10
