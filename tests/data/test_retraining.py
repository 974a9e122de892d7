"""What retraining trains on and judges by: everything the search may see trains, the test part only judges."""

from collections import Counter

import pytest
import torch
import yaml
from PIL import Image

from tfnas.core.errors import InputError
from tfnas.data.data_config import DataConfig, RetrainDataConfig
from tfnas.data.image_batches import EpochBatches, Share
from tfnas.data.opened_data import open_data
from tfnas.data.preprocessing import NORMALISATIONS, Preprocessing
from tfnas.data.retrain_data import data_of_search, open_retrain_data
from tfnas.runs.named_model import run_images


@pytest.fixture
def photos(tmp_path):
    """Three classes with ten pictures each, and lists of them."""
    lines = []
    for label, name in enumerate(("ant", "bee", "cow")):
        (tmp_path / "photos" / name).mkdir(parents=True)
        for index in range(10):
            Image.new("RGB", (12, 9), (70 * label, 20 * index, 9)).save(tmp_path / "photos" / name / f"{index}.png")
            lines.append(f"{name}/{index}.png {label}")
    for number in range(3):
        (tmp_path / f"list{number}.txt").write_text("\n".join(lines[number::3]) + "\n")
    return tmp_path


def opened(**settings):
    return open_retrain_data(RetrainDataConfig(**settings), image_size=8, seed=0)


def names(images):
    return {path for source in images.sources for path in source.paths}


def test_a_folder_trains_what_the_search_saw_and_judges_the_rest(photos):
    root = str(photos / "photos")
    searched = open_data(DataConfig(data="folder", img_root=root, test_ratio=0.3), image_size=8, seed=0)
    data = opened(train_root=root, test_ratio=0.3)
    assert data.name == "folder" and data.class_names == ("ant", "bee", "cow")
    assert names(data.train) == names(searched.weights) | names(searched.architecture)
    assert names(data.validation) == names(searched.test)
    assert Counter(data.validation.labels) == {0: 3, 1: 3, 2: 3}


def test_two_folders(photos):
    root = str(photos / "photos")
    data = opened(train_root=root, val_root=root)
    assert len(data.train) == len(data.validation) == 30
    (photos / "other" / "ant").mkdir(parents=True)
    (photos / "other" / "bee").mkdir()
    for name in ("ant", "bee"):
        Image.new("RGB", (9, 9)).save(photos / "other" / name / "0.png")
    with pytest.raises(InputError, match="only one of them has cow"):
        opened(train_root=root, val_root=str(photos / "other"))


def test_lists(photos):
    settings = {"train_root": str(photos / "photos"), "num_classes": 3}
    both = f"{photos / 'list0.txt'},{photos / 'list1.txt'}"
    data = opened(train_list=both, val_list=str(photos / "list2.txt"), **settings)
    assert (data.name, len(data.train), len(data.validation)) == ("list", 20, 10)
    assert opened(train_list=both, **settings).validation is None
    (photos / "one.txt").write_text("ant/0.png 0\n")
    assert len(opened(train_list=both, val_list=str(photos / "one.txt"), **settings).validation) == 1
    with pytest.raises(InputError, match="2 of 3 classes have no image"):
        opened(train_list=str(photos / "one.txt"), **settings)
    with pytest.raises(InputError, match="val_list, the list of the images"):
        opened(train_list=both, val_root=str(photos), **settings)
    with pytest.raises(InputError, match="needs --train_list"):
        opened(val_list=both, **settings)


def test_the_data_of_a_search_on_lists_are_both_its_lists(photos):
    saved = {"data": "list", "img_root": str(photos / "photos"), "val_ratio": 0.2}
    saved |= {"train_list": str(photos / "list0.txt"), "val_list": str(photos / "list1.txt")}
    data = open_retrain_data(data_of_search(saved, 8, 3), image_size=8, seed=0)
    assert len(data.train) == 20 and data.validation is None


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"data": "folder"}, "--data folder needs --train_root"),
        ({"train_root": "/nowhere"}, "there is no such folder"),
        ({"data": "cifar10", "val_root": "x"}, "--data cifar10 reads no --val_root"),
        ({"test_ratio": 1.0}, "test_ratio is 1.0"),
        ({"num_classes": 1}, "num_classes is 1"),
    ],
)
def test_wrong_settings(settings, message):
    with pytest.raises(InputError, match=message):
        opened(**settings)


def test_a_runs_images_are_opened_again(photos):
    with pytest.raises(InputError, match="not a run directory"):
        run_images(photos)
    fields = vars(RetrainDataConfig(data="folder", train_root=str(photos / "photos"), image_size=8))
    (photos / "config.yaml").write_text(yaml.safe_dump({**fields, "seed": 3, "lr": 0.1}))
    assert len(run_images(photos).validation) == 6
    (photos / "config.yaml").write_text(yaml.safe_dump({"target_lat": 15}))
    with pytest.raises(InputError, match="is no training run"):
        run_images(photos)


@pytest.mark.parametrize("name", ["folder", "cifar10", "digits"])
def test_preprocessing_is_what_the_judged_images_go_through(name):
    side = {"folder": 41, "cifar10": 32, "digits": 16}[name]
    size = 16 if name == "digits" else 32
    picture = Image.effect_noise((side, side), 80).convert("RGB")
    ours, norm = Preprocessing.of(name, size), NORMALISATIONS[name]
    from torchvision.transforms import v2

    expected = v2.Compose(
        [
            v2.Resize(round(size * 256 / 224) if name == "folder" else size),
            v2.CenterCrop(size),
            v2.PILToTensor(),
            v2.ToDtype(torch.float32, scale=True),
            v2.Normalize(norm.mean, norm.std),
        ]
    )(picture)
    raw = picture if name == "folder" else v2.functional.pil_to_tensor(picture)
    transform = ours.transform()
    for found in (ours.normalise(ours.cut(picture)), transform.normalise(transform.shape(raw))):
        assert (found - expected).abs().max() < 1e-6
    assert Preprocessing.from_json(ours.to_json()) == ours


@pytest.mark.parametrize("whole", [False, True])
@pytest.mark.parametrize("processes", [1, 2, 3])
def test_shares_divide_every_batch(whole, processes):
    def batches(share):
        settings = {"batch_size": 6, "epoch": 2, "seed": 5, "first_batch": 1}
        return EpochBatches(20, **settings, share=share, whole=whole)

    alone = list(batches(Share(0, 1)))
    parts = [list(batches(Share(rank, processes))) for rank in range(processes)]
    assert [len(batches(Share(rank, processes))) for rank in range(processes)] == [len(part) for part in parts]
    together = sorted(draw.index for part in parts for batch in part for draw in batch)
    assert together == sorted(draw.index for batch in alone for draw in batch)
    assert len(together) == (12 if whole else 14)
    for number, batch in enumerate(alone[:2]):
        assert {draw.index for part in parts for draw in part[number]} == {draw.index for draw in batch}


def test_runs_store_their_data_in_the_words_of_earlier_versions():
    """Resuming compares them: other words would refuse a run that an earlier version has begun."""
    data = open_retrain_data(RetrainDataConfig(data="digits"), image_size=16, seed=2)
    assert data.describe() == "digits: 1438 training images, 359 evaluation images, 10 classes, 16 px"
    assert data.saved_form() == "digits: 1438 training images, 359 to judge by, 10 classes, 16 px"
