from __future__ import annotations

import copy

import pytest
import torch

from tfnas.searching.differentiable.optimizers import Adam, ElasticSGD
from tfnas.supernet.cpu import CpuKernels
from tfnas.supernet.elastic import ActiveSlice

SETTINGS = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


@pytest.fixture(params=["one by one", "at once"])
def each_way(request):
    """Parameters updated one by one, and together as on a GPU."""
    if request.param == "at once":
        request.getfixturevalue("as_on_a_gpu")


def random_tensors(seed=0):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(shape, generator=generator) for shape in [(6, 3, 1, 1), (4, 6), (6,)]]


def give_gradients(parameters, seed):
    for parameter, gradient in zip(parameters, random_tensors(seed), strict=True):
        parameter.grad = gradient


def test_it_is_sgd_when_everything_is_active(float64, each_way):
    ours = [torch.nn.Parameter(tensor) for tensor in random_tensors()]
    theirs = [torch.nn.Parameter(tensor) for tensor in random_tensors()]
    elastic, plain = ElasticSGD(ours, dict, **SETTINGS), torch.optim.SGD(theirs, **SETTINGS)
    for seed in range(1, 6):
        give_gradients(ours, seed)
        give_gradients(theirs, seed)
        elastic.step()
        plain.step()
    for one, other in zip(ours, theirs, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-12, atol=1e-14)


def test_active_entries_move_as_in_sgd_and_the_others_not_at_all(float64, each_way):
    ours = [torch.nn.Parameter(tensor) for tensor in random_tensors()]
    active, resting = torch.tensor([1, 2, 5]), torch.tensor([0, 3, 4])
    rows = {ours[0]: ActiveSlice(0, active), ours[1]: ActiveSlice(1, active), ours[2]: ActiveSlice(0, active)}
    start = random_tensors()
    dims = [0, 1, 0]
    small = [torch.nn.Parameter(t.index_select(d, active)) for t, d in zip(start, dims, strict=True)]
    elastic, plain = ElasticSGD(ours, lambda: rows, **SETTINGS), torch.optim.SGD(small, **SETTINGS)
    for seed in range(1, 5):
        give_gradients(ours, seed)
        for parameter, gradient, dim in zip(small, random_tensors(seed), dims, strict=True):
            parameter.grad = gradient.index_select(dim, active)
        elastic.step()
        plain.step()
    for parameter, before, expected, dim in zip(ours, start, small, dims, strict=True):
        torch.testing.assert_close(parameter.index_select(dim, active), expected, rtol=1e-12, atol=1e-14)
        assert torch.equal(parameter.index_select(dim, resting), before.index_select(dim, resting))
        momentum = elastic.state[parameter]["momentum_buffer"]
        assert not momentum.index_select(dim, resting).any()
        assert momentum.index_select(dim, active).all()


def test_momentum_survives_a_change_of_width(float64, each_way):
    parameter = torch.nn.Parameter(torch.zeros(3))
    rows = {}
    optimizer = ElasticSGD([parameter], lambda: rows, lr=1.0, momentum=0.5, weight_decay=0.0)

    def step(*gradient):
        parameter.grad = torch.tensor(gradient)
        optimizer.step()
        return parameter.tolist()

    assert step(1.0, 1.0, 1.0) == [-1, -1, -1]
    rows[parameter] = ActiveSlice(0, torch.tensor([0, 2]))
    assert step(1.0, 0.0, 1.0) == [-2.5, -1, -2.5]  # momentum 1.5
    assert optimizer.state[parameter]["momentum_buffer"].tolist() == [1.5, 1, 1.5]
    rows[parameter] = ActiveSlice(0, torch.tensor([0, 1]))
    assert step(1.0, 1.0, 0.0) == [-4.25, -2.5, -2.5]  # momentum 1.75 and 1.5
    rows.clear()
    assert step(0.0, 0.0, 0.0) == [-5.125, -3.25, -3.25]  # the last goes on from momentum 1.5


def test_parameters_in_one_memory_are_updated_one_after_the_other(float64, each_way, monkeypatch):
    """As those of operations that share weights; in parallel, or by one operator, one update may undo another's."""
    memory = torch.arange(1.0, 9.0)
    apart = torch.nn.Parameter(torch.ones(2))
    parts = [slice(0, 5), slice(2, 8), slice(4, 6)]
    ours = [apart, *(torch.nn.Parameter(memory[part]) for part in parts)]
    at_once = []

    def seen(update, shares):
        at_once.append([parameter for share in shares for parameter, _ in share])
        return [update(share) for share in shares]

    monkeypatch.setattr(CpuKernels, "parallel_map", seen)
    real = ElasticSGD._update_foreach
    monkeypatch.setattr(
        ElasticSGD,
        "_update_foreach",
        lambda self, updates, group: (at_once.append([one for one, _ in updates]), real(self, updates, group)),
    )
    for parameter in ours:
        parameter.grad = torch.full_like(parameter, 2.0)
    ElasticSGD(ours, dict, **SETTINGS).step()
    expected = torch.arange(1.0, 9.0)
    for part in parts:
        expected[part] -= 0.1 * (2 + 0.01 * expected[part])
    torch.testing.assert_close(memory, expected, rtol=1e-12, atol=0)
    torch.testing.assert_close(apart.detach(), torch.full((2,), 1 - 0.1 * 2.01))
    assert [[id(one) for one in some] for some in at_once] == [list(map(id, ours[:2])), [id(ours[2])], [id(ours[3])]]


def test_a_parameter_without_gradient_rests():
    moved, resting = (torch.nn.Parameter(torch.ones(2)) for _ in range(2))
    optimizer = ElasticSGD([moved, resting], dict, **SETTINGS)
    moved.grad = torch.ones(2)
    for _ in range(3):
        optimizer.step()
    assert resting.tolist() == [1, 1]
    assert resting not in optimizer.state
    assert (moved < 1).all()


@pytest.mark.parametrize("steps", [1, 3])
def test_its_state_can_be_saved_and_restored(steps):
    first = [torch.nn.Parameter(tensor) for tensor in random_tensors()]
    optimizer = ElasticSGD(first, dict, **SETTINGS)
    for seed in range(steps):
        give_gradients(first, seed)
        optimizer.step()
    second = [torch.nn.Parameter(parameter.detach().clone()) for parameter in first]
    restored = ElasticSGD(second, dict, **SETTINGS)
    restored.load_state_dict(copy.deepcopy(optimizer.state_dict()))  # as a file does
    for parameters, stepped in ((first, optimizer), (second, restored)):
        give_gradients(parameters, 9)
        stepped.step()
    assert all(torch.equal(one, other) for one, other in zip(first, second, strict=True))


def test_adam_is_torchs(float64):
    settings = {"lr": 0.1, "betas": (0.5, 0.9), "weight_decay": 0.01}
    ours = [torch.nn.Parameter(tensor) for tensor in random_tensors()]
    theirs = [torch.nn.Parameter(tensor) for tensor in random_tensors()]
    adam, plain = Adam(ours, **settings), torch.optim.Adam(theirs, **settings)
    for seed in range(1, 6):
        give_gradients(ours, seed)
        give_gradients(theirs, seed)
        adam.step()
        plain.step()
        adam.load_state_dict(copy.deepcopy(plain.state_dict()))
        assert all(torch.equal(one, other) for one, other in zip(ours, theirs, strict=True))
    adam.zero_grad()
    assert all(parameter.grad is None for parameter in ours)
    assert all(parameter.requires_grad for parameter in ours)
