"""Budgets that nothing can meet, and networks to start from that are over budget."""

from __future__ import annotations

import re

import numpy as np
import pytest

import tfnas
from tfnas import Infeasible, InputError
from tfnas.latency.counted_table import counted_table
from tfnas.searching.evolution.budget_settings import BudgetSettings
from tfnas.searching.evolution.budgets import Budgets
from tfnas.searching.evolution.start_check import check_start
from tfnas.spaces.families import parse_architecture
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.zen.zen_family import ZenFamily

FAMILY = ZenFamily()
START = FAMILY.initial
FIGURES = Budgets(BudgetSettings()).figures(START)


def test_a_start_within_all_budgets_passes():
    check_start(Budgets(BudgetSettings(**{f"max_{name}": value for name, value in FIGURES.items()})), FAMILY, START)


def test_a_start_over_budget_says_by_how_much_and_names_a_network_that_is_not():
    budgets = Budgets(BudgetSettings(max_params=80_000, max_layers=9, max_macs=1e8))
    with pytest.raises(InputError) as error:
        check_start(budgets, FAMILY, START)
    message = str(error.value)
    assert message.startswith("the network to start from is over budget: it has ")
    assert f"{FIGURES['params'] / 1000:.4g} k parameters, {FIGURES['params'] / 80_000 - 1:.1%} above" in message
    assert "--max_params 80000. Raise" in message and "MACs" not in message
    named = parse_architecture(re.search(r"--init '(.*)'$", message)[1])
    assert budgets.exceeded(budgets.figures(named)) is None
    with pytest.raises(InputError) as again:
        check_start(budgets, FAMILY, START)
    assert str(again.value) == message


def test_each_impossible_budget_is_named_with_the_smallest_value_reached():
    """The space has a stem and a convolution at the end: without residual layers 6 blocks have 6 layers at least."""
    with pytest.raises(Infeasible) as error:
        check_start(Budgets(BudgetSettings(max_layers=5, max_params=1000, max_macs=1e9)), FAMILY, START)
    message = str(error.value)
    assert "--max_layers 5 is below the 6 layers of the smallest network found" in message
    smallest = float(re.search(r"--max_params 1000 is below the ([0-9.]+) k parameters", message)[1])
    assert "--max_macs" not in message
    narrow = (
        "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,1,8,1)SuperResK3K3(8,8,2,8,1)SuperResK3K3(8,8,2,8,1)"
        "SuperResK3K3(8,8,2,8,1)SuperConvK1BNRELU(8,8,1,1)"
    )
    least = Budgets(BudgetSettings()).figures(parse_architecture(f"i3x32_n10:{narrow}"))["params"]
    assert 0.8 * least <= 1000 * smallest <= 1.05 * least


def test_a_latency_that_no_network_has():
    class Table:
        source = "a table"

        def architecture_ms(self, architecture):
            return 0.5 + len(architecture.structure.blocks)

    with pytest.raises(Infeasible, match=r"--max_ms 3 is below the 6\.5 ms of the smallest network found"):
        check_start(Budgets(BudgetSettings(max_ms=3), Table()), FAMILY, START)


def test_budgets_that_only_together_cannot_be_met():
    """Few parameters ask for narrow networks, a low effectiveness for wide ones."""
    for alone in ({"max_effectiveness": 0.05}, {"max_params": 8e3}):
        with pytest.raises(InputError, match="is over budget"):
            check_start(Budgets(BudgetSettings(**alone)), FAMILY, START)
    with pytest.raises(
        Infeasible, match="no network of the space was found that is within all budgets together"
    ) as error:
        check_start(Budgets(BudgetSettings(max_effectiveness=0.05, max_params=8e3)), FAMILY, START)
    assert "of --max_" in str(error.value) and "Raise one of the budgets" in str(error.value)


def test_the_smallest_value_found_in_an_mbconv_space_is_near_the_exact_minimum():
    space = tfnas.space("digits")
    family, table = MBConvFamily(space, 10), counted_table(space, "macs", 10)
    lowest = table.range_ms(space, 10)[0]
    start = family.sample(np.random.default_rng(1))
    with pytest.raises(Infeasible) as error:
        check_start(Budgets(BudgetSettings(max_macs=lowest * 0.9)), family, start)
    found = float(re.search(r"below the ([0-9.]+) k MACs", str(error.value))[1])
    assert lowest <= 1000 * found * 1.0005 and 1000 * found <= 1.2 * lowest


@pytest.mark.parametrize("factor", [0.5, 2.0])
def test_a_target_that_an_mbconv_space_cannot_reach(factor):
    space = tfnas.space("digits")
    family, table = MBConvFamily(space, 10), counted_table(space, "macs", 10)
    target = factor * table.range_ms(space, 10)[factor > 1]
    budgets = Budgets(BudgetSettings(target_lat=target), table)
    with pytest.raises(Infeasible, match=f"{'above' if factor > 1 else 'below'} what the space 'digits' reaches"):
        check_start(budgets, family, family.sample(np.random.default_rng(0)))
