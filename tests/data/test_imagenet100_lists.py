"""The tool that writes ImageNet-100 lists, on a made-up ImageNet tree."""

from __future__ import annotations

import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
from PIL import Image

from tfnas.data.data_config import DataConfig
from tfnas.data.opened_data import open_data

DATASET = Path(__file__).parents[2] / "dataset"
WNIDS = (DATASET / "imagenet100_classes.txt").read_text().split()


def run(*arguments: object) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, DATASET / "make_imagenet100_lists.py", *arguments]
    return subprocess.run([str(part) for part in command], capture_output=True, text=True, check=False)


@pytest.fixture
def imagenet(tmp_path: Path) -> Path:
    """Every class with 5 images (one of them shared by a hard link to be quick), and a class that is not wanted."""
    root = tmp_path / "imagenet"
    original = tmp_path / "original.JPEG"
    Image.new("RGB", (8, 8)).save(original)
    for wnid in [*WNIDS, "n99999999"]:
        (root / "train" / wnid).mkdir(parents=True)
        for index in range(5):
            (root / "train" / wnid / f"{wnid}_{index}.JPEG").hardlink_to(original)
    return root


def test_the_hundred_classes() -> None:
    assert len(set(WNIDS)) == len(WNIDS) == 100
    assert (WNIDS[0], WNIDS[2]) == ("n01560419", "n01667114")


def test_lists_divide_every_class_and_can_be_opened(imagenet: Path, tmp_path: Path) -> None:
    done = run("--img_root", imagenet, "--out_dir", tmp_path / "lists")
    assert (done.returncode, done.stderr) == (0, "")
    train, val = (tmp_path / "lists" / f"imagenet100_{part}.txt" for part in ("train", "val"))
    assert sorted(path.name for path in train.parent.iterdir()) == [train.name, val.name]
    entries = [line.split(" ") for path in (train, val) for line in path.read_text().splitlines()]
    assert all(path.split("/")[:2] == ["train", WNIDS[int(label)]] for path, label in entries)
    assert len({path for path, _ in entries}) == len(entries) == 500
    config = DataConfig(img_root=str(imagenet), train_list=str(train), val_list=str(val))
    data = open_data(config, image_size=8, seed=0)
    assert Counter(data.weights.labels) == dict.fromkeys(range(100), 4)
    assert Counter(data.architecture.labels) == dict.fromkeys(range(100), 1)


def test_the_seed_and_the_ratio_decide(imagenet: Path, tmp_path: Path) -> None:
    texts = []
    for number, flags in enumerate(([], [], ["--seed", 1], ["--ratio", 0.4])):
        assert run("--img_root", imagenet, "--out_dir", tmp_path / str(number), *flags).returncode == 0
        texts.append((tmp_path / str(number) / "imagenet100_train.txt").read_text())
    assert texts[0] == texts[1] != texts[2]
    assert len(texts[3].splitlines()) == 200


def test_wrong_input_is_named_and_nothing_is_written(imagenet: Path, tmp_path: Path) -> None:
    out = tmp_path / "lists"
    for path in (imagenet / "train" / WNIDS[7]).iterdir():
        path.unlink()
    for flags, message in (
        (["--img_root", tmp_path / "gone"], "train: no such folder"),
        (["--img_root", imagenet], f"{WNIDS[7]}: holds 0 JPEG image(s)"),
        (["--img_root", imagenet, "--ratio", "1.5"], "1.5 is not between 0 and 1"),
        ([], "--img_root"),
    ):
        done = run(*flags, "--out_dir", out)
        assert done.returncode == 2
        assert message in done.stderr
        assert "Traceback" not in done.stderr
    (imagenet / "train" / WNIDS[7]).rmdir()
    assert f"{WNIDS[7]}: no such folder" in run("--img_root", imagenet, "--out_dir", out).stderr
    assert not out.exists()


def test_an_unwritable_place_is_named(imagenet: Path, tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    done = run("--img_root", imagenet, "--out_dir", tmp_path / "file")
    assert done.returncode == 2
    assert "cannot be written" in done.stderr
