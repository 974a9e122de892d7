"""Going on with a run: what it was begun with stays, however it is named."""

import dataclasses
import json

import pytest
import torch
import yaml
from small_run import begun_run, session_of, small_config, tiny_architecture, train_checkpoints, write_architecture

import tfnas
from tfnas.core.errors import InputError
from tfnas.data.preprocessing import Preprocessing
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.model_file import TrainedModel
from tfnas.training.train_config import TrainConfig
from tfnas.training.train_setup import prepare, resumed_run

ONE = DistributedContext(0, 1, torch.device("cpu"))
AMP = "train_eval_amp.py"


@pytest.fixture
def begun(tmp_path):
    """The directory of a run that was stopped before its first step."""
    return begun_run(prepare(small_config(tmp_path, "run"), ONE)).path


def settings_of(run_dir):
    return yaml.safe_load((run_dir / "config.yaml").read_text())


def write_settings(run_dir, settings):
    (run_dir / "config.yaml").write_text(yaml.safe_dump(settings))


@pytest.fixture
def saved(begun, tmp_path):
    """The directory of a run with a checkpoint."""
    train_checkpoints(begun).save(session_of(prepare(small_config(tmp_path, "run"), ONE), begun).state(), 0, 0)
    return begun


@pytest.mark.parametrize(
    ("name", "value"), [("mixup", 0.2), ("ema_decay", 0.9), ("random_erasing", 0.5), ("seed", 5), ("epochs", 3)]
)
def test_an_edited_setting_is_refused_and_a_cut_one_is_the_checkpoints(saved, name, value):
    whole, snapshot = settings_of(saved), TrainConfig(snapshot=str(saved))
    write_settings(saved, {**whole, name: value})
    with pytest.raises(InputError, match=rf"contains {name} {value} \({whole[name]} when it was saved\)"):
        resumed_run(snapshot, None, AMP)
    write_settings(saved, {key: own for key, own in whole.items() if key != name})
    config, *_ = resumed_run(snapshot, None, AMP)
    assert vars(config) == {**whole, "run_dir": None, "snapshot": str(saved)}


def test_an_edited_origin_of_the_weights_is_refused(saved, tmp_path):
    whole, snapshot = settings_of(saved), TrainConfig(snapshot=str(saved))
    write_settings(saved, {**whole, "inherit": str(tmp_path)})
    with pytest.raises(InputError, match=f"--inherit {tmp_path}: the run began with fresh weights"):
        resumed_run(snapshot, None, AMP)


@pytest.mark.parametrize("content", [None, "", "epochs: [2", "- 1"])
def test_a_lost_configuration_is_the_checkpoints(saved, content):
    whole = settings_of(saved)
    (saved / "config.yaml").unlink()
    if content is not None:
        (saved / "config.yaml").write_text(content)
    config, run_dir, _ = resumed_run(TrainConfig(snapshot=str(saved)), None, AMP)
    assert run_dir == saved and vars(config) == {**whole, "run_dir": None, "snapshot": str(saved)}


def model_file(path, seed):
    torch.manual_seed(seed)
    network = tfnas.Network(tiny_architecture())
    names = tuple("0123456789")
    TrainedModel(tiny_architecture(), network.state_dict(), names, Preprocessing.of("digits", 8), "digits").save(path)
    return str(path)


def test_teacher_and_names_of_classes_stay(tmp_path):
    def session(**changes):
        return session_of(prepare(small_config(tmp_path, "run", **changes), ONE), tmp_path)

    teachers = [{"teacher": model_file(tmp_path / f"{seed}.pt", seed)} for seed in (1, 2)]
    state, alone = ({**session(**said).state(), "epoch": 0, "step": 0} for said in (teachers[0], {}))
    (tmp_path / "names.txt").write_text("\n".join("abcdefghij"))
    for saved, changes, what in (
        (state, teachers[1], "teacher"),
        (state, {}, "teacher"),
        (alone, teachers[0], "teacher"),
        (alone, {"class_names": str(tmp_path / "names.txt")}, "class names"),
    ):
        with pytest.raises(InputError, match=f"its {what} was"):
            session(**changes).restore(saved)
    (tmp_path / "1.pt").rename(tmp_path / "moved.pt")
    session(teacher=str(tmp_path / "moved.pt")).restore(state)
    model_file(tmp_path / "moved.pt", 3)
    with pytest.raises(InputError, match="its teacher was"):
        session(teacher=str(tmp_path / "moved.pt")).restore(state)


def test_another_architecture_is_refused(begun, tmp_path):
    text = tiny_architecture().to_text().replace("conv_k3_s2_c4", "conv_k5_s2_c4")
    other = tmp_path / "other.json"
    other.write_text(json.dumps(tfnas.Architecture.parse(text).to_json()))
    for flag in ("config_path", "model_path"):
        with pytest.raises(InputError, match=f"--{flag} {other} contains a different architecture than the run trains"):
            resumed_run(TrainConfig(snapshot=str(begun), **{flag: str(other)}), None, AMP)
    (tmp_path / "copy").mkdir()
    same = write_architecture(tmp_path / "copy")
    for flag in ("config_path", "model_path"):
        config, run_dir, _ = resumed_run(TrainConfig(snapshot=str(begun), **{flag: same}), None, AMP)
        assert run_dir == begun and config.model_path is None
        assert config.config_path == str(tmp_path / "architecture.json")


def test_other_weights_to_begin_with_are_refused(begun, tmp_path):
    with pytest.raises(InputError, match="--inherit other: the run began with fresh weights"):
        resumed_run(TrainConfig(snapshot=str(begun), inherit="other"), None, AMP)
    saved = yaml.safe_load((begun / "config.yaml").read_text())
    (begun / "config.yaml").write_text(yaml.safe_dump({**saved, "inherit": str(tmp_path)}))
    with pytest.raises(InputError, match=f"--inherit other: the run began with those of {tmp_path}"):
        resumed_run(TrainConfig(snapshot=str(begun), inherit="other"), None, AMP)
    (begun / "config.yaml").write_text(yaml.safe_dump({**saved, "inherit": str(tmp_path / "gone")}))
    config, *_ = resumed_run(TrainConfig(snapshot=str(begun), inherit="moved"), None, AMP)
    assert config.inherit == "moved"


def test_the_float32_program_refuses_a_run_in_mixed_precision(begun):
    saved = yaml.safe_load((begun / "config.yaml").read_text())
    (begun / "config.yaml").write_text(yaml.safe_dump({**saved, "opt_level": "O1"}))
    snapshot = TrainConfig(snapshot=str(begun))
    with pytest.raises(InputError, match=r"computes in O1, train_eval\.py in float32 only"):
        resumed_run(snapshot, set(), "train_eval.py")
    assert resumed_run(snapshot, {"opt_level"}, "train_eval.py")[0].opt_level == "O0"
    assert resumed_run(snapshot, set(), AMP)[0].opt_level == "O1"


def test_a_checkpoint_of_an_earlier_version_goes_on(tmp_path):
    session = session_of(prepare(small_config(tmp_path, "run"), ONE), tmp_path)
    state = session.state()
    assert state["data"] == "digits: 1438 training images, 359 to judge by, 10 classes, 8 px"  # as it always was
    del state["teacher"], state["class names"]
    session.restore({**state, "epoch": 1, "step": 2})
    assert (session.progress.epoch, session.progress.step) == (1, 2)


def test_a_name_that_is_too_long(begun):
    with pytest.raises(InputError, match="there is no such run directory"):
        resumed_run(TrainConfig(snapshot="x" * 300), None, AMP)
    with pytest.raises(InputError, match="cannot be read"):
        resumed_run(dataclasses.replace(TrainConfig(snapshot=str(begun)), model_path="x" * 300), None, AMP)
