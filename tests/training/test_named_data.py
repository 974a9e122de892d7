"""The data of a run that is named: its images to judge by stay those that the search has kept apart."""

import dataclasses
import json
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image
from rich.console import Console
from small_run import built, small_config, tiny_architecture

from tfnas.core.errors import InputError
from tfnas.data.data_config import DataConfig
from tfnas.data.opened_data import open_data
from tfnas.data.retrain_data import open_retrain_data
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import RunDirectory, search_checkpoints
from tfnas.runs.run_reporter import RunReporter
from tfnas.runs.run_settings import SETTINGS
from tfnas.training.retraining import retrain
from tfnas.training.train_config import TrainConfig
from tfnas.training.train_data import with_named_data
from tfnas.training.train_setup import prepare

FOUND = tiny_architecture(3)
ONE = DistributedContext(0, 1, torch.device("cpu"))


@pytest.fixture
def photos(tmp_path):
    """Three classes with ten pictures each, lists of a third of them each, and the same pictures in another place."""
    lines = []
    for label, name in enumerate(("ant", "bee", "cow")):
        for root in ("photos", "moved"):
            (tmp_path / root / name).mkdir(parents=True)
        for index in range(10):
            for root in ("photos", "moved"):
                Image.new("RGB", (8, 8), (70 * label, 20 * index, 9)).save(tmp_path / root / name / f"{index}.png")
            lines.append(f"{name}/{index}.png {label}")
    for number in range(3):
        (tmp_path / f"list{number}.txt").write_text("\n".join(lines[number::3]) + "\n")
    return tmp_path


def searched(folder, **settings):
    """What a search leaves of its settings."""
    run = folder / "search"
    (run / "checkpoints").mkdir(parents=True)
    (run / "config.yaml").write_text(yaml.safe_dump({"img_root": str(folder / "photos"), **settings}))
    return str(run)


def on_lists(folder):
    lists = {"train_list": str(folder / "list0.txt"), "val_list": str(folder / "list1.txt")}
    return searched(folder, data="list", num_classes=3, **lists)


def names(images):
    return {path for source in images.sources for path in source.paths}


@pytest.mark.parametrize("flag", ["model_path", "inherit"])
@pytest.mark.parametrize(
    ("kept", "said", "given", "judged"),
    [
        (0.1, {}, None, 3),
        (0.1, {"train_root": "photos"}, None, 3),
        (0.1, {"train_root": "moved", "data": "folder"}, {"train_root", "data"}, 3),
        (0.1, {"train_root": "moved", "test_ratio": 0.2}, {"train_root"}, 3),  # a default, which nobody has said
        (0.3, {"test_ratio": 0.2}, {"test_ratio"}, 6),  # the default, which somebody has said
        (0.2, {"test_ratio": 0.1}, None, 3),
    ],
)
def test_nothing_is_judged_by_that_the_search_has_seen(photos, flag, kept, said, given, judged):
    run = searched(photos, data="folder", test_ratio=kept)
    said = {name: str(photos / value) if name == "train_root" else value for name, value in said.items()}
    config = with_named_data(TrainConfig(**{flag: run}, **said), FOUND, given)
    data = open_retrain_data(config, image_size=8, seed=0)
    search = open_data(
        DataConfig(data="folder", img_root=str(photos / "photos"), test_ratio=kept), image_size=8, seed=0
    )
    assert len(data.validation) == judged
    assert not names(data.validation) & (names(search.weights) | names(search.architecture))


def test_settings_of_a_search_are_those_it_was_saved_with(photos):
    run = Path(searched(photos, data="folder"))  # the share to judge by is cut off
    assert with_named_data(TrainConfig(inherit=str(run)), FOUND, None).test_ratio == 0.2  # the default: nobody knows
    written = yaml.safe_load((run / "config.yaml").read_text())
    search_checkpoints(run).save({SETTINGS: {**written, "test_ratio": 0.1}}, 0, 0)
    assert with_named_data(TrainConfig(inherit=str(run)), FOUND, None).test_ratio == 0.1
    (run / "config.yaml").write_text(yaml.safe_dump({**written, "test_ratio": 0.3}))
    with pytest.raises(InputError, match=r"contains test_ratio 0\.3 \(0\.1 when it was saved\)"):
        with_named_data(TrainConfig(inherit=str(run)), FOUND, None)


@pytest.mark.parametrize("said", [{}, {"train_root": "photos"}, {"data": "folder", "train_root": "moved"}])
def test_a_larger_part_to_judge_by_is_refused(photos, said):
    run = searched(photos, data="folder", test_ratio=0.1)
    said = {name: str(photos / value) if name == "train_root" else value for name, value in said.items()}
    for ratio, given in ((0.3, None), (0.2, {*said, "test_ratio"})):
        with pytest.raises(
            InputError, match=rf"--test_ratio {ratio} is more than the 0.1 .* that --inherit \S+ set aside"
        ):
            with_named_data(TrainConfig(inherit=run, test_ratio=ratio, **said), FOUND, given)
    other = with_named_data(TrainConfig(inherit=run, val_root=str(photos / "moved"), test_ratio=0.3), FOUND, None)
    assert other.val_root == str(photos / "moved") and other.train_root == str(photos / "photos")


@pytest.mark.parametrize(
    ("said", "train", "judged"),
    [
        ({}, ("photos", 20), None),
        ({"val_list": "list2.txt"}, ("photos", 20), ("photos", 10)),
        ({"val_list": "list2.txt", "val_root": "moved"}, ("photos", 20), ("moved", 10)),
        ({"data": "list", "val_list": "list2.txt"}, ("photos", 20), ("photos", 10)),
        ({"train_root": "moved"}, ("moved", 20), None),
        ({"train_root": "moved", "train_list": "list2.txt", "val_list": "list0.txt"}, ("moved", 10), ("moved", 10)),
    ],
)
def test_the_lists_of_a_search_stay_beside_what_is_said(photos, said, train, judged):
    said = {name: value if name == "data" else str(photos / value) for name, value in said.items()}
    config = with_named_data(TrainConfig(model_path=on_lists(photos), **said), FOUND, None)
    data = open_retrain_data(config, image_size=8, seed=0)
    assert (data.name, data.num_classes) == ("list", 3)
    assert ({source.root.name for source in data.train.sources}, len(data.train)) == ({train[0]}, train[1])
    if judged is None:
        assert data.validation is None
    else:
        assert (data.validation.sources[0].root.name, len(data.validation)) == judged


def test_a_file_in_a_run_directory_brings_its_data(photos, tmp_path):
    run = searched(photos, data="folder", test_ratio=0.1)
    for file in ("checkpoints/search-0001-000002.pt", "architecture.json"):
        config = with_named_data(TrainConfig(model_path=f"{run}/{file}"), FOUND, None)
        assert (config.data, config.test_ratio) == ("folder", 0.1)
    with pytest.raises(InputError, match=r"alone\.pt: there is no run directory that .* name them with --data"):
        with_named_data(TrainConfig(model_path=str(tmp_path / "alone.pt")), FOUND, None)
    config = with_named_data(TrainConfig(model_path=str(tmp_path / "alone.pt"), data="digits"), FOUND, None)
    assert config.data == "digits"
    (tmp_path / "search" / "config.yaml").write_text("data: null\n")  # a loop closed on a lone file
    with pytest.raises(InputError, match="name them with --data"):
        with_named_data(TrainConfig(model_path=run), FOUND, None)


def test_what_was_said_goes_before_though_it_is_the_default(photos):
    run = searched(photos, data="folder", test_ratio=0.1)
    (photos / "search" / "architecture.json").write_text(json.dumps(FOUND.to_json()))
    config = TrainConfig(model_path=run, test_ratio=0.2, batch_size=8, run_dir=str(photos / "trained"), device="cpu")
    with pytest.raises(InputError, match=r"--test_ratio 0\.2 is more than the 0\.1"):
        retrain(config, Console(quiet=True), given={"model_path", "test_ratio"})
    assert not (photos / "trained").exists()


def test_other_data_than_the_digits_of_a_search(photos):
    run = searched(photos, data="digits", img_root=None)
    config = with_named_data(TrainConfig(model_path=run, train_root=str(photos / "photos")), FOUND, None)
    assert open_retrain_data(config, image_size=8, seed=0).name == "folder"


def announced(tmp_path, setup):
    run = RunDirectory(tmp_path, Console(quiet=True))
    RunReporter(built(setup), run).announce()
    return (tmp_path / "log.txt").read_text()


def test_images_that_are_trained_on_and_judged_by_are_told(photos):
    lists = {name: str(photos / "list1.txt") for name in ("train_list", "val_list")}
    settings = {**lists, "train_root": str(photos / "photos"), "data": "list", "num_classes": 3, "batch_size": 5}
    said = announced(photos, prepare(small_config(photos, "run", **settings), ONE))
    assert "warning: 10 of the 10 evaluation images are also training images" in said
    apart = small_config(photos, "run", **{**settings, "val_list": str(photos / "list0.txt")})
    assert prepare(apart, ONE).notes == ()


def test_a_size_that_a_file_does_not_say_is_told(tmp_path):
    (tmp_path / "alone").mkdir()
    (tmp_path / "alone" / "model.config").write_text(json.dumps(tiny_architecture().to_model_config()))
    config = small_config(tmp_path, "run", config_path=str(tmp_path / "alone" / "model.config"))
    assert "warning: model.config has no image size; assuming 224" in announced(tmp_path, prepare(config, ONE))
    assert prepare(dataclasses.replace(config, image_size=8), ONE).notes == ()
