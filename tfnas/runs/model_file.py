"""A trained network as one file, `model.pt`: architecture, weights, class names and what it expects of a picture.

network = tfnas.load("runs/train-20260131-120000")      # or the model.pt in it
"""

from __future__ import annotations

import io
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, overload

import torch
from torch import Tensor, nn

from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.data.preprocessing import Preprocessing
from tfnas.nn.network import FeatureNetwork, Network
from tfnas.nn.weights import load_state
from tfnas.runs.run_directory import CONFIG_FILE, read_config
from tfnas.spaces.families import build_network, from_document, to_document
from tfnas.utils.files import write_whole
from tfnas.utils.tensor_file import load_plain
from tfnas.utils.text import command_line

MODEL_FILE = "model.pt"
FORMAT = "tfnas-model"
VERSION = 1


@dataclass(frozen=True, eq=False)
class TrainedModel:
    """All that is needed to use a network: `state` is its state dict, class number i is called `class_names[i]`.

    `data` names the kind of data that it was trained on.
    """

    architecture: NetworkArchitecture
    state: Mapping[str, Tensor]
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    data: str

    def network(self) -> nn.Module:
        """The network with its weights, in eval mode, on the CPU. Raises InputError where the weights do not fit."""
        with torch.device("meta"):
            network = build_network(self.architecture)
        network.to_empty(device="cpu")
        load_state(network, self.state, "the model")
        return network.eval()

    def save(self, path: Path) -> None:
        """Write the file, whole. Raises RunFailed when it cannot be written."""
        document = {
            "format": FORMAT,
            "version": VERSION,
            "architecture": to_document(self.architecture),
            "state_dict": {name: value.detach().cpu().clone() for name, value in self.state.items()},
            "class_names": list(self.class_names),
            "preprocessing": self.preprocessing.to_json(),
            "data": self.data,
        }
        buffer = io.BytesIO()
        torch.save(document, buffer)
        write_whole(path, buffer.getvalue())

    @classmethod
    def load(cls, path: str | os.PathLike[str]) -> TrainedModel:
        """Read the `model.pt` at a path or in a run directory.

        Raises InputError when there is none, or when it is damaged or something else; nothing in it is run.
        """
        file = Path(path)
        if os.path.isdir(file):  # noqa: PTH112 - answers "no" where Path.is_dir raises
            file = file / MODEL_FILE
            found, is_run = (os.path.isfile(place) for place in (file, Path(path) / CONFIG_FILE))  # noqa: PTH113
            if not found and is_run and "snapshot" in read_config(Path(path)):
                raise InputError(
                    f"{path} has no {MODEL_FILE} yet: its training was interrupted. Resume it: "
                    f"{command_line('train', '--snapshot', Path(path))}"
                )
            if not found:
                raise InputError(
                    f"{path} has no {MODEL_FILE}: it is not a finished training run. Train a network first: "
                    f"{command_line('train', '--model_path', Path(path))}"
                )
        return cls._from_document(load_plain(file), str(file))

    @classmethod
    def _from_document(cls, document: Any, source: str) -> TrainedModel:
        if not isinstance(document, dict) or document.get("format") != FORMAT:
            raise InputError(
                f"{source} is not a trained model of this program: give a {MODEL_FILE} or its run directory"
            )
        if document.get("version") != VERSION:
            raise InputError(f"{source} has version {document.get('version')}, this program reads version {VERSION}")
        try:
            model = cls(
                from_document(document["architecture"]),
                dict(document["state_dict"]),
                tuple(str(name) for name in document["class_names"]),
                Preprocessing.from_json(document["preprocessing"]),
                str(document["data"]),
            )
        except KeyError as error:
            raise InputError(f"{source} is incomplete: it has no {error.args[0]}") from error
        except (TypeError, ValueError, AttributeError) as error:  # InputError among them
            raise InputError(f"{source} is not a valid trained model: {error}") from error
        if len(model.class_names) != model.architecture.num_classes:
            raise InputError(
                f"{source} names {len(model.class_names)} classes, its network has {model.architecture.num_classes}"
            )
        return model


@overload
def load(path: str | os.PathLike[str], features_only: Literal[False] = False) -> nn.Module: ...


@overload
def load(path: str | os.PathLike[str], features_only: Literal[True]) -> FeatureNetwork: ...


def load(path: str | os.PathLike[str], features_only: bool = False) -> nn.Module:
    """The trained network of a run directory or of a `model.pt`, with its weights, in eval mode, on the CPU.

    It gives logits (N, classes); with `features_only`, a feature map for each stride, without feature mix and
    classifier. Raises InputError when there is none, or when it is damaged or something else; nothing in it is run.
    """
    network = TrainedModel.load(path).network()
    if not features_only:
        return network
    if not isinstance(network, Network):
        raise InputError(
            f"{path} is a {type(network).__name__}: features_only is for networks of MBConv blocks; a StructureNetwork "
            "gives its maps by stage_features"
        )
    return FeatureNetwork(network)
