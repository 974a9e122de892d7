"""The trained network that a command is given: a run's, or an architecture with weights of a file; and its images."""

from __future__ import annotations

import dataclasses
import os
import warnings
from dataclasses import dataclass
from pathlib import Path

from torch import Tensor, nn

from tfnas.core.errors import InputError
from tfnas.data.data_config import RetrainDataConfig
from tfnas.data.preprocessing import Preprocessing
from tfnas.data.retrain_data import RetrainData, data_of_training, open_retrain_data
from tfnas.nn.weights import WeightsWarning, find_state, load_weights
from tfnas.runs.architecture_source import named_source, path_source
from tfnas.runs.model_file import FORMAT, MODEL_FILE, TrainedModel
from tfnas.runs.named_network import NamesNetwork, named_flags
from tfnas.runs.run_directory import CONFIG_FILE, read_config
from tfnas.spaces.families import build_network
from tfnas.spaces.zen.structure_network import StructureNetwork
from tfnas.utils.tensor_file import load_plain


def enclosing_run(path: Path) -> Path | None:
    """The run directory that a path names, or that a file lies in; None where there is none."""
    folder = path if os.path.isdir(path) else path.parent  # noqa: PTH112 - answers "no" where Path.is_dir raises
    return folder if os.path.isfile(folder / CONFIG_FILE) else None  # noqa: PTH113


def run_images(run_dir: Path) -> RetrainData:
    """The images of a training run, opened as it had them. Raises InputError when it is none, or they are gone."""
    saved = read_config(run_dir)
    config, seed = data_of_training(saved, str(run_dir)), saved.get("seed")
    assert config.image_size is not None
    return open_retrain_data(config, image_size=config.image_size, seed=seed if isinstance(seed, int) else 0)


def bundled_images(class_names: tuple[str, ...], image_size: int) -> RetrainData:
    """The bundled digits, for a model that was trained on them and has left its run.

    Their classes are called as the model calls them, if it has as many.
    """
    digits = open_retrain_data(RetrainDataConfig(data="digits"), image_size=image_size, seed=0)
    same = len(class_names) == digits.num_classes
    return dataclasses.replace(digits, class_names=class_names) if same else digits


_CLASSIFIER_BIASES = ("classifier.linear.bias", "classifier.bias", "fc_linear.netblock.bias", "fc_linear.bias")
"""Of networks of MBConv blocks, of structures, and of structures as ZenNAS and TinyNAS publish them."""
_PUBLISHED = ("module_list.", "block_list.", "fc_linear.")
"""How the names begin that ZenNAS and TinyNAS give."""


@dataclass(frozen=True, eq=False)
class NamedModel:
    """A trained network, what messages call it, and where its weights lie.

    `says_pictures` is whether the weights came with class names and preprocessing; else these are ImageNet's
    preprocessing and the numbers of the classes.
    """

    model: TrainedModel
    words: str
    place: Path
    says_pictures: bool = True


def open_named_model(named: NamesNetwork, weights: str | None) -> NamedModel:
    """The network that a configuration names, with its weights, or with those in the file `weights`.

    Raises InputError when a file is missing or damaged, or when weights are of another architecture (naming the layer
    and both shapes).
    """
    if weights is None:
        assert named.model_path is not None
        return NamedModel(TrainedModel.load(named.model_path), named.model_path, Path(named.model_path))
    if named.model_path is not None:
        _check_without_weights(Path(named.model_path))
    architecture, file = named_source(named).architecture, Path(weights)
    document = load_plain(file)
    is_model = isinstance(document, dict) and document.get("format") == FORMAT
    if is_model:
        saved = TrainedModel.load(file)
        names, preprocessing, data = saved.class_names, saved.preprocessing, saved.data
    else:
        count = _bias_size(document) or architecture.num_classes
        names = tuple(str(label) for label in range(count))
        preprocessing, data = Preprocessing.of("list", architecture.image_size), "list"
    network = build_network(architecture, num_classes=len(names))
    load_named_weights(network, file)
    architecture = architecture.adapted(image_size=preprocessing.image_size, num_classes=len(names))
    model = TrainedModel(architecture, network.state_dict(), names, preprocessing, data)
    (name,) = named_flags(named).values()
    words = f"{weights} in {name}"
    if not is_model:
        words += "; the weights do not record the image normalisation; using ImageNet's"
    return NamedModel(model, words, file, is_model)


def load_named_weights(network: nn.Module, path: Path) -> None:
    """Give a network the weights in a file: ours, the TF-NAS authors', or as ZenNAS and TinyNAS publish them.

    Raises InputError naming the first layer that does not fit; the network is then unchanged.
    """
    if isinstance(network, StructureNetwork) and _is_published(load_plain(path)):
        network.load_published(path)
    else:
        load_weights(network, path)


def _check_without_weights(path: Path) -> None:
    """Raise InputError where a path has weights of its own."""
    try:
        has_weights = (path / MODEL_FILE).exists() or path.name == MODEL_FILE
    except OSError:  # too long a name, a folder that may not be entered: reading it says so
        path_source(path)
        return
    if has_weights:
        raise InputError(
            f"--model_path {path} already says network and weights: leave out --weights, or name the network alone by "
            "--config_path (its model.config or architecture.json)"
        )


def _quiet_state(document: object) -> dict[str, object]:
    """The state dict in what a file holds; empty where there is none, which loading will say."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", WeightsWarning)  # loading gives it
            return find_state(document, "the file")
    except InputError:
        return {}


def _is_published(document: object) -> bool:
    return any(name.startswith(_PUBLISHED) for name in _quiet_state(document))


def _bias_size(document: object) -> int | None:
    """The number of classes that weights are for; None where they have no usable classifier, which loading will say."""
    state = _quiet_state(document)
    bias = next((state[name] for name in _CLASSIFIER_BIASES if name in state), None)
    return len(bias) if isinstance(bias, Tensor) and bias.dim() == 1 and len(bias) > 0 else None
