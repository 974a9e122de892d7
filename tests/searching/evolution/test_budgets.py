"""Figures of architectures of every family, and the check against budgets."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

import tfnas
from tfnas import InputError, zoo
from tfnas.latency.counted_table import counted_table
from tfnas.proxies.entropy import effectiveness
from tfnas.searching.evolution.budget_settings import BudgetSettings
from tfnas.searching.evolution.budgets import Budgets
from tfnas.spaces import families
from tfnas.spaces.families import architecture_counts
from tfnas.spaces.mbconv.mbconv_family import MBConvFamily
from tfnas.spaces.zen.structure_counts import real_counts, reference_counts
from tfnas.spaces.zen.zen_family import StructureArchitecture


class FixedTable:
    """A latency table for structures: every block takes a millisecond."""

    source = "the fixed table"

    def architecture_ms(self, architecture):
        return float(len(architecture.structure.blocks))


def structure(name, size=224, classes=1000, **options):
    return StructureArchitecture(zoo.facts(name).structure, size, classes, **options)


def test_figures_of_a_structure_are_those_of_tfnas_count():
    found = Budgets(BudgetSettings()).figures(structure("zennet_imagenet1k_flops400M_res224"))
    counts = real_counts(zoo.facts("zennet_imagenet1k_flops400M_res224").structure, 224, 1000)
    assert (found["params"], found["macs"], found["layers"]) == (counts.params, counts.macs, 14)
    assert set(found) == {"params", "macs", "layers", "memory", "effectiveness"}


def test_reference_counts_are_those_that_the_programs_limit():
    """ZenNAS leaves squeeze-and-excite out of its budgets, TinyNAS the classifier."""
    budgets = Budgets(BudgetSettings(reference_counts=True))
    zennas = budgets.figures(structure("zennet_imagenet1k_flops400M_res224", use_se=True))
    assert (zennas["macs"], zennas["params"]) == (399976216, 5673833)
    tinynas = budgets.figures(structure("deepmad-R18"))
    expected = reference_counts(zoo.facts("deepmad-R18").structure, 224)
    assert (tinynas["macs"], tinynas["params"], tinynas["layers"]) == (expected.macs, expected.params, 115)
    assert tinynas["effectiveness"] == pytest.approx(effectiveness("deepmad-R18", as_program=True), rel=1e-12)


def test_figures_of_mbconv_networks():
    family = MBConvFamily(tfnas.space("digits"), 10)
    architecture = family.sample(np.random.default_rng(0))
    table = counted_table(family.space, "macs")
    found = Budgets(BudgetSettings(max_ms=1e9), table).figures(architecture)
    counts = architecture_counts(architecture)
    assert (found["params"], found["macs"]) == (counts.params, counts.macs)
    assert found["layers"] == 3 + len(architecture.blocks)
    assert found["effectiveness"] == pytest.approx(effectiveness(architecture))
    assert found["ms"] == table.architecture_ms(architecture) and found["memory"] > 0


def test_the_first_exceeded_budget_is_named_and_equality_passes():
    architecture = structure("zennet_cifar_model_size1M_res32", 32, 10)
    figures = Budgets(BudgetSettings()).figures(architecture)
    limits = {f"max_{name}": value for name, value in figures.items()}
    exact = Budgets(BudgetSettings(**limits))
    assert exact.names == ("layers", "params", "macs", "memory", "effectiveness")
    assert exact.exceeded(figures) is None
    assert exact.excess(figures) == {}
    for name in exact.names:
        assert exact.exceeded({**figures, name: figures[name] * 1.001}) == name
    both = {**figures, "params": figures["params"] + 1, "memory": figures["memory"] + 1}
    assert exact.exceeded(both) == "params"


def test_of_two_limits_on_latency_the_lower_one_counts():
    for target, most, limit in ((5.0, 7.0, 5.0), (5.01, 5.0, 5.0), (None, 5.0, 5.0)):
        budgets = Budgets(BudgetSettings(target_lat=target, max_ms=most), FixedTable())
        assert budgets.limits == {"ms": limit}
        assert budgets.exceeded({"ms": 5.0}) is None and budgets.exceeded({"ms": 5.01}) == "ms"
    figures = budgets.figures(structure("deepmad-R18"))
    assert figures["ms"] == 6.0


def test_the_excess_is_relative_to_the_limits():
    budgets = Budgets(BudgetSettings(max_params=1e6, max_layers=10, max_macs=1e12))
    figures = budgets.figures(structure("zennet_cifar_model_size1M_res32", 32, 100))
    excess = budgets.excess(figures)
    assert list(excess) == ["layers", "params"]
    assert excess == pytest.approx({"layers": 0.8, "params": 0.040844})
    assert [budgets.flag(name) for name in excess] == ["--max_layers 10", "--max_params 1000000"]


@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf")])
@pytest.mark.parametrize("name", ["max_params", "max_memory", "target_lat", "max_effectiveness"])
def test_limits_are_positive_numbers(name, value):
    with pytest.raises(InputError, match=f"{name} must be a positive number, got {value}"):
        BudgetSettings(**{name: value})


def test_latency_needs_a_table_and_a_table_a_limit():
    with pytest.raises(InputError, match="--target_lat needs a latency table: give --lookup_path FILE"):
        Budgets(BudgetSettings(target_lat=3))
    with pytest.raises(InputError, match="--lookup_path is for --target_lat and --max_ms"):
        BudgetSettings(lookup_path="table.json")
    with pytest.raises(InputError, match=r"--max_ms 5 is below the 6\.965 ms that --target_lat 7 asks for at least"):
        BudgetSettings(target_lat=7, max_ms=5)


def test_what_is_not_defined_for_a_family_is_refused():
    architecture = MBConvFamily(tfnas.space("digits"), 10).sample(np.random.default_rng(0))
    with pytest.raises(InputError, match="of family 'mbconv' there are true counts only"):
        Budgets(BudgetSettings(reference_counts=True)).figures(architecture)
    with pytest.raises(InputError, match="--max_feature is not defined for networks of family 'mbconv'"):
        Budgets(BudgetSettings(max_feature=1e6)).figures(architecture)


def test_any_family_has_counts(monkeypatch):
    monkeypatch.syspath_prepend(Path(__file__).parents[2] / "spaces")
    from toy_family import FAMILY

    monkeypatch.setattr(families, "_FAMILIES", {"toy": FAMILY})
    architecture = FAMILY.sample(np.random.default_rng(0))
    figures = Budgets(BudgetSettings(max_params=1e9)).figures(architecture)
    assert (figures["params"], figures["macs"]) == dataclasses.astuple(architecture_counts(architecture))
    assert set(figures) == {"params", "macs", "layers"}
    with pytest.raises(InputError, match="--max_memory is not defined for networks of family 'toy'"):
        Budgets(BudgetSettings(max_memory=1e9)).figures(architecture)
