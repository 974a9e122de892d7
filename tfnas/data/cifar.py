"""CIFAR-10 and CIFAR-100 from disk, through torchvision. Nothing is downloaded.

The files are pickles, which can run code when they are loaded. torchvision compares the MD5 of every batch and of the
class names with the published ones before it unpickles them (CIFAR10._check_integrity and _load_meta), and to make
another file with a given MD5 is out of reach; so only the published bytes are ever loaded.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import torch

from tfnas.data.images import ArraySource
from tfnas.data.parts import Parts
from tfnas.data.splits import stratified_split
from tfnas.errors import InputError


def cifar_parts(name: Literal["cifar10", "cifar100"], root: Path, val_ratio: float) -> Parts:
    """Open CIFAR: training images split by `val_ratio` into weights and architecture, its test images for test.

    Raises:
        InputError: The files are missing under `root`, or are not the published ones.
    """
    train, class_names = _open(name, root, train=True)
    test, _ = _open(name, root, train=False)
    weights, architecture = stratified_split(train.labels, val_ratio, class_names, f"{name} in {root}")
    return Parts(train.subset(weights), train.subset(architecture), test, class_names)


def _open(name: Literal["cifar10", "cifar100"], root: Path, *, train: bool) -> tuple[ArraySource, tuple[str, ...]]:
    """Open one half of CIFAR as uint8 images N x 3 x 32 x 32, with the names of its classes."""
    from torchvision import datasets  # takes seconds to import, which the embedded data need not wait for

    kind: Any = {"cifar10": datasets.CIFAR10, "cifar100": datasets.CIFAR100}[name]
    try:
        data = kind(root, train=train, download=False)
    except RuntimeError:  # torchvision's word for a missing file or another MD5
        batches = ", ".join(file for file, _ in (*kind.train_list, *kind.test_list))
        raise InputError(
            f"--data {name}: {root}/{kind.base_folder} does not hold the published files {batches}, "
            f"{kind.meta['filename']} (missing or changed). Unpack {kind.filename} so that --img_root holds the folder "
            f"{kind.base_folder}; nothing is downloaded."
        ) from None
    images = torch.from_numpy(data.data).permute(0, 3, 1, 2).contiguous()
    return ArraySource(images, list(data.targets)), tuple(data.classes)
