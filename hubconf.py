"""Entry points of torch.hub: trained networks and untrained ones, from a checkout of this repository.

network = torch.hub.load("path/to/checkout", "tfnas", path="runs/train-20260131-120000", source="local")
"""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import torch

dependencies = ["torch", "torchvision", "numpy", "PIL", "yaml"]

# Everything is imported where it is used: what stands here under a public name would be taken for an entry point.


def tfnas(path: str | os.PathLike[str], features_only: bool = False) -> torch.nn.Module:
    """A trained network, with its weights, in eval mode, on the CPU.

    path: a run directory of train_eval_amp.py, or the model.pt in it.
    features_only: instead of logits (N, classes), give a list of feature maps, one for each stride, finest first;
        the module's `channels` and `strides` describe them. Feature mix and classifier are left out.

    Images are (N, 3, H, W), normalised as the network was trained; tfnas.TrainedModel.load(path).preprocessing does it.
    Raises tfnas.InputError, a ValueError, when there is no trained network at the path; nothing in the file is run.
    """
    from tfnas.runs.model_file import load

    return load(path, features_only)


def tfnas_architecture(
    path: str | os.PathLike[str],
    num_classes: int | None = None,
    dropout_rate: float = 0.0,
    drop_connect_rate: float = 0.0,
) -> torch.nn.Module:
    """The network of an architecture without trained weights, in training mode, on the CPU.

    path: a run directory of train_search.py, its architecture.json, a model.config of the TF-NAS authors' program, or a
        structure's text.
    num_classes: outputs of the classifier; left out, those of the architecture.
    dropout_rate: before the classifier.
    drop_connect_rate: of the last block; it grows linearly from the first.

    Images are (N, 3, H, W), logits (N, num_classes).
    Raises tfnas.InputError, a ValueError, when there is no architecture at the path.
    """
    from tfnas.spaces.families import build_network, load_architecture

    architecture = load_architecture(path)
    return build_network(
        architecture, num_classes=num_classes, dropout_rate=dropout_rate, drop_connect_rate=drop_connect_rate
    )
