"""AZ-NAS and ZiCo against second implementations of their definitions in double precision, and closed forms."""

from __future__ import annotations

import math
from itertools import pairwise

import numpy as np
import pytest
import torch
from exact_draws import ExactDraws
from made_networks import digits_architecture
from torch import nn
from torch.nn import functional

import tfnas
from tfnas.core.errors import InputError
from tfnas.data.data_config import DataConfig
from tfnas.proxies import az_nas
from tfnas.proxies.labelled_images import labelled_images
from tfnas.proxies.score import ScoreFailed, find_score, measure, score
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork

TERMS = ("az_expressivity", "az_progressivity", "az_trainability")
STRUCTURE = "SuperConvK3BNRELU(3,4,1,1)SuperResK3K3(4,6,2,5,1)SuperResK3K3(6,6,1,4,1)SuperConvK1BNRELU(6,24,1,1)"
EXACT = {"image_size": 6, "batch_size": 2, "dtype": "float64"}


def numbers(seed, *shape):
    return torch.from_numpy(np.random.RandomState(seed).standard_normal(math.prod(shape)).reshape(shape))


# ---- AZ-NAS, written down from its definition --------------------------------------------------------------------


class PlainChain:
    """The maps of STRUCTURE, all in one graph; layer number `place` has weights of numpy seed 1000 + place."""

    def __init__(self):
        self.place = 0

    def layer(self, features, out, kernel, stride=1):
        shape = (out, features.shape[1], kernel, kernel)
        weight = numbers(1000 + self.place, *shape) * math.sqrt(2 / math.prod(shape[1:]))
        self.place += 1
        maps = functional.conv2d(features, weight, stride=stride, padding=kernel // 2)
        mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), unbiased=False, keepdim=True)
        return (maps - mean) / (variance + 1e-3).sqrt()

    def unit(self, features, middle, out, stride):
        branch = self.layer(self.layer(features, middle, 3, stride).relu(), out, 3)
        return (branch + self.layer(features, out, 1, stride)).relu()

    def maps(self, images):
        first = self.layer(images, 4, 3).relu()
        second = self.unit(first, 5, 6, 2)
        third = self.unit(second, 4, 6, 1)
        return [first, second, third, self.layer(third, 24, 1).relu()]


def plain_entropy(maps):
    columns = maps.detach().numpy().transpose(1, 0, 2, 3).reshape(maps.shape[1], -1)
    eigenvalues = np.linalg.eigvalsh(np.cov(columns, bias=True)).clip(0)
    shares = eigenvalues / eigenvalues.sum()
    return -np.sum(shares * np.log(shares + 1e-8))


def plain_trainability(before, after, signs):
    (gradient,) = torch.autograd.grad(after, before, signs, retain_graph=True)
    step = before.shape[-1] // after.shape[-1]
    # each place (row, column) under a pixel of the later map makes channels of its own
    columns = [gradient[:, :, row::step, column::step] for row in range(step) for column in range(step)]
    products = [torch.einsum("nchw,ndhw->cd", part, signs) for part in columns]
    pixels = signs.shape[0] * signs.shape[2] * signs.shape[3]
    largest = np.linalg.svd(torch.cat(products).numpy() / pixels, compute_uv=False)[0]
    return 2 - largest - 1 / (largest + 1e-6)


def plain_terms(images):
    maps = PlainChain().maps(images.clone().requires_grad_())
    entropies = [plain_entropy(found) for found in maps]
    trained = [
        plain_trainability(before, after, numbers(2000 + place, *after.shape).sign())
        for place, (before, after) in enumerate(pairwise(maps), 1)
    ]
    return dict(zip(TERMS, (sum(entropies), np.diff(entropies).min(), np.mean(trained)), strict=True))


@pytest.mark.parametrize("term", TERMS)
def test_az_nas_of_noise(term):
    """The third map has fewer channels than pixels, the last one more."""
    expected = plain_terms(numbers(1, 2, 3, 6, 6))[term]
    assert math.isclose(score(term, STRUCTURE, generator=ExactDraws(), **EXACT), expected, rel_tol=1e-9)


@pytest.mark.parametrize("term", TERMS)
def test_az_nas_of_images(term):
    images = numbers(9, 3, 3, 6, 6).abs()
    value = score(term, STRUCTURE, images=images, generator=ExactDraws(), dtype="float64")
    assert math.isclose(value, plain_terms(images)[term], rel_tol=1e-9)


@pytest.mark.parametrize("term", TERMS)
def test_single_precision_is_close(term):
    values = [score(term, digits_architecture(), batch_size=4, dtype=dtype) for dtype in ("float32", "float64")]
    assert math.isclose(*values, rel_tol=1e-3)


def test_maps_of_an_architecture():
    """Both stems, every block and the last convolution."""
    architecture = digits_architecture()
    parts = az_nas._parts(tfnas.Network(architecture), ScoredNetwork.of(architecture))
    assert [type(part).__name__ for part in parts] == ["ConvBNAct"] + ["MBConv"] * 6 + ["ConvBNAct"]


def test_all_terms_take_one_pass(monkeypatch):
    passes = []
    once = az_nas._measure
    monkeypatch.setattr(az_nas, "_measure", lambda *given: passes.append(given) or once(*given))
    scored, options = ScoredNetwork.of(STRUCTURE), ScoreOptions(image_size=6, batch_size=2)
    together = [measure(find_score(term), scored, options) for term in TERMS]
    assert len(passes) == 1
    assert together == [score(term, STRUCTURE, image_size=6, batch_size=2) for term in TERMS]
    assert measure(find_score(TERMS[0]), scored, ScoreOptions(image_size=6, batch_size=3)) != together[0]


def test_entropy_of_equal_variances():
    """Orthogonal columns have equal shares; of three orthogonal rows, two directions are left without the mean."""
    rows = torch.tensor([[1, 1, 1], [1, -1, -1], [-1, 1, -1], [-1, -1, 1]], dtype=torch.float64)
    for factor in (1, 5):
        for matrix, expected in ((rows, -math.log(1 / 3 + 1e-8)), (rows.T, -math.log(1 / 2 + 1e-8))):
            assert math.isclose(az_nas._entropy(factor * matrix + 7, as_program=False), expected, rel_tol=1e-12)


def test_trainability_of_gains_that_are_known():
    before = torch.randn(3, 1, 4, 4, dtype=torch.float64, requires_grad=True)
    for factor in (0.5, 2.0):  # one channel: signs times themselves are 1 everywhere
        value = az_nas._trainability(before, factor * before, ExactDraws())
        assert math.isclose(value, 2 - factor - 1 / (factor + 1e-6), rel_tol=1e-12)
    assert az_nas._trainability(before, before * 1, ExactDraws()) == -math.inf
    summed = functional.avg_pool2d(before, 2, divisor_override=1)  # four equal channels of ones: sqrt(4)
    assert math.isclose(az_nas._trainability(before, summed, ExactDraws()), 2 - 2 - 1 / (2 + 1e-6), rel_tol=1e-12)


def test_gradients_of_odd_sizes_are_padded():
    gradient = torch.arange(9.0).reshape(1, 1, 3, 3)
    found = az_nas._under_pixels(gradient, torch.zeros(1, 1, 2, 2))
    assert found.tolist() == [[[[0, 2], [6, 8]], [[1, 0], [7, 0]], [[3, 5], [0, 0]], [[4, 0], [0, 0]]]]


def test_the_programs_maps_of_a_network_without_shortcuts():
    """Every third, then the last one: twice the same where their number is 1 modulo 3."""
    assert [len(section) for section in az_nas._sections([nn.Identity()] * 6, True)] == [1, 3, 2]
    assert [len(section) for section in az_nas._sections([nn.Identity()] * 7, True)] == [1, 3, 3, 0]
    with pytest.raises(ScoreFailed, match="-inf"):  # four maps
        score("az_trainability", STRUCTURE, image_size=6, variant="aznas", residuals=False)
    assert math.isfinite(score("az_trainability", STRUCTURE, image_size=6, residuals=False))
    assert math.isfinite(score("az_trainability", STRUCTURE, image_size=6, variant="aznas"))


def test_complexity():
    assert score("az_complexity", STRUCTURE) == score("flops", STRUCTURE)
    counted = score("flops", STRUCTURE, variant="zennas", residuals=True)
    assert score("az_complexity", STRUCTURE, variant="aznas") == counted
    with pytest.raises(InputError, match=r"az_complexity \(variant aznas\) needs a ZenNAS structure"):
        score("az_complexity", digits_architecture(), variant="aznas")


def test_networks_without_az_terms():
    with pytest.raises(InputError, match="need an architecture or a structure, and got a module"):
        score("az_expressivity", nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()), image_size=8)
    with pytest.raises(InputError, match="has only one"):
        score("az_trainability", "SuperConvK3BNRELU(3,4,1,1)", image_size=8)


# ---- ranks ----------------------------------------------------------------------------------------------------------


def test_ranks_are_combined_from_the_worst():
    combined = tfnas.combine_ranks({"a": [0.5, 9.0, 2.0], "b": [-1, -3, -3]})
    expected = [math.log(1 / 3) + math.log(3 / 3), math.log(3 / 3) + math.log(1.5 / 3), math.log(2 / 3 * 1.5 / 3)]
    np.testing.assert_allclose(combined, expected, rtol=1e-12)
    np.testing.assert_allclose(tfnas.combine_ranks({"a": [-math.inf, 3, math.inf]}), np.log([1 / 3, 2 / 3, 1]))
    assert tfnas.combine_ranks({"a": [4.0], "b": [1.0]}).tolist() == [0.0]
    assert tfnas.combine_ranks({"a": []}).tolist() == []


def test_one_bad_rank_costs_more_than_one_good_rank_gains():
    even, uneven = tfnas.combine_ranks({"a": [3, 5, 1, 4, 2], "b": [3, 1, 5, 2, 4]})[:2]
    assert even > uneven  # third of five twice, against first and last


def test_terms_that_cannot_be_combined():
    for terms, message in (
        ({}, "no terms to combine"),
        ({"a": [1, 2], "b": [1]}, "term b has 1 numbers, a has 2"),
        ({"a": [1, float("nan")]}, r"term a has no number \(nan\) for network 1"),
    ):
        with pytest.raises(InputError, match=message):
            tfnas.combine_ranks(terms)


# ---- ZiCo -----------------------------------------------------------------------------------------------------------

LABELS = torch.tensor([0, 1, 2, 3, 1, 0])


def plain_zico(gradients):
    """Of (batches, ...) gradients of each layer, by the formula."""
    total = 0.0
    for layer in gradients:
        means, deviations = np.abs(layer).mean(0), layer.std(0)
        inner = sum(m / s for m, s in zip(means.flat, deviations.flat, strict=True) if s != 0)
        total += math.log(inner) if inner else 0.0
    return total


def test_zico_of_a_linear_classifier():
    """Its gradient is (probabilities - one-hot)^T images / batch."""
    images = numbers(4, 6, 3, 2, 2)
    network = nn.Sequential(nn.Flatten(), nn.Linear(12, 4))
    settings = {"labels": LABELS, "dtype": "float64", "initialisation": "normal", "generator": ExactDraws()}
    flat, weight = images.flatten(1), numbers(1000, 4, 12)
    errors = (flat @ weight.T).softmax(1) - functional.one_hot(LABELS, 4)
    batches = [errors[part].T @ flat[part] / 3 for part in (slice(0, 3), slice(3, 6))]
    expected = plain_zico([torch.stack(batches).numpy()])
    assert math.isclose(score("zico", network, images=images, **settings), expected, rel_tol=1e-9)


class Convolutional(nn.Module):
    """With a layer that nothing passes through, and one whose gradient is always zero."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv2d(3, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.linear = nn.Linear(4, 4)
        self.unused = nn.Linear(7, 7)
        self.silent = nn.Linear(4, 4, bias=False)

    def forward(self, images):
        pooled = self.norm(self.conv(images)).relu().mean((2, 3))
        return self.linear(pooled) + self.silent(0 * pooled)


def test_zico_of_a_network_with_layers_without_gradients():
    images, losses = numbers(4, 6, 3, 5, 5), []
    weights = [numbers(1000, 4, 3, 3, 3).requires_grad_(), numbers(1001, 4, 4).requires_grad_()]
    for part in (slice(0, 3), slice(3, 6)):
        maps = functional.conv2d(images[part], weights[0], padding=1)
        mean, variance = maps.mean((0, 2, 3), keepdim=True), maps.var((0, 2, 3), unbiased=False, keepdim=True)
        pooled = ((maps - mean) / (variance + 1e-5).sqrt()).relu().mean((2, 3))
        losses.append(functional.cross_entropy(pooled @ weights[1].T, LABELS[part]))
    gradients = [torch.autograd.grad(loss, weights) for loss in losses]
    expected = plain_zico([torch.stack(layer).numpy() for layer in zip(*gradients, strict=True)])
    settings = {"dtype": "float64", "initialisation": "normal", "generator": ExactDraws()}
    value = score("zico", Convolutional(), images=images, labels=LABELS, **settings)
    assert math.isclose(value, expected, rel_tol=1e-7)


def test_zico_starts_from_pytorchs_initialisation():
    images = numbers(4, 6, 3, 5, 5)
    settings = {"images": images, "labels": LABELS, "dtype": "float64"}
    values = [score("zico", Convolutional(), initialisation=rule, **settings) for rule in (None, "torch", "kaiming")]
    assert values[0] == values[1] != values[2]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "needs real images and their labels, two batches in one: give images and labels"),
        ({"images": torch.zeros(4, 3, 16, 16)}, "give labels"),
        ({"labels": LABELS}, "give images"),
        ({"images": torch.zeros(5, 3, 16, 16), "labels": LABELS[:5]}, "an even number, got 5"),
        ({"images": torch.zeros(2, 3, 16, 16), "labels": LABELS[:2]}, "give 4 images or more"),
        ({"images": torch.zeros(4, 3, 16, 16), "labels": LABELS}, r"4 images need 4 labels, got shape \(6,\)"),
        ({"images": torch.rand(4, 3, 16, 16), "labels": LABELS[:4] + 10}, "labels must be"),
        ({"images": torch.ones(4, 3, 16, 16), "labels": LABELS[:4] * 0}, "no convolution or linear layer of"),
    ],
)
def test_images_that_zico_cannot_take(given, message):
    with pytest.raises(InputError, match=message):
        score("zico", digits_architecture(), **given)


def test_images_of_the_data():
    data = DataConfig(data="digits")
    images, labels = labelled_images(data, 8, 12, 3)
    assert images.shape == (12, 3, 8, 8) and labels.shape == (12,)
    assert images.dtype == torch.float32 and abs(float(images.mean())) < 1
    assert not torch.equal(images, labelled_images(data, 8, 12, 4)[0])
    assert torch.equal(images, labelled_images(data, 8, 12, 3)[0])
    with pytest.raises(InputError, match=r"has \d+ images to train weights on, and 100000 are needed"):
        labelled_images(data, 8, 100000, 3)
