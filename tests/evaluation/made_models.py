"""Small networks in files, and folders and lists of pictures that belong to their classes."""

from __future__ import annotations

import copy
import functools
import json

import numpy as np
import torch
from made_networks import digits_architecture, random_network
from PIL import Image

from tfnas import TrainedModel
from tfnas.data.image_reading import read_rgb
from tfnas.data.preprocessing import Preprocessing

NAMES = ("ant", "bee", "cat", "dog", "elk", "fox", "gnu")
PREPROCESSING = Preprocessing(16, 18, (0.5, 0.25, 0.125), (0.2, 0.3, 0.4))


def varied_network(architecture, seed=3):
    """A random network that tells pictures apart: with batch norm's statistics, and mean logits of 0, of smooth noise.

    One with random statistics takes all pictures for the same class.
    """
    return copy.deepcopy(_made_once(architecture, seed))


@functools.cache
def _made_once(architecture, seed):
    network = random_network(architecture, seed)
    noise = torch.randn(64, 3, 3, 3, generator=torch.Generator().manual_seed(seed))
    images = torch.nn.functional.interpolate(noise, size=16, mode="bicubic")
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0
    with torch.no_grad():
        network.train()(images)
        network.classifier.linear.bias -= network.eval()(images).mean(0)
    return network


def seven_classes():
    return digits_architecture(num_classes=7)


def named_model(seed=3, **changes):
    """A trained model of seven animals."""
    fields = {
        "architecture": seven_classes(),
        "state": varied_network(seven_classes(), seed).state_dict(),
        "class_names": NAMES,
        "preprocessing": PREPROCESSING,
        "data": "folder",
    }
    return TrainedModel(**{**fields, **changes})


def write_pictures(root, folders=NAMES, each=5, seed=0):
    """`each` pictures of uneven sizes in every folder: smooth, so that their classes differ. Returns their paths."""
    noise = np.random.default_rng(seed)
    paths = []
    for folder in folders:
        (root / folder).mkdir(parents=True, exist_ok=True)
        for number in range(each):
            coarse = Image.fromarray(noise.integers(0, 256, (3, 3, 3), dtype=np.uint8))
            size = tuple(int(side) for side in noise.integers(20, 40, 2))
            path = root / folder / f"{number}.png"
            coarse.resize(size, Image.Resampling.BICUBIC).save(path)
            paths.append(path)
    return paths


def write_list(path, root, pictures, labels):
    lines = [f"{picture.relative_to(root)} {label}" for picture, label in zip(pictures, labels, strict=True)]
    path.write_text("\n".join(lines) + "\n")
    return path


def authors_files(folder, state, num_classes=1000):
    """model.config with another number of classes, and the authors' checkpoint of these weights."""
    architecture = digits_architecture(num_classes=num_classes)
    config = folder / "model.config"
    config.write_text(json.dumps(architecture.to_model_config()))
    weights = folder / "checkpoint.pth.tar"
    prefixed = {f"module.{name}": value for name, value in state.items()}
    torch.save({"epoch": 250, "state_dict": prefixed, "best_acc_top1": 75.2, "optimizer": {}}, weights)
    return config, weights


def logits_by_hand(network, pictures, preprocessing):
    """Float64 logits of pictures, cut with numpy and scaled here."""
    rows = []
    for path in pictures:
        picture = read_rgb(path, "test")
        width, height = picture.size
        scale = preprocessing.short_side / min(width, height)
        shape = [preprocessing.short_side if side == min(picture.size) else int(side * scale) for side in picture.size]
        small = np.asarray(picture.resize(shape, Image.Resampling.BILINEAR), dtype=np.float64) / 255
        size = preprocessing.image_size
        top, left = (round((side - size) / 2) for side in small.shape[:2])
        cut = (small[top : top + size, left : left + size] - preprocessing.mean) / preprocessing.std
        rows.append(cut.transpose(2, 0, 1))
    with torch.no_grad():
        return copy.deepcopy(network).double()(torch.tensor(np.stack(rows))).numpy()
