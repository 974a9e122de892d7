"""Image lists in the authors' format: what is read, and every refusal with its file and line."""

from __future__ import annotations

from pathlib import Path

import pytest
from PIL import Image

from tfnas.core.errors import InputError
from tfnas.data.data_config import DataConfig
from tfnas.data.image_sets import Draw
from tfnas.data.opened_data import open_data

GOOD = "a.png 0\nb c/d e.png 1\n"


@pytest.fixture
def root(tmp_path: Path) -> Path:
    (tmp_path / "images" / "b c").mkdir(parents=True)
    Image.new("RGB", (20, 10), (255, 0, 0)).save(tmp_path / "images" / "a.png")
    Image.new("RGB", (10, 20), (0, 0, 255)).save(tmp_path / "images" / "b c" / "d e.png")
    (tmp_path / "train.txt").write_text(GOOD)
    (tmp_path / "val.txt").write_text(GOOD)
    return tmp_path


def opened(root: Path, **flags: object):
    given = {
        "img_root": str(root / "images"),
        "train_list": str(root / "train.txt"),
        "val_list": str(root / "val.txt"),
        "num_classes": 2,
        **flags,
    }
    return open_data(DataConfig(**given), image_size=8, seed=0)


def test_lists_are_the_weight_and_the_architecture_part(root: Path) -> None:
    (root / "train.txt").write_text(GOOD + "a.png 0\n")
    data = opened(root)
    assert data.weights.labels == [0, 1, 0]
    assert data.architecture.labels == [0, 1]
    assert data.test is None
    assert data.class_names == ("0", "1")
    assert data.describe() == "list: 3 weight, 2 architecture images, 2 classes, 8 px"
    red, label = data.architecture[Draw(0, 0)]
    assert label == 0
    assert red[0, 4, 4].item() == pytest.approx((1 - 0.485) / 0.229, rel=1e-5)
    assert data.architecture[Draw(0, 1)][0][2, 4, 4].item() == pytest.approx((1 - 0.406) / 0.225, rel=1e-5)


@pytest.mark.parametrize(
    "content",
    [
        b"a.png 0\r\nb c/d e.png 1\r\n",
        b"\xef\xbb\xbfa.png 0\nb c/d e.png 1",
        b"a.png 0\nb c/d e.png 1\n\n\n",
        b"a.png 0 \n  b c/d e.png 1\n",
    ],
    ids=["CRLF", "BOM", "empty lines at the end", "stray spaces"],
)
def test_lists_written_by_other_programs(root: Path, content: bytes) -> None:
    (root / "train.txt").write_bytes(content)
    assert opened(root).weights.sources[0].paths == ["a.png", "b c/d e.png"]


def test_a_hundred_classes_unless_told(root: Path) -> None:
    with pytest.raises(InputError, match=r"train\.txt: 98 of 100 classes have no image, the first is 2"):
        opened(root, num_classes=None)
    hundred = "".join(f"a.png {label}\n" for label in range(100))
    (root / "train.txt").write_text(hundred)
    (root / "val.txt").write_text(hundred)
    assert opened(root, num_classes=None).num_classes == 100


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("", r"train\.txt: is empty"),
        ("\n\n", r"train\.txt: is empty"),
        ("a.png 0\n\na.png 1\n", r"train\.txt:2: empty line"),
        ("a.png 0\na.png\n", r"train\.txt:2: 'a\.png' is not 'path label'"),
        ("a.png 0\na.png one\n", r"train\.txt:2: 'a\.png one' is not 'path label'"),
        ("a.png 0\na.png 1.0\n", r"train\.txt:2: .* whole number"),
        ("a.png 0\na.png\t1\n", r"train\.txt:2: .* is not 'path label'"),
        ("a.png  0\n", r"train\.txt:1: .* with one space"),
        ("a.png ٣\n", r"train\.txt:1: .* whole number"),
        (f"a.png {'9' * 5000}\n", r"train\.txt:1: .* whole number"),
        ("a.png 0\na.png 2\n", r"train\.txt:2: label 2 is outside 0\.\.1"),
        ("a.png -1\n", r"train\.txt:1: label -1 is outside 0\.\.1"),
        ("a.png 0\nz.png 1\ny.png 1\n", r"train\.txt:2: there is no image .*z\.png \(2 of 3 images"),
        ("a.png 0\nb c 1\n", r"train\.txt:2: there is no image .*b c \("),
        (f"{'x' * 5000} 0\n", r"train\.txt:1: there is no image"),
        ("a.png 0\na.png 0\n", r"train\.txt: 1 of 2 classes have no image, the first is 1"),
    ],
)
@pytest.mark.parametrize("part", ["train", "val"])
def test_lists_that_cannot_be_used(root: Path, content: str, message: str, part: str) -> None:
    (root / f"{part}.txt").write_text(content, encoding="utf-8")
    with pytest.raises(InputError, match=message.replace("train", part)):
        opened(root)


def test_missing_pieces_are_named(root: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.txt: cannot be read \(No such file"):
        opened(root, train_list=str(root / "gone.txt"))
    with pytest.raises(InputError, match="nowhere: there is no such folder"):
        opened(root, img_root=str(root / "nowhere"))
    with pytest.raises(InputError, match="needs --val_list"):
        opened(root, val_list=None)
    with pytest.raises(InputError, match="needs --train_list; for one folder per class use --data folder"):
        opened(root, train_list=None, val_list=None)
    with pytest.raises(InputError, match="needs --img_root"):
        opened(root, img_root=None)
    (root / "train.txt").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(InputError, match=r"train\.txt: is not UTF-8"):
        opened(root)


def test_class_names_must_match(root: Path) -> None:
    (root / "names.txt").write_text("red\nblue\n")
    assert opened(root, class_names=str(root / "names.txt")).class_names == ("red", "blue")
    (root / "names.txt").write_text("red\nblue\ngreen\n")
    with pytest.raises(InputError, match=r"names\.txt: names 3 classes, but the data has 2"):
        opened(root, class_names=str(root / "names.txt"))


def test_a_corrupt_image_names_image_list_and_line(root: Path) -> None:
    (root / "images" / "b c" / "d e.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    data = opened(root)
    with pytest.raises(InputError, match=r"val\.txt:2: cannot read the image .*d e\.png"):
        data.architecture[Draw(0, 1)]
