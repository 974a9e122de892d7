"""Small models with random weights, norms and running statistics, none of which is 0 or 1, and runs that hold them."""

from __future__ import annotations

import dataclasses

import torch
import yaml
from tiny import tiny_space
from torch import nn

from tfnas.bench.benchmark_cases import random_architectures
from tfnas.core.space import Stage
from tfnas.data.data_config import RetrainDataConfig
from tfnas.data.preprocessing import Preprocessing
from tfnas.nn.network import Network
from tfnas.runs.model_file import MODEL_FILE, TrainedModel

DIGITS = tuple("0123456789")


def made_model(*, size=8, class_names=DIGITS, data="digits", seed=0, scale=1.0, **of_space):
    """A model whose logits are of the order of `scale`; its normalisation is another one for each colour."""
    space = tiny_space(**{"image_size": size, "stages": (Stage(4, 1, 2, "relu"), Stage(6, 2, 2, "swish")), **of_space})
    (architecture,) = random_architectures(space, 1, len(class_names), seed)
    generator = torch.Generator().manual_seed(seed)
    network = Network(architecture)
    with torch.no_grad():
        for module in network.modules():
            if isinstance(module, nn.BatchNorm2d):
                for values in (module.weight, module.running_var):
                    values.copy_(torch.rand(values.shape, generator=generator) + 0.5)
                for values in (module.bias, module.running_mean):
                    values.copy_(torch.randn(values.shape, generator=generator) * 0.3)
            elif isinstance(module, nn.Conv2d | nn.Linear):
                fan_in = module.weight[0].numel()
                module.weight.copy_(torch.randn(module.weight.shape, generator=generator) * (2 / fan_in) ** 0.5)
                if module.bias is not None:
                    module.bias.copy_(torch.randn(module.bias.shape, generator=generator) * 0.1)
        network.classifier.linear.weight.mul_(scale)
    preprocessing = Preprocessing(size, size, (0.2, 0.3, 0.5), (0.4, 0.3, 0.2))
    return TrainedModel(architecture, network.state_dict(), class_names, preprocessing, data)


def fitted_model():
    """A model with random features whose classifier is the ridge regression to the digits' training part."""
    wide = {"stem_channels": 24, "second_stem_channels": 24, "feature_mix_channels": 192}
    model = made_model(**wide, stages=(Stage(24, 1, 1, "relu"),))
    network, features = model.network(), []
    network.classifier.linear.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
    pixels, labels = digit_pixels(part="weights")
    plain_logits(model, pixels, network)
    rows = torch.nn.functional.pad(features[0].double(), (0, 1), value=1.0)
    wanted = torch.nn.functional.one_hot(labels, len(DIGITS)).double()
    ridge = 1e-3 * rows.square().sum() / rows.shape[1] * torch.eye(rows.shape[1], dtype=torch.float64)
    solution = torch.linalg.solve(rows.T @ rows + ridge, rows.T @ wanted).T.float()
    state = dict(model.state)
    state["classifier.linear.weight"], state["classifier.linear.bias"] = (
        solution[:, :-1].clone(),
        solution[:, -1].clone(),
    )
    return dataclasses.replace(model, state=state)


def write_run(folder, model=None, **changes):
    """A finished run on the digits, as far as an export reads it; returns its model."""
    model = model or made_model(**changes)
    config = RetrainDataConfig(data="digits", image_size=model.preprocessing.image_size)
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "config.yaml").write_text(yaml.safe_dump({**dataclasses.asdict(config), "seed": 0}))
    model.save(folder / MODEL_FILE)
    return model


def plain_logits(model, pixels, network=None):
    """What the trained network gives for uint8 pixels, normalised by hand: no folding, no code of the export."""
    mean, std = (
        torch.tensor(values).view(1, 3, 1, 1) for values in (model.preprocessing.mean, model.preprocessing.std)
    )
    with torch.no_grad():
        return (network or model.network())((pixels.float() / 255 - mean) / std)


def random_pixels(count, size=8, seed=5):
    return torch.randint(
        0, 256, (count, 3, size, size), dtype=torch.uint8, generator=torch.Generator().manual_seed(seed)
    )


def digit_pixels(size=8, part="test"):
    """A part of the digits and its labels, split by the rule that the data's page states."""
    from tfnas.data.data_config import DataConfig
    from tfnas.data.opened_data import open_data

    source = getattr(open_data(DataConfig(data="digits"), image_size=size, seed=0), part).sources[0]
    return torch.stack([source.read(index) for index in range(len(source.labels))]), torch.tensor(source.labels)
