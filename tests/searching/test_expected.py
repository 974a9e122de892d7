from __future__ import annotations

import itertools
import math
import random

import oracle
import pytest
import torch
from tiny import SOME_EXPAND, tiny_contents, tiny_space
from torch.nn import functional

import tfnas
from tfnas.latency.authors_table import LatencyTableWarning
from tfnas.latency.cost_table import LatencyTable
from tfnas.searching.differentiable.architecture_parameters import expected_ms, operations_ms
from tfnas.supernet.supernet import one_hot_depths


def tiny(**changes):
    space = tiny_space(**changes)
    return space, LatencyTable(tiny_contents(space, random.Random(3)))


def random_widths(space):
    choose = random.Random(4)
    return [[choose.randint(*space.width_range(place, op)) for op in space.operations] for place in space.blocks]


def test_expected_latency_matches_the_authors_program(shared_data, float64):
    space = tfnas.space("imagenet")
    widths = [[space.initial_width(place, operation) for operation in space.operations] for place in space.blocks]
    for values in oracle.values(shared_data)["supernet"]:
        with pytest.warns(LatencyTableWarning):
            table = LatencyTable.load(shared_data / "tfnas" / f"latency_{values['table']}.pkl")
        log_alphas, betas = oracle.search_parameters(values["alpha_scale"])
        weights = (log_alphas / values["T"]).softmax(1)
        depth_weights = [stage.softmax(0) for stage in betas]
        expected = expected_ms(space, operations_ms(space, table, widths), table.base_ms(), weights, depth_weights)
        assert expected.item() == pytest.approx(values["expected_ms_noise_free"], rel=1e-9)


@pytest.mark.parametrize("changes", [{}, {"operations": SOME_EXPAND[:2]}], ids=["all expand", "some expand"])
def test_one_choice_expects_the_latency_of_its_architecture(float64, changes):
    space, table = tiny(**changes)
    widths = random_widths(space)
    table_ms = operations_ms(space, table, widths)
    for operations in itertools.product(range(2), repeat=3):
        for depths in itertools.product(*space.depth_choices):
            chosen = [row[index] for row, index in zip(widths, operations, strict=True)]
            architecture = space.architecture(operations, depths, chosen, 10)
            one_hot = functional.one_hot(torch.tensor(operations), 2).to(torch.float64)
            depth_weights = one_hot_depths(space.depth_choices, depths)
            expected = expected_ms(space, table_ms, table.base_ms(), one_hot, depth_weights)
            assert expected.item() == pytest.approx(table.architecture_ms(architecture), rel=1e-12)


def test_the_expectation_is_over_all_architectures(float64):
    """Every architecture's latency, weighted by the probability of its operations and depths."""
    space, table = tiny()
    generator = torch.Generator().manual_seed(0)
    widths, weights = random_widths(space), torch.randn(3, 2, generator=generator).softmax(1)
    depth_weights = [torch.randn(len(choices), generator=generator).softmax(0) for choices in space.depth_choices]
    total = 0.0
    for operations in itertools.product(range(2), repeat=3):
        for picks in itertools.product(*(range(len(choices)) for choices in space.depth_choices)):
            depths = [choices[pick] for choices, pick in zip(space.depth_choices, picks, strict=True)]
            chosen = [row[index] for row, index in zip(widths, operations, strict=True)]
            probability = math.prod(
                [weights[block, index].item() for block, index in enumerate(operations)]
                + [stage[pick].item() for stage, pick in zip(depth_weights, picks, strict=True)]
            )
            total += probability * table.architecture_ms(space.architecture(operations, depths, chosen, 10))
    expected = expected_ms(space, operations_ms(space, table, widths), table.base_ms(), weights, depth_weights)
    assert expected.item() == pytest.approx(total, rel=1e-12)


def test_its_gradient_is_that_of_finite_differences(float64):
    space, table = tiny()
    table_ms = operations_ms(space, table, random_widths(space))
    generator = torch.Generator().manual_seed(1)
    weights = torch.rand(3, 2, generator=generator).requires_grad_()
    depth_weights = [torch.rand(len(c), generator=generator).requires_grad_() for c in space.depth_choices]

    def function(*values):
        return expected_ms(space, table_ms, table.base_ms(), values[0], values[1:])

    assert torch.autograd.gradcheck(function, (weights, *depth_weights))


def test_looked_up_latencies_follow_the_widths():
    space, table = tiny()
    widths = random_widths(space)
    table_ms = operations_ms(space, table, widths)
    assert table_ms.dtype == torch.float64
    place, operation = space.blocks[2], space.operations[1]
    assert table_ms[2, 1].item() == table.block_ms(space.block(place, operation, widths[2][1]), place.input_size)
