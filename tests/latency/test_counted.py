"""Tables that count: exactly what walking through the modules counts, in files and in the search's own terms."""

from __future__ import annotations

import dataclasses
import json
import random

import numpy as np
import pytest
import torch
from made_tables import random_choice
from tiny import SOME_EXPAND, measurement, tiny_contents, tiny_space

import tfnas
from tfnas.bench.benches import table_conditions
from tfnas.bench.benchmark_cases import random_architectures
from tfnas.core.cost import COSTS
from tfnas.core.errors import Infeasible, InputError
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.counted_table import counted_table, write_counted_table
from tfnas.latency.meet_target import check_target, meet_target
from tfnas.searching.differentiable.architecture_parameters import expected_ms, operations_ms
from tfnas.spaces.families import architecture_counts

COUNTED = ("macs", "params")


def walked(architecture):
    """What a walk through the network's modules counts."""
    with torch.device("meta"):
        network = tfnas.Network(architecture)
    return tfnas.count(network, architecture.image_size)


@pytest.mark.parametrize(
    "space",
    [
        tiny_space(),
        tfnas.space("digits"),
        tfnas.space("imagenet").at(97),
        dataclasses.replace(tfnas.space("digits"), operations=SOME_EXPAND),
    ],
    ids=["tiny", "digits", "imagenet", "some expand"],
)
def test_every_architecture_costs_what_its_modules_count(tmp_path, space):
    tables = {}
    for cost in COUNTED:
        write_counted_table(space, cost, tmp_path / f"{cost}.json")
        tables[cost] = [counted_table(space, cost), LatencyTable.load(tmp_path / f"{cost}.json")]
        assert tables[cost][0].fingerprint == tables[cost][1].fingerprint
        for table in tables[cost]:
            table.check(space)
    for number, architecture in enumerate(random_architectures(space, 4, 10, seed=7)):
        architecture = tfnas.Architecture.parse(architecture.to_text().replace("_n10:", f"_n{1 + 613 * number}:"))
        counts = walked(architecture)
        for cost in COUNTED:
            assert [table.architecture_ms(architecture) for table in tables[cost]] == [getattr(counts, cost)] * 2


@pytest.mark.parametrize("cost", COUNTED)
def test_every_width_of_every_operation_is_exact(cost):
    space = tfnas.space("digits")
    table = counted_table(space, cost)
    widths = [space.initial_width(place, space.operations[0]) for place in space.blocks]
    depths = [max(choices) for choices in space.depth_choices]
    plain = space.architecture([0] * len(widths), depths, widths, 10)
    for number, index in ((0, 1), (2, 6), (4, 7)):
        for width in space.widths(space.blocks[number], space.operations[index]):
            operations = [index if n == number else 0 for n in range(len(widths))]
            changed = space.architecture(operations, depths, [*widths[:number], width, *widths[number + 1 :]], 10)
            found = table.architecture_ms(changed) - table.architecture_ms(plain)
            assert found == getattr(architecture_counts(changed), cost) - getattr(architecture_counts(plain), cost)


@pytest.mark.parametrize("cost", COUNTED)
def test_it_says_what_it_is_and_not_when(monkeypatch, cost):
    table = counted_table(tiny_space(), cost)
    assert table.description.endswith("of one network, counted and not measured")
    assert table.batch_size is None and table.unit == {"macs": "MACs", "params": "parameters"}[cost]
    with pytest.raises(InputError, match=r"was counted .* there is nothing to measure it against"):
        table_conditions(table)
    monkeypatch.setattr(
        "tfnas.latency.counted_table._provenance", lambda space, *_: measurement(space, date="2001-01-01")
    )
    assert counted_table(tiny_space(), cost).fingerprint == table.fingerprint


def test_what_is_measured_keeps_its_words():
    table = LatencyTable(tiny_contents(tiny_space(), random.Random(0)))
    assert table.unit == "ms" and table.batch_size == 32 and "Made-up Processor" in table.description


@pytest.mark.parametrize(
    ("cost", "value", "text", "as_target"),
    [
        ("ms", 15.0234567, "15.02 ms", "15.02346"),
        ("ms", 0.0123456, "0.01235 ms", "0.0123456"),
        ("ms", 123456.7, "123457 ms", "123456.7"),
        ("macs", 300.1e6, "300.1 M MACs", "300100000"),
        ("macs", 4.1234e9, "4.123 G MACs", "4123400000"),
        ("params", 5.31e6, "5.31 M parameters", "5310000"),
        ("params", 44641.0, "44.64 k parameters", "44641"),
        ("params", 12.0, "12 parameters", "12"),
    ],
)
def test_quantities(cost, value, text, as_target):
    assert COSTS[cost].quantity(value) == text
    assert COSTS[cost].as_target(value) == as_target
    assert float(as_target) >= value  # never below what is reachable


# ---- meeting a budget ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("cost", COUNTED)
@pytest.mark.parametrize("name", ["digits", "imagenet"])
@pytest.mark.parametrize("share", [0.02, 0.5, 0.95])
def test_budgets_are_met_by_real_networks(name, cost, share):
    rng = np.random.default_rng(round(100 * share))
    space = tfnas.space(name)
    table = counted_table(space, cost)
    low, high = table.range_ms(space, 10)
    target = low + share * (high - low)
    found = getattr(walked(meet_target(random_choice(space, rng), table, target)), cost)
    assert 0.995 * target <= found <= target


def test_messages_say_the_unit():
    space = tfnas.space("imagenet")
    for cost, unit in (("macs", "MACs"), ("params", "parameters")):
        table = counted_table(space, cost)
        with pytest.raises(Infeasible, match=rf"the target of 15 {unit} is below .* M {unit}") as error:
            check_target(space, table, 15.0)
        assert " ms" not in str(error.value)
        with pytest.raises(InputError, match=r"target must be a positive number of (multiply-acc|param)"):
            check_target(space, table, -1.0)


@pytest.mark.parametrize("cost", COUNTED)
def test_gradients_in_single_precision_are_those_in_double(cost):
    space = tfnas.space("imagenet")
    table = counted_table(space, cost)
    target = sum(table.range_ms(space, 1000)) / 2
    widths = [[space.initial_width(place, operation) for operation in space.operations] for place in space.blocks]
    figures = operations_ms(space, table, widths)
    rng = torch.Generator().manual_seed(1)
    weights = torch.rand(figures.shape, generator=rng, dtype=torch.float64).softmax(1)
    depths = [
        torch.rand(len(choices), generator=rng, dtype=torch.float64).softmax(0) for choices in space.depth_choices
    ]

    def gradients(dtype):
        values = [tensor.to(dtype).requires_grad_() for tensor in (weights, *depths)]
        expected = expected_ms(space, figures.to(dtype), table.base_ms(1000), values[0], values[1:])
        loss = (expected / target - 1).abs()
        return [loss.detach(), *torch.autograd.grad(loss, values)]

    for single, double in zip(gradients(torch.float32), gradients(torch.float64), strict=True):
        assert single.isfinite().all() and double.abs().max() > 1e-3
        torch.testing.assert_close(single.double(), double, rtol=1e-4, atol=1e-6)


# ---- bad input ----------------------------------------------------------------------------------------------------


def test_time_cannot_be_counted():
    with pytest.raises(InputError, match=r"'ms' cannot be counted: choose one of macs, params"):
        counted_table(tiny_space(), "ms")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.update(device_kind="cpu"), "device_kind is 'cpu', but cost is 'macs'"),
        (lambda d: d.update(cost="ms"), "device_kind is 'any', but cost is 'ms'"),
        (lambda d: d.update(cost="flops"), "cost must be one of ms, macs, params"),
        (lambda d: d["base"]["feature_mix"].update(ms=7.5), r"base\.feature_mix\.ms must be whole numbers"),
        (lambda d: d["classifier"]["ms"].__setitem__(0, 7.5), r"classifier\.ms must be whole numbers"),
        (lambda d: next(iter(d["blocks"].values()))["ms"].__setitem__(1, 7.5), r"blocks\.MB.*must be whole numbers"),
    ],
)
def test_edited_files_are_refused(tmp_path, change, message):
    path = tmp_path / "counted.json"
    write_counted_table(tiny_space(), "macs", path)
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message):
        LatencyTable.load(path)


def test_another_space_is_refused():
    table = counted_table(tiny_space(), "macs")
    with pytest.raises(InputError, match="px"):
        table.check(tfnas.space("digits"))
    with pytest.raises(InputError, match="65536 classes"):
        table.architecture_ms(tiny_space().shallowest(70_000))
