"""The probe networks: which they are, how they are judged, and that judging them changes nothing."""

from __future__ import annotations

import itertools
import json
import math
import random
from contextlib import nullcontext
from fractions import Fraction

import pytest
import torch
from made_learners import CLASSES, random_batch, random_supernet, varied_space
from rich.console import Console
from small_search import small_config
from test_resume import _InterruptAt, assert_same, final_state
from tiny import SOME_EXPAND, tiny_contents, tiny_space

from tfnas.core.architecture import Architecture
from tfnas.core.errors import Interrupted
from tfnas.data.image_sets import ORDER_STREAM, Draw, derived_seed
from tfnas.latency.cost_table import LatencyTable
from tfnas.runs import session
from tfnas.runs.distributed import DistributedContext
from tfnas.runs.run_directory import SEARCH_KIND, load_checkpoint, saved_choice, search_checkpoints
from tfnas.searching.differentiable import differentiable_search
from tfnas.searching.differentiable.differentiable_search import search
from tfnas.searching.differentiable.inherited_evaluation import (
    SanityNetworks,
    agreement,
    derived_accuracy,
    evaluate_inherited,
    random_networks,
    uniform_choice,
)
from tfnas.searching.differentiable.search_conclusion import _probe_lines, sanity_numbers
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.searching.differentiable.search_setup import WholeBatches, prepare
from tfnas.supernet.extract import extract_network, supernet_from_state

QUIET = Console(quiet=True)
ALONE = DistributedContext(0, 1, torch.device("cpu"))
PROBED = {"probe_loss", "probe_top1"}
AGREED = {"probe_tau", "probe_tau_low", "probe_tau_high", "probe_ordered"}


# ---- which networks -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("space", [tiny_space(), tiny_space(operations=SOME_EXPAND)], ids=["all expand", "some"])
def test_eight_networks_in_the_band_that_the_seed_decides(space):
    table = LatencyTable(tiny_contents(space, random.Random(3)))
    target_ms = sum(table.range_ms(space)) / 2
    blank = uniform_choice(space, 10)
    found = random_networks(blank, table, target_ms, 5)
    assert len(set(found)) == 8
    assert all(0.995 * target_ms <= table.architecture_ms(network) <= target_ms for network in found)
    assert random_networks(blank, table, target_ms, 5) == found
    assert set(random_networks(blank, table, target_ms, 6)) != set(found)


def test_where_there_are_fewer_all_of_them_are_taken():
    space = tiny_space(width_bounds=(Fraction(1), Fraction(1)))
    table = LatencyTable(tiny_contents(space, random.Random(3)))
    depths, operations = itertools.product(*space.depth_choices), list(itertools.product(range(2), repeat=3))
    widths = {
        (block, index): space.initial_width(space.blocks[block], space.operations[index])
        for block, index in itertools.product(range(3), range(2))
    }
    every = {
        space.architecture(taken, kept, [widths[pair] for pair in enumerate(taken)], 10)
        for kept, taken in itertools.product(depths, operations)
    }
    assert len(every) == 3 * (2 + 4)
    target_ms = sorted(map(table.architecture_ms, every))[9]
    inside = {one for one in every if 0.995 * target_ms <= table.architecture_ms(one) <= target_ms}
    assert 1 <= len(inside) < 8
    assert set(random_networks(uniform_choice(space, 10), table, target_ms, 0)) == inside


# ---- judging ------------------------------------------------------------------------------------------------------


def random_architectures(space, number):
    generator, found = random.Random(1), []
    for _ in range(number):
        operations = [generator.randrange(len(space.operations)) for _ in space.blocks]
        widths = [
            generator.choice(space.widths(place, space.operations[operation]))
            for place, operation in zip(space.blocks, operations, strict=True)
        ]
        found.append(
            space.architecture(operations, [generator.choice(d) for d in space.depth_choices], widths, CLASSES)
        )
    return found


def judged_by_extraction(supernet, network, batches):
    """Mean cross entropy and top-1 in percent of the stand-alone network with batch statistics."""
    alone, losses, hits = extract_network(supernet, network).train(), [], []
    for images, labels in batches:
        with torch.no_grad():
            logits = alone(images)
        for row, label in zip(logits.tolist(), labels.tolist(), strict=True):
            losses.append(math.log(math.fsum(math.exp(value) for value in row)) - row[label])
            hits.append(max(row) == row[label])
    return sum(losses) / len(losses), 100 * sum(hits) / len(hits)


def everything(supernet):
    return {name: value.clone() for name, value in supernet.state_dict().items()}, supernet.active_channels()


def test_networks_are_judged_as_the_stand_alone_ones_with_inherited_weights(float64):
    supernet = random_supernet(varied_space())
    networks, batches = random_architectures(supernet.space, 12), [random_batch(seed=3), random_batch(seed=4, size=5)]
    before = everything(supernet)
    judged = evaluate_inherited(supernet, networks, iter(batches), ALONE)
    assert_same(everything(supernet), before)
    expected = [judged_by_extraction(supernet, network, batches) for network in networks]
    assert [found.loss for found in judged] == pytest.approx([loss for loss, _ in expected], rel=1e-10)
    assert [found.top1 for found in judged] == pytest.approx([top1 for _, top1 in expected], rel=1e-12)
    assert len({found.loss for found in judged}) > 6 and len({found.top1 for found in judged}) > 1
    for network, (_, top1) in zip(networks, expected, strict=True):
        assert derived_accuracy(supernet, network, batches, ALONE.device) == pytest.approx(top1, rel=1e-12)
    assert_same(everything(supernet), before)


def test_widths_come_back_after_an_error_too(float64):
    supernet = random_supernet(varied_space())
    before = everything(supernet)
    for network in random_architectures(supernet.space, 3):
        with pytest.raises(RuntimeError, match="expected input"):
            derived_accuracy(supernet, network, [(torch.zeros(2, 5, 8, 8), torch.zeros(2))], ALONE.device)
    assert_same(everything(supernet), before)


def test_the_processes_share_the_drawn_batches():
    whole = list(WholeBatches(100, 16, DistributedContext(0, 1, ALONE.device).share, seed=3))
    for number, most in ((1, 1), (1, 2), (2, 2), (3, 2), (2, 99)):
        divided = [
            WholeBatches(100, 16, DistributedContext(rank, number, ALONE.device).share, seed=3, most=most)
            for rank in range(number)
        ]
        assert [len(part) for part in divided] == [len(list(part)) for part in divided]
        expected = whole[:most]
        assert [list(divided[turn % number])[turn // number] for turn in range(len(expected))] == expected
        assert sum(map(len, divided)) == len(expected)


# ---- agreement ----------------------------------------------------------------------------------------------------


def test_agreement_of_four_networks_counted_by_hand():
    """Six pairs, of which the middle one is the wrong way round."""
    assert agreement([0, -1, -2, -3], [0.1, 0.3, 0.2, 0.4]) == pytest.approx(
        {"probe_tau": 4 / 6, "probe_ordered": 5 / 6}
    )
    assert agreement([0, -1, -2, -3], [4, 3, 2, 1]) == pytest.approx({"probe_tau": -1, "probe_ordered": 0})
    # one pair of equal preference (half), one of equal loss (left out), four the right way round
    assert agreement([0, 0, -1, -2], [1, 2, 3, 3]) == pytest.approx({"probe_tau": 4 / 5, "probe_ordered": 4.5 / 5})
    assert agreement([-1] * 4, [1, 2, 3, 4]) == agreement([0, -1, -2], [1, 1, 1]) == agreement([0], [1]) == {}


def test_the_interval_of_eight_networks():
    losses = [1, 2, 4, 3, 5, 7, 6, 8]  # two of 28 pairs the wrong way round
    found = agreement([-float(place) for place in range(8)], losses)
    tau, reach = 24 / 28, 1.959964 * math.sqrt(0.437 / 4)
    assert found == pytest.approx(
        {
            "probe_tau": tau,
            "probe_tau_low": math.tanh(math.atanh(tau) - reach),
            "probe_tau_high": math.tanh(math.atanh(tau) + reach),
            "probe_ordered": 26 / 28,
        },
        rel=1e-6,
    )


# ---- in a search --------------------------------------------------------------------------------------------------


def test_every_epoch_says_what_the_supernet_is_worth(small_search):
    summary = json.loads((small_search / "summary.json").read_text())
    first, *later = summary["history"]
    assert set(first) >= PROBED and not AGREED & set(first)  # the warm-up
    assert all(set(entry) >= PROBED | AGREED for entry in later) and len(later) == 2
    assert {name: value for name, value in summary.items() if name in PROBED | AGREED}.items() <= later[-1].items()
    assert summary["seconds"]["judging"] > 0
    log = (small_search / "log.txt").read_text()
    assert f"probes {later[-1]['probe_top1']:.1f} % (loss {later[-1]['probe_loss']:.3f}, tau" in log
    assert "8 random networks at the target" in log and "of their 28 pairs" in log


def test_the_last_epoch_again_from_the_checkpoint(tmp_path, small_search):
    """Other code all the way: images drawn here, networks extracted, pairs counted."""
    summary = json.loads((small_search / "summary.json").read_text())
    state = load_checkpoint(search_checkpoints(small_search).saved()[0], SEARCH_KIND)
    supernet, choice = supernet_from_state(state), saved_choice(state)
    part = prepare(small_config(tmp_path, "unused")).data.architecture
    order = torch.randperm(len(part), generator=torch.Generator().manual_seed(derived_seed(4, ORDER_STREAM, 0)))
    images, labels = zip(*(part[Draw(0, place)] for place in order[:96].tolist()), strict=True)
    batches = [(torch.stack(images), torch.tensor(labels))]
    networks = [Architecture.parse(text) for text in summary["probe_networks"]]
    assert len(set(networks)) == 8 and summary["probe_images"] == 96
    judged = [judged_by_extraction(supernet, network, batches) for network in networks]
    last = summary["history"][-1]
    assert last["probe_loss"] == pytest.approx(sum(loss for loss, _ in judged) / 8, rel=1e-4)
    assert last["probe_top1"] == pytest.approx(sum(top1 for _, top1 in judged) / 8, abs=0.2)
    preferences = [preference(choice, network) for network in networks]
    alike = sum(
        (preferences[i] > preferences[j]) == (judged[i][0] < judged[j][0])
        for i, j in itertools.combinations(range(8), 2)
    )
    assert last["probe_ordered"] == pytest.approx(alike / 28)
    assert last["probe_tau"] == pytest.approx(2 * alike / 28 - 1)


def preference(choice, network):
    """How far its log-probabilities lie below the largest ones."""
    total = 0.0
    for place in network.blocks:
        number = choice.space.first_blocks[place.stage] + place.position
        names = [operation.name for operation in choice.space.operations]
        block = place.block
        name = f"k{block.kernel_size}_e{2 if not block.se_channels else 3}{'_se' if block.se_channels else ''}"
        total += choice.log_alphas[number, names.index(name)] - choice.log_alphas[number].max()
    for values, depths, blocks in zip(choice.log_depths, choice.space.depth_choices, network.stages, strict=True):
        total += values[depths.index(len(blocks))] - values.max()
    return total


def without_probes(history):
    return [{name: value for name, value in entry.items() if name not in PROBED | AGREED} for entry in history]


def test_judging_changes_nothing_and_older_runs_go_on(tmp_path, small_search, monkeypatch):
    """A run that is judged from its third epoch on ends bit for bit as one that always was."""
    state, files, history = final_state(small_search)
    with monkeypatch.context() as patched, pytest.raises(Interrupted):
        patched.setattr(differentiable_search, "probe_entry", lambda *_: {})
        patched.setattr(session, "watch_interruption", lambda _: nullcontext(_InterruptAt(27)))
        search(small_config(tmp_path, "older", save_minutes=5.0), QUIET)
    config = tmp_path / "older" / "config.yaml"
    config.write_text("".join(line for line in config.read_text().splitlines(True) if not line.startswith("recipe")))
    search(SearchConfig(resume=str(tmp_path / "older")), QUIET)
    found_state, found_files, found_history = final_state(tmp_path / "older")
    assert_same([found_state, found_files], [state, files])
    assert found_history == [*without_probes(history[:2]), history[2]]


def test_a_run_that_an_older_version_has_ended_is_concluded_again(tmp_path, small_search):
    summary = json.loads((small_search / "summary.json").read_text())
    networks = tuple(Architecture.parse(text) for text in summary["probe_networks"])
    setup = prepare(small_config(tmp_path, "unused"))
    sanity = SanityNetworks(networks, 0.0)
    older = sanity_numbers(setup, sanity, without_probes(summary["history"]))
    assert older == {} == sanity_numbers(setup, sanity, []) and _probe_lines(older) == []
    numbers = sanity_numbers(setup, sanity, summary["history"])
    assert numbers.items() <= summary.items() and len(_probe_lines(numbers)) == 2
