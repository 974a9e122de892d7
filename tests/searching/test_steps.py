from __future__ import annotations

import copy
import math

import pytest
import torch
from made_learners import random_batch, random_learner, random_parameters, random_supernet, snapshot, tiny_space
from torch import nn
from torch.nn import functional

from tfnas import RunFailed
from tfnas.searching.differentiable.architecture_parameters import sample_mixture_weights
from tfnas.searching.differentiable.differentiable_search import architecture_step, weight_step
from tfnas.searching.differentiable.supernet_learner import ArchitectureStep, architecture_loss, check_partition
from tfnas.supernet.supernet import Mixture, Path

FIRST, SECOND = Path((0, 1, 0)), Path((1, 0, 0))

pytestmark = pytest.mark.usefixtures("kernels_or_operators")


@pytest.fixture(autouse=True, params=["as on a CPU", "as on a GPU"])
def each_way(request):
    """Operations and updates in turn, and together."""
    if request.param == "as on a GPU":
        request.getfixturevalue("as_on_a_gpu")


def seeded(seed=0):
    return torch.Generator().manual_seed(seed)


def same(before, module):
    return all(torch.equal(before[name], parameter) for name, parameter in module.named_parameters())


def test_a_weight_step_is_clipped_sgd_on_the_sum_of_both_losses(float64):
    learner, (images, labels) = random_learner(grad_clip=0.5, w_lr=0.3, w_wd=0.02), random_batch()
    supernet = copy.deepcopy(learner.supernet)
    depths = [betas.detach().softmax(0) for betas in learner.parameters.betas]
    losses = [functional.cross_entropy(supernet(images, path, depths), labels) for path in (FIRST, SECOND)]
    sum(losses).backward()
    gradients = {name: parameter.grad for name, parameter in supernet.named_parameters() if parameter.grad is not None}
    norm = math.sqrt(sum(gradient.square().sum().item() for gradient in gradients.values()))
    assert norm > 0.5
    report = weight_step(learner, images, labels, (FIRST, SECOND))
    assert report.loss == pytest.approx(sum(loss.item() for loss in losses) / 2)
    rows = {name: supernet.active_slices().get(parameter) for name, parameter in supernet.named_parameters()}
    before = snapshot(supernet)
    for name, parameter in learner.supernet.named_parameters():
        expected = before[name]
        if name in gradients:
            step = 0.3 * (gradients[name] * 0.5 / norm + 0.02 * before[name])
            if rows[name] is not None:
                used = torch.zeros_like(step).index_fill(*rows[name], 1)
                step = step * used
            expected = before[name] - step
        torch.testing.assert_close(parameter, expected, rtol=1e-6, atol=1e-9)  # clipping adds 1e-6 to the norm


def test_what_takes_no_part_in_a_weight_step_is_bit_unchanged():
    learner, (images, labels) = random_learner(w_lr=0.3, w_wd=0.02), random_batch()
    weight_step(learner, images, labels, (Path((0, 0, 0)), Path((1, 1, 1))))  # everything has momentum now
    before, architecture = snapshot(learner.supernet), snapshot(learner.parameters)
    momentum = {key: state["momentum_buffer"].clone() for key, state in learner.weight_optimizer.state.items()}
    weight_step(learner, images, labels, (FIRST, SECOND))
    rows, state = learner.supernet.active_slices(), learner.weight_optimizer.state
    sampled = {(0, 0), (0, 1), (1, 1), (1, 0), (2, 0)}
    for number, index, operation in learner.supernet.operations():
        prefix = f"{learner.supernet.space.blocks[number].name}.m_ops.{index}."
        for name, parameter in operation.named_parameters():
            old, buffer = before[prefix + name], state[parameter]["momentum_buffer"]
            used = torch.zeros(parameter.shape, dtype=torch.bool)
            if (number, index) in sampled:
                used = used.index_fill(*rows[parameter], True) if parameter in rows else ~used
            assert torch.equal(parameter[~used], old[~used]), prefix + name
            assert torch.equal(buffer[~used], momentum[parameter][~used]), prefix + name
            assert (parameter[used] != old[used]).float().mean() > 0.5 if used.any() else True
    assert same(architecture, learner.parameters)


def test_every_operation_of_the_tiny_supernet_has_channels_that_rest():
    """What the tests above rely on."""
    assert all(operation.width < operation.max_width for _, _, operation in random_learner().supernet.operations())


def test_right_answers_are_counted():
    learner, (images, _) = random_learner(w_lr=1e-9), random_batch()
    depths = learner.parameters.depth_weights()
    answers = [learner.supernet(images, path, depths).argmax(1) for path in (FIRST, SECOND)]
    report = weight_step(learner, images, answers[0], (FIRST, SECOND))
    assert report.correct == (len(images) + (answers[0] == answers[1]).sum().item()) / 2


def test_an_architecture_step_changes_the_architecture_parameters_only():
    learner, (images, labels) = random_learner(), random_batch()
    weights, architecture = snapshot(learner.supernet), snapshot(learner.parameters)
    architecture_step(learner, images, labels, 5.0, seeded())
    assert same(weights, learner.supernet)
    assert all(parameter.grad is None for parameter in learner.supernet.parameters())
    assert not learner.weight_optimizer.state
    for name, parameter in learner.parameters.named_parameters():
        assert not torch.equal(parameter, architecture[name])
        torch.testing.assert_close(parameter.exp().sum(-1), torch.ones(parameter.shape[:-1]))


def test_the_loss_is_cross_entropy_and_the_distance_from_the_target(float64):
    learner, (images, labels) = random_learner(lambda_lat=0.7), random_batch()
    loss, parts = architecture_loss(learner, images, labels, 3.0, seeded(4))
    report = ArchitectureStep(*(part.item() for part in parts))
    weights = sample_mixture_weights(learner.parameters.log_alphas, 3.0, seeded(4))
    depths = [betas.softmax(0) for betas in learner.parameters.betas]
    logits = learner.supernet(images, Mixture(weights), depths)
    cross_entropy = -logits.log_softmax(1)[torch.arange(len(labels)), labels].mean().item()
    blocks_ms = (weights * learner.table_ms).sum(1).tolist()
    stages = [depths[0][1].item() * blocks_ms[0], blocks_ms[1] + depths[1][1].item() * blocks_ms[2]]
    expected = learner.base_ms + sum(stages)
    assert report.expected_ms == pytest.approx(expected)
    assert report.cross_entropy == pytest.approx(cross_entropy)
    assert report.latency_loss == pytest.approx(abs(expected / 1.5 - 1))
    assert loss.item() == pytest.approx(cross_entropy + 0.7 * abs(expected / 1.5 - 1))


def test_the_gradient_of_an_architecture_step_is_that_of_finite_differences(float64):
    learner, (images, labels) = random_learner(lambda_lat=0.7, grad_clip=1e9), random_batch()
    parameters = list(learner.parameters.parameters())

    def loss():
        with torch.no_grad():
            return architecture_loss(learner, images, labels, 3.0, seeded(4))[0].item()

    differences = []
    for parameter in parameters:
        slopes = torch.zeros(parameter.numel())
        for entry in range(parameter.numel()):
            values = []
            for shift in (1e-5, -2e-5):
                parameter.data.view(-1)[entry] += shift
                values.append(loss())
            parameter.data.view(-1)[entry] += 1e-5
            slopes[entry] = (values[0] - values[1]) / 2e-5
        differences.append(slopes.view_as(parameter))
    architecture_step(learner, images, labels, 3.0, seeded(4))
    for parameter, slopes in zip(parameters, differences, strict=True):
        torch.testing.assert_close(parameter.grad, slopes, rtol=1e-5, atol=1e-8)


def test_the_first_architecture_step_is_adam_with_weight_decay(float64):
    learner, (images, labels) = random_learner(a_lr=0.05, a_wd=0.01, grad_clip=1e9), random_batch()
    before = snapshot(learner.parameters)
    architecture_step(learner, images, labels, 3.0, seeded(4))
    for name, parameter in learner.parameters.named_parameters():
        direction = parameter.grad + 0.01 * before[name]
        moved = before[name] - 0.05 * direction / (direction.abs() + 1e-8)  # corrected moments of one gradient
        torch.testing.assert_close(parameter, moved.log_softmax(-1), rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("poison", [float("nan"), float("inf")])
def test_a_loss_that_is_not_finite_stops_before_any_update(poison):
    learner, (images, labels) = random_learner(), random_batch()
    weight_step(learner, images, labels, (FIRST, SECOND))
    architecture_step(learner, images, labels, 5.0, seeded())
    weights, architecture = snapshot(learner.supernet), snapshot(learner.parameters)
    states = copy.deepcopy([learner.weight_optimizer.state_dict(), learner.architecture_optimizer.state_dict()])
    images[0, 0, 0, 0] = poison
    with pytest.raises(RunFailed, match=r"weight step gave loss nan.*nothing was updated.*--w_lr"):
        weight_step(learner, images, labels, (FIRST, SECOND))
    with pytest.raises(RunFailed, match=r"architecture step gave loss nan.*nothing was updated.*--a_lr"):
        architecture_step(learner, images, labels, 5.0, seeded())
    assert same(weights, learner.supernet)
    assert same(architecture, learner.parameters)
    after = [learner.weight_optimizer.state_dict(), learner.architecture_optimizer.state_dict()]
    for one, other in zip(states, after, strict=True):
        for key, entries in one["state"].items():
            assert all(torch.equal(value, other["state"][key][name]) for name, value in entries.items())


def test_a_gradient_that_is_not_finite_stops_before_any_update():
    learner, (images, labels) = random_learner(), random_batch()
    weights, architecture = snapshot(learner.supernet), snapshot(learner.parameters)
    for parameter in (learner.supernet.classifier.linear.weight, learner.parameters.betas[0]):
        parameter.register_hook(lambda gradient: gradient * float("nan"))
    with pytest.raises(RunFailed, match=r"weight step gave loss [\d.]+ with gradient norm nan; nothing was updated"):
        weight_step(learner, images, labels, (FIRST, SECOND))
    with pytest.raises(RunFailed, match=r"architecture step gave loss [\d.]+ with gradient norm nan"):
        architecture_step(learner, images, labels, 5.0, seeded())
    assert same(weights, learner.supernet)
    assert same(architecture, learner.parameters)


def test_the_optimizers_share_all_parameters_between_them():
    learner = random_learner()
    groups = [*learner.weight_optimizer.param_groups, *learner.architecture_optimizer.param_groups]
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    existing = [*learner.supernet.parameters(), *learner.parameters.parameters()]
    assert sorted(listed) == sorted(id(parameter) for parameter in existing)


def test_a_parameter_in_no_group_or_in_two_is_refused():
    space = tiny_space()
    supernet, parameters = random_supernet(space), random_parameters(space)
    weights, architecture = list(supernet.parameters()), list(parameters.parameters())
    model = nn.ModuleList([supernet, parameters])
    check_partition(weights, architecture, model)
    with pytest.raises(AssertionError, match="belongs to no optimizer"):
        check_partition(weights[1:], architecture, model)
    with pytest.raises(AssertionError, match="both a weight and an architecture parameter"):
        check_partition([*weights, architecture[0]], architecture, model)
    with pytest.raises(AssertionError, match="belongs to no optimizer"):
        check_partition([*weights, nn.Parameter(torch.zeros(1))], architecture, model)
