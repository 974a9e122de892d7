"""Widths moved into the band of a target latency, within all other budgets."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest

import tfnas
from tfnas import Infeasible, zoo
from tfnas.latency.counted_table import counted_table
from tfnas.searching.evolution.budget_settings import BudgetSettings
from tfnas.searching.evolution.budgets import Budgets
from tfnas.searching.evolution.target_refinement import refine_to_target
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.zen.structure_counts import structure_parts
from tfnas.spaces.zen.zen_family import StructureArchitecture

STRUCTURES = {
    "zennet_cifar_model_size1M_res32": 32,
    "zennet_imagenet1k_flops400M_res224": 64,
    "zennet_imagenet1k_latency01ms_res224": 64,
    "deepmad-29M-224": 64,
    "mixed7d0G": 64,
}


class StepTable:
    """Milliseconds of a device that computes 32 output channels at once, plus a fixed time for each unit."""

    source = "the table of a device that computes 32 channels at once"

    def architecture_ms(self, architecture):
        parts = structure_parts(architecture.structure, architecture.image_size, architecture.num_classes)
        tiles = sum(part.counts.macs / part.out_channels * (-(-part.out_channels // 32) * 32) for part in parts)
        return tiles * 1e-8 + 0.01 * len(parts)


def network(name):
    return StructureArchitecture(zoo.facts(name).structure, STRUCTURES[name], 10)


def shape(architecture):
    """All that refinement leaves alone."""
    return [
        dataclasses.replace(block, in_channels=8, out_channels=8, bottleneck=block.bottleneck and 8, groups=1)
        for block in architecture.structure.blocks
    ]


@pytest.mark.parametrize("name", STRUCTURES)
@pytest.mark.parametrize("factor", [1.004, 1.03, 1.4])
def test_structures_get_into_the_band(name, factor):
    start, table = network(name), StepTable()
    target = factor * table.architecture_ms(start)
    found = refine_to_target([start], Budgets(BudgetSettings(target_lat=target), table))
    assert 0.995 * target <= table.architecture_ms(found) <= target
    if factor > 1.006:
        assert found != start and shape(found) == shape(start)
    for old, new in zip(start.structure.blocks, found.structure.blocks, strict=True):
        assert (new.out_channels - old.out_channels) % 8 == 0
        assert old.bottleneck is not None or new.out_channels == old.out_channels
    assert found == refine_to_target([start], Budgets(BudgetSettings(target_lat=target), table))


def test_a_network_in_the_band_stays():
    start, table = network("mixed7d0G"), StepTable()
    budgets = Budgets(BudgetSettings(target_lat=table.architecture_ms(start) / 0.9951), table)
    assert refine_to_target([start], budgets) is start


@pytest.mark.parametrize("name", ["zennet_cifar_model_size1M_res32", "zennet_imagenet1k_flops400M_res224"])
def test_other_budgets_are_kept(name):
    """Parameters may hardly grow: latency has to come from where they are few."""
    start, table = network(name), StepTable()
    figures = Budgets(BudgetSettings()).figures(start)
    settings = BudgetSettings(
        target_lat=1.1 * table.architecture_ms(start),
        max_params=1.005 * figures["params"],
        max_memory=1.2 * figures["memory"],
        max_effectiveness=1.02 * figures["effectiveness"],
    )
    budgets = Budgets(settings, table)
    found = refine_to_target([start], budgets)
    assert budgets.exceeded(budgets.figures(found)) is None
    assert table.architecture_ms(found) >= 0.995 * settings.target_lat


def test_what_keeps_a_network_from_the_band_is_named():
    start, table = network("zennet_cifar_model_size1M_res32"), StepTable()
    figures = Budgets(BudgetSettings()).figures(start)
    now = table.architecture_ms(start)
    settings = BudgetSettings(target_lat=3 * now, max_params=figures["params"], max_macs=1.01 * figures["macs"])
    with pytest.raises(Infeasible) as error:
        refine_to_target([start], Budgets(settings, table))
    message = str(error.value)
    assert message.startswith("no widths of the best networks were found that take ")
    assert f"wider networks exceed --max_params {figures['params']} and --max_macs" in message
    assert "or use --max_ms" in message


def test_the_next_best_network_is_taken_where_the_best_one_cannot_be_refined():
    stuck, table = network("zennet_cifar_model_size1M_res32"), StepTable()
    plain = StructureArchitecture(stuck.structure.parse("SuperConvK3BNRELU(3,16,2,1)"), 32, 10)
    target = 1.02 * table.architecture_ms(stuck)
    budgets = Budgets(BudgetSettings(target_lat=target), table)
    assert refine_to_target([plain, stuck], budgets) == refine_to_target([stuck], budgets)
    with pytest.raises(Infeasible, match="its widths are as large as they may be"):
        refine_to_target([plain], budgets)


@pytest.mark.parametrize("limited", [False, True])
def test_mbconv_networks_get_into_the_band(limited):
    space = tfnas.space("digits")
    family, table = MBConvFamily(space, 10), counted_table(space, "macs", 10)
    generator = np.random.default_rng(2)
    for _ in range(4):
        start = family.sample(generator)
        lowest = start.with_widths({(p.stage, p.position): p.block.widths[0] for p in start.blocks})
        highest = start.with_widths({(p.stage, p.position): p.block.widths[-1] for p in start.blocks})
        target = (table.architecture_ms(lowest) + table.architecture_ms(highest)) / 2
        figures = Budgets(BudgetSettings()).figures(highest)
        limit = 0.8 * figures["params"] if limited else None
        budgets = Budgets(BudgetSettings(target_lat=target, max_params=limit), table)
        found = refine_to_target([lowest], budgets)
        assert 0.995 * target <= table.architecture_ms(found) <= target
        assert budgets.exceeded(budgets.figures(found)) is None
        family.genes(found)  # of the space


def test_other_families_say_that_they_have_no_widths(monkeypatch):
    class Table:
        source = "a table"

        def architecture_ms(self, architecture):
            return 1.0

    from pathlib import Path

    from tfnas.spaces import families

    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "spaces")
    from toy_family import FAMILY

    monkeypatch.setattr(families, "_FAMILIES", {"toy": FAMILY})
    with pytest.raises(Infeasible, match="networks of family 'toy' have no widths that could be refined: use --max_ms"):
        refine_to_target([FAMILY.sample(np.random.default_rng(0))], Budgets(BudgetSettings(target_lat=2.0), Table()))
