"""Digits, folders and CIFAR: complete, disjoint, stratified parts, and what is refused."""

from __future__ import annotations

import hashlib
import pickle
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_digits
from torchvision.datasets import CIFAR10, CIFAR100
from torchvision.transforms import v2

from tfnas.core.errors import InputError
from tfnas.data.bundled_digits import digits_parts
from tfnas.data.data_config import DataConfig, default_space
from tfnas.data.image_sets import Draw, stratified_split
from tfnas.data.opened_data import open_data
from tfnas.data.preprocessing import NORMALISATIONS, Preprocessing, RandomShift, training_transform


def opened(image_size: int = 32, **flags: object):
    return open_data(DataConfig(**flags), image_size=image_size, seed=0)


# --- which data -----------------------------------------------------------------------------------------------------


def test_names_and_spaces() -> None:
    assert DataConfig().data_kind == "digits"
    assert DataConfig(img_root="r", train_list="t", val_list="v").data_kind == "list"
    assert DataConfig(img_root="r").data_kind == "list"
    assert DataConfig(data="folder", img_root="r").data_kind == "folder"
    spaces = {
        name: default_space(DataConfig(data=name)) for name in ("digits", "list", "folder", "cifar10", "cifar100")
    }
    assert spaces == {
        "digits": "digits",
        "list": "imagenet",
        "folder": "imagenet",
        "cifar10": "cifar",
        "cifar100": "cifar",
    }


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"val_ratio": 0.0}, "val_ratio is 0.0"),
        ({"val_ratio": 1.0}, "val_ratio is 1.0"),
        ({"val_ratio": float("nan")}, "val_ratio is nan"),
        ({"image_size": 0}, "image_size is 0"),
        ({"num_classes": 1}, "num_classes is 1"),
        ({"workers": -1}, "workers is -1"),
        ({"data": "digits", "img_root": "r"}, "reads no --img_root"),
        ({"data": "folder", "img_root": "r", "train_list": "t"}, "--data folder reads no --train_list"),
        ({"data": "cifar10", "img_root": "r", "val_list": "v"}, "--data cifar10 reads no --val_list"),
    ],
)
def test_flags_that_cannot_be_are_refused(flags: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        DataConfig(**flags)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        ({"data": "folder"}, "--data folder needs --img_root"),
        ({"data": "cifar100"}, "--data cifar100 needs --img_root"),
        ({"train_list": "t", "val_list": "v"}, "--data list needs --img_root"),
        ({"data": "folder", "img_root": "nowhere"}, "nowhere: there is no such folder"),
        ({"num_classes": 11}, "--data digits has 10 classes here, but --num_classes is 11"),
    ],
)
def test_what_is_missing_is_named(flags: dict, message: str) -> None:
    with pytest.raises(InputError, match=message):
        opened(**flags)


# --- splits ---------------------------------------------------------------------------------------------------------


def test_a_split_is_complete_disjoint_stratified_and_fixed() -> None:
    labels = [0] * 50 + [1] * 7 + [2] * 2
    rest, share = stratified_split(labels, 0.2, ["a", "b", "c"], "here")
    assert sorted(rest + share) == list(range(59))
    assert Counter(labels[i] for i in share) == {0: 10, 1: 1, 2: 1}  # 10, 1.4 and 0.4 images, at least one each
    assert (rest, share) == stratified_split(labels, 0.2, ["a", "b", "c"], "here")


def test_both_parts_get_an_image_of_every_class() -> None:
    rest, share = stratified_split([0, 0, 1, 1], 0.99, ["a", "b"], "here")
    assert len(rest) == len(share) == 2
    with pytest.raises(InputError, match=r"here: class 'b' has 1 image\(s\)"):
        stratified_split([0, 0, 1], 0.5, ["a", "b"], "here")


# --- digits ---------------------------------------------------------------------------------------------------------


def test_digits_are_all_there_in_fixed_stratified_parts() -> None:
    data = opened(16)
    parts = [data.weights, data.architecture, data.test]
    totals = Counter(load_digits().target.tolist())
    for part, share in zip(parts, (0.6, 0.2, 0.2), strict=True):
        counts = Counter(part.labels)
        assert all(abs(counts[label] - share * totals[label]) <= 1 for label in range(10))
    assert sum((Counter(part.labels) for part in parts), Counter()) == totals
    seen = Counter(part.sources[0].read(i)[0].numpy().tobytes() for part in parts for i in range(len(part)))
    assert seen.total() == 1797
    assert len(seen) > 1790  # hardly any image twice, so no part repeats another
    assert data.describe() == (
        f"digits: {len(parts[0])} weight, {len(parts[1])} architecture, {len(parts[2])} test images, 10 classes, 16 px"
    )
    assert data.class_names == tuple("0123456789")
    assert (data.num_classes, data.workers, data.image_size) == (10, 0, 16)


def test_digits_at_their_own_size_are_the_data_of_scikit_learn() -> None:
    digits = load_digits()
    expected = {
        (np.rint(image * 255 / 16).astype(np.uint8).tobytes(), label)
        for image, label in zip(digits.images, digits.target.tolist(), strict=True)
    }
    data = opened(8)
    seen = {
        (part.sources[0].read(i)[channel].numpy().tobytes(), part.labels[i])
        for part in (data.weights, data.architecture, data.test)
        for i in range(len(part))
        for channel in (0, 2)
    }
    assert seen == expected


@pytest.mark.parametrize("size", [7, 16, 21])
def test_digits_are_resized_and_shifted_as_torchvision_does(size, monkeypatch) -> None:
    """Torchvision in whole numbers, as with AVX2 and on Arm; elsewhere it rounds floats, which is 1 off at times."""
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: "AVX2")
    images = torch.from_numpy(load_digits().images * 255 / 16).round().to(torch.uint8)[:, None]
    resized = v2.functional.resize(images, [size, size])
    parts = digits_parts(size)
    found = torch.cat([part.images[:, 0] for part in (parts.weights, parts.architecture, parts.test)])
    assert sorted(map(bytes, found.numpy())) == sorted(map(bytes, resized.numpy()))
    for reach in (1, 3):
        torch.manual_seed(reach)
        expected = [v2.RandomCrop(size, padding=reach)(resized[0]) for _ in range(20)]
        torch.manual_seed(reach)
        assert all(torch.equal(RandomShift(reach)(resized[0]), image) for image in expected)


def test_digits_are_normalised_by_their_own_mean_and_deviation() -> None:
    values = load_digits().images / 16
    norm = NORMALISATIONS["digits"]
    np.testing.assert_allclose(norm.mean, values.mean(), atol=1e-4)
    np.testing.assert_allclose(norm.std, values.std(), atol=2e-4)


# --- folder ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Classes cat (5 images), dog (10) and emu (4), beside files that are no images."""
    for shade, (name, count) in enumerate({"emu": 4, "cat": 5, "dog": 10}.items()):
        (tmp_path / name).mkdir()
        for index in range(count):
            Image.new("RGB", (12, 9), (60 * shade, index, 0)).save(tmp_path / name / f"{index}.PNG")
    (tmp_path / "README.txt").write_text("not a class")
    (tmp_path / ".cache").mkdir()
    (tmp_path / "cat" / "notes.txt").write_text("no image")
    (tmp_path / "cat" / "._0.png").write_bytes(b"left behind by a copy")
    return tmp_path


def test_folder_classes_are_sorted_and_split(folder: Path) -> None:
    data = opened(data="folder", img_root=str(folder), val_ratio=0.4, test_ratio=0.0)
    assert data.class_names == ("cat", "dog", "emu")
    assert Counter(data.architecture.labels) == {0: 2, 1: 4, 2: 2}
    assert Counter(data.weights.labels) == {0: 3, 1: 6, 2: 2}
    assert data.test is None
    assert data.workers >= 1
    paths = [*data.weights.sources[0].paths, *data.architecture.sources[0].paths]
    assert sorted(paths) == sorted(str(p.relative_to(folder)) for p in folder.rglob("[0-9].PNG"))
    image, label = data.architecture[Draw(0, 0)]
    assert (image.shape, label) == ((3, 32, 32), 0)
    assert data.describe() == "folder: 11 weight, 8 architecture images, 3 classes, 32 px"
    (folder / paths[0]).write_bytes(b"not an image")
    with pytest.raises(InputError, match=f"image folder {folder}: cannot read the image {folder / paths[0]}"):
        data.weights[Draw(0, 0)]


def test_folders_that_do_not_fit_are_refused(folder: Path) -> None:
    flags = {"data": "folder", "img_root": str(folder)}
    with pytest.raises(InputError, match="3 classes here, but --num_classes is 4"):
        opened(**flags, num_classes=4)
    assert opened(**flags, num_classes=3).num_classes == 3
    (folder / "fox").mkdir()
    (folder / "fox" / "notes.txt").write_text("no image")
    with pytest.raises(InputError, match=r"class folder .*fox: contains no image"):
        opened(**flags)
    Image.new("RGB", (4, 4)).save(folder / "fox" / "only.jpg")
    with pytest.raises(InputError, match=r"class 'fox' has 1 image"):
        opened(**flags)
    with pytest.raises(InputError, match=r"contains 0 class folder"):
        opened(data="folder", img_root=str(folder / "cat"))


# --- class names ----------------------------------------------------------------------------------------------------


def test_class_names_from_a_file(tmp_path: Path) -> None:
    names = tmp_path / "names.txt"
    names.write_bytes("\r\n".join(f"Ziffer {i}" for i in range(10)).encode() + b"\r\n")
    assert opened(16, class_names=str(names)).class_names[9] == "Ziffer 9"


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"a\nb\n", r"names\.txt: names 2 classes, but the data has 10"),
        (b"a\n\nb\n", r"names\.txt:2: empty line"),
        (b"", r"names 0 classes"),
        (b"\xff\xfe", r"names\.txt: is not UTF-8"),
    ],
)
def test_class_names_that_do_not_match_are_refused(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "names.txt").write_bytes(content)
    with pytest.raises(InputError, match=message):
        opened(16, class_names=str(tmp_path / "names.txt"))


def test_a_missing_file_of_class_names_is_named(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--class_names .*gone\.txt: cannot be read \(No such file"):
        opened(16, class_names=str(tmp_path / "gone.txt"))


# --- CIFAR ----------------------------------------------------------------------------------------------------------


def write_cifar(root: Path, kind: type, per_file: int, classes: int, label_key: str) -> dict[str, np.ndarray]:
    """Write a small CIFAR in its published layout; return file -> pixels N x 3 x 32 x 32."""
    folder = root / kind.base_folder
    folder.mkdir()
    random = np.random.default_rng(0)
    written = {}
    for name, _ in (*kind.train_list, *kind.test_list):
        pixels = random.integers(0, 256, (per_file, 3072), dtype=np.uint8)
        labels = [i % classes for i in range(per_file)]
        (folder / name).write_bytes(pickle.dumps({"data": pixels, label_key: labels}))
        written[name] = pixels.reshape(-1, 3, 32, 32)
    names = [f"class {i}" for i in range(classes)]
    (folder / kind.meta["filename"]).write_bytes(pickle.dumps({kind.meta["key"]: names}))
    return written


def publish(monkeypatch: pytest.MonkeyPatch, root: Path, kind: type) -> None:
    """Make the checksums of the files on disk the published ones."""

    def md5(name: str) -> str:
        return hashlib.md5((root / kind.base_folder / name).read_bytes()).hexdigest()

    for attribute in ("train_list", "test_list"):
        monkeypatch.setattr(kind, attribute, [[name, md5(name)] for name, _ in getattr(kind, attribute)])
    monkeypatch.setattr(kind, "meta", {**kind.meta, "md5": md5(kind.meta["filename"])})


@pytest.mark.parametrize(
    ("name", "kind", "per_file", "classes", "label_key"),
    [("cifar10", CIFAR10, 20, 10, "labels"), ("cifar100", CIFAR100, 300, 100, "fine_labels")],
)
def test_cifar_from_disk(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, kind: type, per_file: int, classes: int, label_key: str
) -> None:
    written = write_cifar(tmp_path, kind, per_file, classes, label_key)
    publish(monkeypatch, tmp_path, kind)
    data = opened(data=name, img_root=str(tmp_path), val_ratio=0.3)
    train = len(kind.train_list) * per_file
    per_class = train // classes
    assert set(Counter(data.architecture.labels).values()) == {round(0.3 * per_class)}
    assert set(Counter(data.weights.labels).values()) == {per_class - round(0.3 * per_class)}
    test_images = written[kind.test_list[0][0]]
    assert len(data.test) == per_file
    np.testing.assert_array_equal(data.test.sources[0].images.numpy(), test_images)
    train_images = np.concatenate([written[file] for file, _ in kind.train_list])
    both = np.concatenate([data.weights.sources[0].images.numpy(), data.architecture.sources[0].images.numpy()])
    assert sorted(image.tobytes() for image in both) == sorted(image.tobytes() for image in train_images)
    assert data.class_names[3] == "class 3"
    assert (data.num_classes, data.workers) == (classes, 0)
    assert opened(48, data=name, img_root=str(tmp_path)).weights[Draw(0, 0)][0].shape == (3, 48, 48)


class Payload:
    """Would make a file if anything unpickled it."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self):
        return (Path.touch, (self.target,))


def test_cifar_files_that_differ_are_refused_and_never_run(tmp_path: Path) -> None:
    write_cifar(tmp_path, CIFAR10, 20, 10, "labels")
    for file in (tmp_path / "cifar-10-batches-py").iterdir():
        file.write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(InputError, match=r"cifar-10-batches-py does not contain .*data_batch_1.*nothing is downloaded"):
        opened(data="cifar10", img_root=str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_changed_class_names_of_cifar_are_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_cifar(tmp_path, CIFAR100, 300, 100, "fine_labels")
    publish(monkeypatch, tmp_path, CIFAR100)
    (tmp_path / "cifar-100-python" / "meta").write_bytes(pickle.dumps(Payload(tmp_path / "ran")))
    with pytest.raises(InputError, match="missing or changed"):
        opened(data="cifar100", img_root=str(tmp_path))
    assert not (tmp_path / "ran").exists()


def test_missing_cifar_says_how_to_lay_it_out(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"Unpack cifar-100-python\.tar\.gz .*nothing is downloaded"):
        opened(data="cifar100", img_root=str(tmp_path))


# --- transforms -----------------------------------------------------------------------------------------------------


def test_cifar_augmentation_is_a_flip_of_a_padded_crop() -> None:
    image = torch.randint(0, 256, (3, 32, 32), dtype=torch.uint8, generator=torch.Generator().manual_seed(0))
    padded = torch.zeros(3, 40, 40, dtype=torch.uint8)
    padded[:, 4:36, 4:36] = image
    crops = [padded[:, y : y + 32, x : x + 32] for y in range(9) for x in range(9)]
    shape = training_transform("cifar10", 32).shape
    torch.manual_seed(0)
    flips = 0
    for _ in range(20):
        seen = shape(image)
        plain = any(torch.equal(seen, crop) for crop in crops)
        flipped = any(torch.equal(seen.flip(2), crop) for crop in crops)
        assert plain != flipped
        flips += flipped
    assert 0 < flips < 20
    assert torch.equal(Preprocessing.of("cifar10", 32).transform().shape(image), image)


def test_the_plain_transform_of_files_is_resize_256_and_centre_crop_224() -> None:
    noise = np.random.default_rng(0).integers(0, 256, (256, 300, 3), dtype=np.uint8)  # short side 256: resize is idle
    seen = Preprocessing.of("list", 224).transform().shape(Image.fromarray(noise))
    np.testing.assert_array_equal(seen.permute(1, 2, 0).numpy(), noise[16:240, 38:262])
    half = noise[:128, :200]
    seen = Preprocessing.of("folder", 112).transform().shape(Image.fromarray(half))  # 112 * 256 / 224 = 128
    np.testing.assert_array_equal(seen.permute(1, 2, 0).numpy(), half[8:120, 44:156])


def test_the_test_part_of_a_folder_is_kept_from_the_other_parts(folder: Path) -> None:
    data = opened(data="folder", img_root=str(folder), val_ratio=0.4, test_ratio=0.25)
    assert data.test is not None
    assert Counter(data.test.labels) == {0: 1, 1: 2, 2: 1}
    parts = [set(part.sources[0].paths) for part in (data.weights, data.architecture, data.test)]
    assert sum(map(len, parts)) == len(set.union(*parts)) == 19
