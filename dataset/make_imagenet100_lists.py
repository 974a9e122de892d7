"""Write the image lists of ImageNet-100 from your own ImageNet folder.

    python dataset/make_imagenet100_lists.py --img_root /data/imagenet

reads IMG_ROOT/train/nXXXXXXXX/*.JPEG for the 100 classes in imagenet100_classes.txt and writes imagenet100_train.txt
(80 % of every class, for weights) and imagenet100_val.txt (the rest, for the architecture), one `path label` per line,
paths relative to IMG_ROOT. The same images and seed give the same lists. Needs Python alone.
"""

from __future__ import annotations

import argparse
import os
import random
import sys
import tempfile
from pathlib import Path

CLASSES_FILE = Path(__file__).with_name("imagenet100_classes.txt")
TRAIN_LIST = "imagenet100_train.txt"
VAL_LIST = "imagenet100_val.txt"
_SUFFIXES = (".jpeg", ".jpg")


class ListError(Exception):
    """The lists cannot be written; the message says what, where and what to do."""


def main(arguments: list[str] | None = None) -> int:
    """Write both lists and say so; return 0, or 2 with a message on wrong input."""
    options = _parser().parse_args(arguments)
    try:
        train, val = make_lists(options.img_root, options.ratio, options.seed)
        for name, lines in ((TRAIN_LIST, train), (VAL_LIST, val)):
            write_whole(options.out_dir / name, "".join(f"{line}\n" for line in lines))
            print(f"{options.out_dir / name}: {len(lines)} images")
    except ListError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    return 0


def make_lists(img_root: Path, ratio: float, seed: int) -> tuple[list[str], list[str]]:
    """Divide every class's images and return the lines of the two lists, ordered by label and name.

    Raises:
        ListError: A class folder is missing or holds fewer than two images.
    """
    if not (img_root / "train").is_dir():
        raise ListError(f"{img_root / 'train'}: no such folder; --img_root must hold train/nXXXXXXXX/*.JPEG")
    shuffler = random.Random(seed)
    train: list[str] = []
    val: list[str] = []
    for label, wnid in enumerate(CLASSES_FILE.read_text(encoding="ascii").split()):
        names = _image_names(img_root / "train" / wnid)
        count = min(max(round(len(names) * ratio), 1), len(names) - 1)
        chosen = set(shuffler.sample(names, count))
        for name in names:
            (train if name in chosen else val).append(f"train/{wnid}/{name} {label}")
    return train, val


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all.

    Raises:
        ListError: It cannot be written; what stood there before still does.
    """
    temporary: str | None = None
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile("w", encoding="utf-8", newline="\n", dir=path.parent, delete=False) as file:
            temporary = file.name
            file.write(text)
            file.flush()
            os.fsync(file.fileno())
        Path(temporary).chmod(0o644)  # temporary files begin as 0o600
        Path(temporary).replace(path)
    except OSError as error:
        if temporary is not None:
            Path(temporary).unlink(missing_ok=True)
        raise ListError(f"{path}: cannot be written ({error.strerror}); choose another --out_dir") from None


def _image_names(folder: Path) -> list[str]:
    """Name a class's images, sorted."""
    if not folder.is_dir():
        raise ListError(f"{folder}: no such folder; all 100 classes of {CLASSES_FILE.name} are needed")
    names = sorted(entry.name for entry in folder.iterdir() if entry.suffix.lower() in _SUFFIXES)
    if len(names) < 2:
        raise ListError(f"{folder}: holds {len(names)} JPEG image(s); at least 2 are needed for two lists")
    return names


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description="Write ImageNet-100 image lists from your own ImageNet folder.")
    parser.add_argument(
        "--img_root", type=Path, required=True, help="ImageNet folder that holds train/nXXXXXXXX/*.JPEG"
    )
    parser.add_argument(
        "--out_dir", type=Path, default=Path(__file__).parent, help="where the lists go (default: here)"
    )
    parser.add_argument("--ratio", type=_share, default=0.8, help="share of each class for weights (default: 0.8)")
    parser.add_argument("--seed", type=int, default=0, help="chooses which images go where (default: 0)")
    return parser


def _share(text: str) -> float:
    """Parse a share strictly between 0 and 1."""
    share = float(text)
    if not 0.0 < share < 1.0:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return share


if __name__ == "__main__":
    sys.exit(main())
