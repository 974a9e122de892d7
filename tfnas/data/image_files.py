"""Images in files: one folder per class, lists, or CIFAR as it is published.

* Folders: the classes are numbered in the order of their names.
* Lists, in the format of the authors' program: one `path label` per line, the path relative to the image root.
* CIFAR-10 and CIFAR-100: from disk, through torchvision; nothing is downloaded. The files are pickles, which can run
  code when they are loaded. torchvision compares the MD5 of every batch and of the class names with the published ones
  before it unpickles them (CIFAR10._check_integrity and _load_meta), and to make another file with a given MD5 is out
  of reach; so only the published bytes are ever loaded. The images are held in memory. Source: A. Krizhevsky, Learning
  Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tfnas.core.errors import InputError
from tfnas.data.image_reading import read_rgb, read_view
from tfnas.data.image_sets import ArraySource, ChooseView, Parts, Raw
from tfnas.utils.files import read_text_lines

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


@dataclass(frozen=True, eq=False)
class FileSource:
    """Image files under `root`. `listing` is the list that named them, image number i on its line i + 1."""

    root: Path
    paths: Sequence[str]
    labels: Sequence[int]
    listing: Path | None = None

    def read(self, index: int, view: ChooseView | None = None) -> Raw:
        """Read file number `index` as upright RGB. Raises InputError naming the file, its list and line."""
        path = self.root / self.paths[index]
        where = f"image folder {self.root}" if self.listing is None else f"{self.listing}:{index + 1}"
        return read_rgb(path, where) if view is None else read_view(path, where, view)

    def identity(self) -> bytes:
        """Return the paths; the files are not read."""
        return "\n".join(self.paths).encode()

    def subset(self, indices: Sequence[int]) -> FileSource:
        """Return the files at the indices, in their order; they are no longer from a list."""
        return FileSource(self.root, [self.paths[i] for i in indices], [self.labels[i] for i in indices])


def folder_source(root: Path) -> tuple[FileSource, tuple[str, ...]]:
    """All images of an image folder per class, and the names of the classes in order.

    Names that begin with a dot and files of unknown suffixes are skipped; sub-folders of a class are not read.

    Raises:
        InputError: There are fewer than two classes, a class has no image, or a folder cannot be read.
    """
    classes = [path.name for path in _visible(root) if path.is_dir()]
    if len(classes) < 2:
        raise InputError(f"image folder {root}: contains {len(classes)} class folder(s); at least two are needed")
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        members = _images(root / name)
        if not members:
            raise InputError(
                f"class folder {root / name}: contains no image ({', '.join(sorted(IMAGE_SUFFIXES))}; sub-folders are "
                "not read). Add images or remove the folder; the root must be the folder right above the class folders."
            )
        paths.extend(f"{name}/{member}" for member in members)
        labels.extend([label] * len(members))
    return FileSource(root, paths, labels), tuple(classes)


def image_folder(path: str | None, flag: str, data: str) -> Path:
    """The folder that a flag names. Raises InputError where kind of data `data` lacks it, or where it is not there."""
    if path is None:
        raise InputError(f"--data {data} needs {flag}, the folder that contains the images")
    if not os.path.isdir(path):  # noqa: PTH112 - answers "no" where Path.is_dir raises
        raise InputError(f"{flag} {path}: there is no such folder; give the one that contains the images")
    return Path(path)


def image_list(path: str | None, flag: str) -> str:
    """The list that a flag names. Raises InputError where --data list lacks it."""
    if path is None:
        raise InputError(f"--data list needs {flag}; for one folder per class use --data folder")
    return path


def images_below(folder: str | Path) -> Iterator[Path]:
    """Image files in a folder and its sub-folders, each folder's in the order of names, without hidden ones."""
    for place, inner, files in os.walk(folder):
        inner[:] = sorted(name for name in inner if not name.startswith("."))
        for name in sorted(files):
            if Path(name).suffix.lower() in IMAGE_SUFFIXES and not name.startswith("."):
                yield Path(place, name)


def _images(folder: Path) -> list[str]:
    """Name the images of a folder, sorted."""
    return [path.name for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]


def _visible(folder: Path) -> list[Path]:
    """List the contents of a folder, sorted, without names that begin with a dot."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({error.strerror}); check its permissions") from None


_DEFAULT_CLASSES = 100  # the authors search on 100 classes of ImageNet
_LINE = re.compile(r"(?P<path>.*\S) (?P<label>-?[0-9]{1,9})")


def list_parts(root: Path, train_list: str, val_list: str, num_classes: int | None) -> Parts:
    """Open two image lists: the weight part and the architecture part. There is no test part.

    Raises:
        InputError: A list or image is missing, a line is malformed, a label is out of range, or a class is empty.
    """
    count = _DEFAULT_CLASSES if num_classes is None else num_classes
    weights, architecture = (read_list(Path(listing), root, count) for listing in (train_list, val_list))
    return Parts(weights, architecture, None, tuple(str(label) for label in range(count)))


def read_list(listing: Path, root: Path, num_classes: int, *, to_train: bool = True) -> FileSource:
    """Read an image list and check that every image exists and (in one to train on) every class has one.

    Args:
        listing: The list; the last space of a line separates path and label, so that a path may contain spaces.
        root: What the paths are relative to.
        num_classes: Labels must lie in 0 .. num_classes - 1.

    Raises:
        InputError: Naming the list and the line.
    """
    lines = read_text_lines(listing, "image list")
    if not lines:
        raise InputError(f"image list {listing}: is empty; write one 'path label' per line")
    entries = [_entry(line, f"{listing}:{number}", num_classes) for number, line in enumerate(lines, start=1)]
    paths = [path for path, _ in entries]
    labels = [label for _, label in entries]
    _check_files(listing, root, paths)
    if to_train:
        _check_classes(listing, labels, num_classes)
    return FileSource(root, paths, labels, listing)


def _entry(line: str, where: str, num_classes: int) -> tuple[str, int]:
    """Parse one line into path and label."""
    if not line:
        raise InputError(f"{where}: empty line; write 'path label' or delete the line")
    match = _LINE.fullmatch(line)
    if match is None:
        raise InputError(f"{where}: {line!r} is not 'path label' with one space and a whole number for the label")
    label = int(match["label"])
    if not 0 <= label < num_classes:
        raise InputError(
            f"{where}: label {label} is outside 0..{num_classes - 1}; correct it, "
            f"or set --num_classes (now {num_classes})"
        )
    return match["path"], label


def _check_files(listing: Path, root: Path, paths: list[str]) -> None:
    """Refuse a list whose images are not all there."""
    # os.path.isfile answers "no" where Path.is_file raises: a name too long, a folder that may not be read.
    missing = [number for number, path in enumerate(paths, start=1) if not os.path.isfile(root / path)]  # noqa: PTH113
    if missing:
        first = missing[0]
        raise InputError(
            f"{listing}:{first}: there is no image {root / paths[first - 1]} ({len(missing)} of {len(paths)} images "
            "of this list are missing); check --img_root, which paths are relative to"
        )


def _check_classes(listing: Path, labels: list[int], num_classes: int) -> None:
    """Refuse a list in which a class has no image."""
    empty = sorted(set(range(num_classes)) - set(labels))
    if empty:
        raise InputError(
            f"image list {listing}: {len(empty)} of {num_classes} classes have no image, the first is {empty[0]}; "
            f"add images, or set --num_classes to the number of classes in the list (largest label: {max(labels)})"
        )


def cifar_images(name: str, root: Path) -> tuple[ArraySource, ArraySource, tuple[str, ...]]:
    """Open `cifar10` or `cifar100`: training images, test images (uint8 N x 3 x 32 x 32) and the names of the classes.

    Raises:
        InputError: The files are missing under `root`, or are not the published ones.
    """
    from torchvision import datasets  # takes seconds to import, which other data need not wait for

    kind: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        halves = [kind(root, train=train, download=False) for train in (True, False)]
    except RuntimeError:  # of a missing file or another MD5
        batches = ", ".join(file for file, _ in (*kind.train_list, *kind.test_list))
        raise InputError(
            f"--data {name}: {root}/{kind.base_folder} does not contain the published files {batches}, "
            f"{kind.meta['filename']} (missing or changed). Unpack {kind.filename} so that --img_root contains the "
            f"folder {kind.base_folder}; nothing is downloaded."
        ) from None
    train, test = (
        ArraySource(torch.from_numpy(half.data).permute(0, 3, 1, 2).contiguous(), list(half.targets)) for half in halves
    )
    return train, test, tuple(halves[0].classes)
