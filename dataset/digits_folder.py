"""Write the embedded digits as an image folder, one folder per class, to try the commands on files.

python dataset/digits_folder.py photos [--per_class 60] [--side 32]
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from PIL import Image
from sklearn.datasets import load_digits

FULL_INK = 16


def write_digits(folder: Path, per_class: int | None, side: int) -> int:
    """Write `per_class` images of every digit (all by default), `side` pixels square, as PNG; returns how many."""
    digits = load_digits()
    written = 0
    for label in range(10):
        (folder / f"digit {label}").mkdir(parents=True, exist_ok=True)
        for number, pixels in enumerate(digits.images[digits.target == label][:per_class]):
            grey = np.rint(pixels * 255 / FULL_INK).astype(np.uint8)
            picture = Image.fromarray(grey).resize((side, side), Image.Resampling.BICUBIC)
            picture.save(folder / f"digit {label}" / f"{number:03}.png")
            written += 1
    return written


def main() -> None:
    """Read the arguments, write, say how many."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--per_class", type=int, default=None, help="images of every class (default: all)")
    parser.add_argument("--side", type=int, default=32, help="pixels along a side")
    arguments = parser.parse_args()
    if arguments.folder.exists() and any(arguments.folder.iterdir()):
        raise SystemExit(f"{arguments.folder} is not empty: name another folder, or remove it first")
    count = write_digits(arguments.folder, arguments.per_class, arguments.side)
    print(f"{count} images of 10 classes in {arguments.folder}")


if __name__ == "__main__":
    main()
