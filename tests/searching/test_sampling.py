from __future__ import annotations

import itertools
import math
from collections import Counter

import pytest
import torch
from torch.nn import functional

from tfnas.searching.differentiable.architecture_parameters import (
    gumbel_noise,
    sample_mixture_weights,
    sample_other_path,
    sample_path,
    sample_paths,
)
from tfnas.supernet.supernet import Path

DRAWS = 8000


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def chi_square(counts, expected):
    """Pearson's statistic; with k outcomes it exceeds (k - 1) + 5 * sqrt(2 * (k - 1)) practically never."""
    return sum((count - mean) ** 2 / mean for count, mean in zip(counts, expected, strict=True))


def bound(outcomes):
    return outcomes - 1 + 5 * math.sqrt(2 * (outcomes - 1))


def test_paths_of_a_step_end_at_depths_drawn_uniformly():
    choices = ((0, 1), (1, 2, 3))
    log_alphas = torch.zeros(4, 3).log_softmax(1)
    generator = seeded()
    drawn = Counter(path.depths for _ in range(2000) for path in sample_paths(log_alphas, 2, generator, choices))
    assert set(drawn) == set(itertools.product(*choices))
    assert all(abs(count - 4000 / 6) < 4 * math.sqrt(4000 / 6) for count in drawn.values())


def test_without_sampled_depths_paths_are_the_papers():
    log_alphas = torch.zeros(4, 3).log_softmax(1)
    first, second = sample_paths(log_alphas, 2, seeded(1))
    generator = seeded(1)
    assert first == sample_path(log_alphas, generator)
    assert second == sample_other_path(first, 3, generator)
    assert sample_paths(log_alphas, 1, seeded(1)) == [first]


def test_gumbel_noise_has_the_moments_of_the_distribution(float64):
    noise = gumbel_noise(torch.empty(200_000), seeded())
    assert noise.mean().item() == pytest.approx(0.5772156649, abs=0.015)
    assert noise.var().item() == pytest.approx(math.pi**2 / 6, rel=0.03)
    for point in (-1.0, 0.0, 1.0, 3.0):  # the distribution function
        below = (noise < point).double().mean().item()
        assert below == pytest.approx(math.exp(-math.exp(-point)), abs=0.006)


def test_noise_is_finite_in_single_precision_and_of_the_type_asked_for():
    noise = gumbel_noise(torch.empty(1_000_000, dtype=torch.float32), seeded())
    assert noise.dtype == torch.float32
    assert torch.isfinite(noise).all()


def test_path_1_takes_operations_as_often_as_their_alphas_say():
    probabilities = torch.tensor([0.4, 0.25, 0.15, 0.1, 0.04, 0.03, 0.02, 0.01])
    path = sample_path(probabilities.log().expand(DRAWS, 8), seeded())
    counts = torch.bincount(torch.tensor(path.operations), minlength=8).tolist()
    assert chi_square(counts, (DRAWS * probabilities).tolist()) < bound(8)


def test_path_1_does_not_depend_on_an_added_constant():
    log_alphas = torch.randn(20, 8, generator=seeded(3))
    assert sample_path(log_alphas, seeded()) == sample_path(log_alphas + 7, seeded())


@pytest.mark.parametrize("taken", range(8))
def test_path_2_is_uniform_over_the_other_seven(taken):
    other = sample_other_path(Path((taken,) * DRAWS), 8, seeded(taken))
    counts = torch.bincount(torch.tensor(other.operations), minlength=8).tolist()
    assert counts.pop(taken) == 0
    assert chi_square(counts, [DRAWS / 7] * 7) < bound(7)


def test_path_2_draws_blocks_independently():
    other = torch.tensor(sample_other_path(Path((0,) * DRAWS), 8, seeded()).operations)
    pairs = torch.bincount(7 * (other[0::2] - 1) + other[1::2] - 1, minlength=49).tolist()
    assert chi_square(pairs, [DRAWS / 2 / 49] * 49) < bound(49)


def test_path_2_never_meets_path_1_in_a_block():
    generator, log_alphas = seeded(), torch.randn(500, 3, generator=seeded(1))
    for _ in range(20):
        first = sample_path(log_alphas, generator)
        second = sample_other_path(first, 3, generator)
        assert all(one != two for one, two in zip(first.operations, second.operations, strict=True))


def test_without_a_choice_both_paths_are_the_same():
    assert sample_other_path(Path((0, 0)), 1, seeded()) == Path((0, 0))


def test_mixture_weights_are_the_softmax_of_perturbed_log_alphas(float64):
    log_alphas = torch.randn(6, 8, generator=seeded(1)).requires_grad_()
    weights = sample_mixture_weights(log_alphas, 2.5, seeded(9))
    noise = gumbel_noise(log_alphas, seeded(9))
    scores = torch.exp((log_alphas + noise) / 2.5)
    torch.testing.assert_close(weights, scores / scores.sum(1, keepdim=True))
    probe = torch.randn(6, 8, generator=seeded(2))
    (weights * probe).sum().backward()
    w = weights.detach()  # derivative of a softmax, written out
    expected = (w * probe - w * (w * probe).sum(1, keepdim=True)) / 2.5
    torch.testing.assert_close(log_alphas.grad, expected)


def test_a_low_temperature_gives_the_sampled_path():
    log_alphas = torch.randn(50, 8, generator=seeded(1))
    cold = sample_mixture_weights(log_alphas, 1e-4, seeded(5))
    path = sample_path(log_alphas, seeded(5))
    one_hot = functional.one_hot(torch.tensor(path.operations), 8).float()
    torch.testing.assert_close(cold, one_hot, rtol=0, atol=1e-3)


def test_noise_comes_from_the_generator_alone():
    before, log_alphas = torch.get_rng_state(), torch.zeros(10, 8)
    draws = [sample_path(log_alphas, seeded(4)) for _ in range(2)]
    others = [sample_other_path(draws[0], 8, seeded(4)) for _ in range(2)]
    weights = [sample_mixture_weights(log_alphas, 1.0, seeded(4)) for _ in range(2)]
    assert draws[0] == draws[1]
    assert others[0] == others[1]
    assert torch.equal(weights[0], weights[1])
    assert torch.equal(before, torch.get_rng_state())
