"""The oracle values of `shared_data`, and the rule by which the weights behind them were made (its README says it)."""

from __future__ import annotations

import json
import math

import numpy as np
import torch
from torch.nn import functional

import tfnas
from tfnas.supernet.supernet import Supernet

CLASSES_OF_SUPERNET = 100


def values(shared_data):
    """The whole document."""
    return json.loads((shared_data / "oracles" / "tfnas.json").read_text())


def architecture_of(net):
    """The architecture that an entry of `nets` describes."""
    space = tfnas.space("imagenet")
    operations, widths = [], []
    for place in space.blocks:
        stage, block = f"stage{place.stage + 1}", f"block{place.position + 1}"
        operations.append(net["arch"][stage].get(block, 0))
        widths.append(net["widths"][stage].get(block, 0))
    depths = [len(net["arch"][f"stage{number}"]) for number in range(1, 7)]
    return space.architecture(operations, depths, widths, num_classes=1000)


def images(size):
    """The two images, float64."""
    return torch.from_numpy(np.random.RandomState(1).standard_normal((2, 3, size, size)))


def drawn(rank, shape):
    """Normal numbers for the entry at place `rank` of the sorted names."""
    return np.random.RandomState(1000 + rank).standard_normal(math.prod(shape)).reshape(tuple(shape))


def scaled(name, numbers):
    """The numbers as the weight of that name."""
    if name.endswith("running_var"):
        return 1 + 0.1 * np.abs(numbers)
    if name.endswith("bn.weight"):
        return 1 + 0.1 * numbers
    fan = math.prod(numbers.shape[1:]) if numbers.ndim > 1 else 100
    return numbers / math.sqrt(fan)


def fill_network(network):
    """Overwrite the state of a Network."""
    state = network.state_dict()
    for rank, name in enumerate(sorted(state)):
        if not name.endswith("num_batches_tracked"):
            state[name].copy_(torch.from_numpy(scaled(name, drawn(rank, state[name].shape))))


def fill_supernet(supernet):
    """Overwrite the weights of a supernet whose largest width is the initial one."""
    state = supernet.state_dict()
    for rank, name in enumerate(_search_names(supernet)):
        if name in state:
            state[name].copy_(torch.from_numpy(scaled(name, drawn(rank, state[name].shape))))


def search_parameters(alpha_scale):
    """`log_alphas` (18, 8) and the betas of each stage, float64."""
    space = tfnas.space("imagenet")
    with torch.device("meta"):  # only the names matter
        names = _search_names(Supernet(space, CLASSES_OF_SUPERNET))

    def log_probabilities(name, count):
        return torch.from_numpy(alpha_scale * drawn(names.index(name), (count,))).log_softmax(0)

    log_alphas = [log_probabilities(f"{place.name}.log_alphas", 8) for place in space.blocks]
    betas = [log_probabilities(f"stage{n}.betas", len(c)) for n, c in enumerate(space.depth_choices, 1)]
    return torch.stack(log_alphas), betas


def _search_names(supernet):
    """Names of the authors' search checkpoint: the weights', and the architecture parameters'."""
    alphas = [f"{place.name}.log_alphas" for place in supernet.space.blocks]
    betas = [f"stage{number}.betas" for number in range(1, len(supernet.stages) + 1)]
    return sorted([*supernet.state_dict(), *alphas, *betas])


_library_conv2d = functional.conv2d


def conv2d(features, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
    """`functional.conv2d`, but depthwise ones as a sum of shifted images.

    In double precision the library computes these channel by channel, which takes minutes here.
    """
    if not 1 < groups == weight.shape[0]:
        return _library_conv2d(features, weight, bias, stride, padding, dilation, groups)
    assert bias is None
    step, rim, size = (pair if isinstance(pair, int) else pair[0] for pair in (stride, padding, weight.shape[2:]))
    padded = functional.pad(features, (rim,) * 4)
    height, width = ((extent - size) // step + 1 for extent in padded.shape[2:])
    total = features.new_zeros(*features.shape[:2], height, width)
    for i in range(size):
        for j in range(size):
            window = padded[:, :, i : i + step * height : step, j : j + step * width : step]
            total.addcmul_(window, weight[:, 0, i, j, None, None])
    return total
