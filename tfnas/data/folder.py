"""One folder of images per class; the classes are numbered in the order of their names."""

from __future__ import annotations

from pathlib import Path

from tfnas.data.images import FileSource
from tfnas.data.parts import Parts
from tfnas.data.splits import stratified_split
from tfnas.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".tif", ".tiff", ".webp", ".ppm", ".pgm"})


def folder_parts(root: Path, val_ratio: float, test_ratio: float) -> Parts:
    """Open an image folder per class and split it, the same way every time.

    `test_ratio` of each class is the test part (none if 0); `val_ratio` of what is left is the architecture part.

    Raises:
        InputError: There are fewer than two classes, a class has too few images, or a folder cannot be read.
    """
    whole, classes = folder_source(root)
    training, test = list(range(len(whole.labels))), None
    if test_ratio > 0:
        training, held = stratified_split(whole.labels, test_ratio, classes, str(root))
        test = whole.subset(held)
    rest = whole.subset(training)
    weights, architecture = stratified_split(rest.labels, val_ratio, classes, str(root))
    return Parts(rest.subset(weights), rest.subset(architecture), test, classes)


def folder_source(root: Path) -> tuple[FileSource, tuple[str, ...]]:
    """All images of an image folder per class, and the names of the classes in order.

    Names that begin with a dot and files of unknown suffixes are passed over; sub-folders of a class are not read.

    Raises:
        InputError: There are fewer than two classes, a class has no image, or a folder cannot be read.
    """
    classes = [path.name for path in _visible(root) if path.is_dir()]
    if len(classes) < 2:
        raise InputError(
            f"image folder {root}: holds {len(classes)} class folder(s); give one folder per class, two or more"
        )
    paths: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        members = _images(root / name)
        if not members:
            raise InputError(
                f"class folder {root / name}: holds no image ({', '.join(sorted(IMAGE_SUFFIXES))}; sub-folders are not "
                "read). Add images or remove the folder; the root must be the folder right above the class folders."
            )
        paths.extend(f"{name}/{member}" for member in members)
        labels.extend([label] * len(members))
    return FileSource(root, paths, labels), tuple(classes)


def _images(folder: Path) -> list[str]:
    """Name the images of a folder, sorted."""
    return [path.name for path in _visible(folder) if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file()]


def _visible(folder: Path) -> list[Path]:
    """List what a folder holds, sorted, without names that begin with a dot."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise InputError(f"folder {folder}: cannot be read ({error.strerror}); check its permissions") from None
