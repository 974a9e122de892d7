"""Scores of small modules against second implementations of their definitions."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from exact_draws import ExactDraws
from scipy import special
from torch import nn
from torch.nn import functional

from tfnas.proxies.score import score

SIZE = {"image_size": 6, "batch_size": 5}


def numbers(seed, *shape):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(math.prod(shape)).reshape(shape))


def chain():
    return nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, bias=False),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 7, 3, stride=2, padding=1, bias=False),
        nn.BatchNorm2d(7),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(7, 3),
    )


def normalised(features, epsilon=1e-5):
    """A batch-normed map, and the log of the mean standard deviation that was taken away (n - 1 in the variance)."""
    mean, variance = features.mean((0, 2, 3), keepdim=True), features.var((0, 2, 3), unbiased=False, keepdim=True)
    return (features - mean) / (variance + epsilon).sqrt(), 0.5 * math.log(features.var((0, 2, 3)).mean())


def passed(images):
    """The last feature map of `chain` with exact weights, and its scales."""
    first, one = normalised(functional.conv2d(images, numbers(1000, 4, 3, 3, 3), padding=1))
    second, two = normalised(functional.conv2d(first.relu(), numbers(1001, 7, 4, 3, 3), stride=2, padding=1))
    return second.relu(), one + two


def test_zen():
    images, noise = numbers(1, 5, 3, 6, 6), numbers(2, 5, 3, 6, 6)
    (maps, scales), (changed, _) = passed(images), passed(images + 0.01 * noise)
    reaction = np.mean([np.linalg.norm(difference) for difference in (maps - changed).flatten(1).numpy()])
    value = score("zen", chain(), generator=ExactDraws(), dtype="float64", **SIZE)
    assert math.isclose(value, math.log(reaction) + scales, rel_tol=1e-10)


def test_zen_averages_over_repeats_that_do_not_drift():
    values = [score("zen", chain(), seed=seed, **SIZE) for seed in range(6)]
    mean = score("zen", chain(), repeats=40, **SIZE)
    assert abs(mean - np.mean(values)) < 3 * np.std(values)


def test_naswot():
    first, _ = normalised(functional.conv2d(numbers(1, 5, 3, 6, 6), numbers(1000, 4, 3, 3, 3), padding=1))
    second, _ = normalised(functional.conv2d(first.relu(), numbers(1001, 7, 4, 3, 3), stride=2, padding=1))
    codes = torch.cat([first.flatten(1) > 0, second.flatten(1) > 0], 1).numpy()
    kernel = np.array([[np.sum(one == other) for other in codes] for one in codes], dtype=float)
    value = score("naswot", chain(), generator=ExactDraws(), initialisation="normal", dtype="float64", **SIZE)
    assert math.isclose(value, np.linalg.slogdet(kernel)[1], rel_tol=1e-12)


def test_naswot_of_given_images():
    images = numbers(9, 5, 3, 6, 6).float()
    values = [score("naswot", chain(), images=images, seed=seed) for seed in (0, 1)]
    assert values[0] == score("naswot", chain(), images=4 * images, seed=0)  # batch norm takes the scale away
    assert values[0] != values[1]
    assert values[0] != score("naswot", chain(), **SIZE)


def test_synflow_of_a_linear_chain():
    """Every path of positive weights carries the same flow through each layer, so the score is ln(layers * y)."""
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 5), nn.ReLU(), nn.Linear(5, 4), nn.ReLU(), nn.Linear(4, 2))
    flow = torch.ones(12, dtype=torch.float64)
    for place, shape in enumerate([(5, 12), (4, 5), (2, 4)]):
        flow = numbers(1000 + place, *shape).abs() @ flow
    value = score("synflow", network, image_size=2, generator=ExactDraws(), initialisation="normal")
    assert math.isclose(value, math.log(3 * flow.sum()), rel_tol=1e-12)


def test_synflow_leaves_batch_norm_out():
    plain = nn.Sequential(nn.Conv2d(3, 4, 3, bias=False), nn.ReLU(), nn.Conv2d(4, 2, 3, bias=False))
    normed = nn.Sequential(plain[0], nn.BatchNorm2d(4), plain[1], plain[2], nn.BatchNorm2d(2))
    assert score("synflow", plain, **SIZE) == score("synflow", normed, **SIZE)
    assert isinstance(normed[1], nn.BatchNorm2d)


def test_synflow_of_a_very_deep_network_is_finite_in_the_logarithm():
    deep = nn.Sequential(*[nn.Conv2d(3 if place == 0 else 64, 64, 3, padding=1, bias=False) for place in range(60)])
    assert 100 < score("synflow", deep, image_size=2) < 700


def linear_gradient():
    """Images, probabilities less one-hot labels, of a linear classifier with exact weights."""
    images = numbers(1, 5, 12)
    scores = (images @ numbers(1000, 4, 12).T).numpy()
    labels = np.random.RandomState(7).randint(0, 4, size=[5])
    return images.numpy(), special.softmax(scores, axis=1) - np.eye(4)[labels]


def test_grad_norm_of_a_linear_classifier():
    images, errors = linear_gradient()
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    settings = {"image_size": 2, "batch_size": 5, "initialisation": "normal", "dtype": "float64"}
    weight, bias = errors.T @ images / 5, errors.mean(0)
    value = score("grad_norm", network, generator=ExactDraws(), **settings)
    assert math.isclose(value, np.linalg.norm(weight), rel_tol=1e-10)
    value = score("grad_norm", network, generator=ExactDraws(), variant="zennas", **settings)
    assert math.isclose(value, math.sqrt((weight**2).sum() + (bias**2).sum()), rel_tol=1e-10)


def test_grad_norm_takes_images_and_labels():
    images, labels = numbers(4, 6, 3, 2, 2), torch.tensor([0, 1, 2, 3, 0, 1])
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    value = score("grad_norm", network, images=images, labels=labels, dtype="float64", generator=ExactDraws())
    weight = numbers(1000, 4, 12) * math.sqrt(2 / 12)
    flat = images.flatten(1)
    errors = (flat @ weight.T).softmax(1) - functional.one_hot(labels, 4)
    assert math.isclose(value, float((errors.T @ flat / 6).norm()), rel_tol=1e-10)


def test_condition_of_a_linear_classifiers_kernel():
    """d(sum of logits)/dw is the image itself for each class, so the kernel is that of the images."""
    images = numbers(1, 5, 12).numpy()
    eigenvalues = np.linalg.eigvalsh(images @ images.T)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    settings = {"image_size": 2, "batch_size": 5, "dtype": "float64", "generator": ExactDraws()}
    expected = -eigenvalues[-1] / eigenvalues[0]
    assert math.isclose(score("te_nas", network, variant="ntk", **settings), expected, rel_tol=1e-9)


@pytest.mark.parametrize("width", [1, 2, 4])
def test_linear_regions(width):
    """One layer of few neurons on 27 inputs cuts space into 2^neurons regions, all of which 1000 images find."""
    network = nn.Sequential(nn.Conv2d(3, width, 3, bias=False), nn.ReLU(), nn.Flatten())
    assert score("te_nas", network, variant="linear_regions", seed=width, image_size=3) == 2**width


def test_te_nas_joins_both():
    network = nn.Sequential(nn.Conv2d(3, 3, 3, bias=False), nn.ReLU(), nn.Flatten(), nn.Linear(3, 2))
    settings = {"image_size": 3, "batch_size": 4, "dtype": "float64"}
    kappa, regions = (score("te_nas", network, variant=name, **settings) for name in ("ntk", "linear_regions"))
    assert math.isclose(score("te_nas", network, **settings), math.log(regions) - math.log(-kappa), rel_tol=1e-9)
