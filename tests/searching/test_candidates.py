"""Choosing among candidates: by the loss that their inherited weights have on the held-out part."""

from __future__ import annotations

import pytest
import torch
from rich.console import Console
from small_search import small_config
from torch.nn import functional

import tfnas
from tfnas.architecture import Architecture
from tfnas.latency import LatencyTable
from tfnas.searching import search
from tfnas.searching.batches import judged_batches
from tfnas.searching.checkpoint import search_checkpoints
from tfnas.searching.setup import prepare
from tfnas.supernet.extract import extract_network, supernet_from_state

QUIET = Console(quiet=True)


def loss_of(network, batches):
    """Mean cross entropy with the statistics of each batch: a plain network that is still training."""
    network.train()
    with torch.no_grad():
        losses = [
            (functional.cross_entropy(network(images), labels, reduction="sum"), len(labels))
            for images, labels in batches
        ]
    return float(sum(loss for loss, _ in losses)) / sum(count for _, count in losses)


@pytest.fixture(scope="module")
def chosen(tmp_path_factory):
    folder = tmp_path_factory.mktemp("candidates")
    config = small_config(folder, "run", candidates=6, shared_weights=True, sampled_depth=True)
    return config, search(config, QUIET)


def test_the_candidate_of_lowest_held_out_loss_is_taken(chosen):
    config, result = chosen
    summary = result.summary
    state, _, _ = search_checkpoints(result.run_dir).load_latest()
    batches = list(judged_batches(prepare(config)))
    losses = {
        name: loss_of(extract_network(supernet_from_state(state), Architecture.parse(summary[name])), batches)
        for name in ("architecture", "derived_architecture")
    }
    assert losses["architecture"] == pytest.approx(summary["chosen_loss"], rel=1e-4)
    assert losses["derived_architecture"] == pytest.approx(summary["derived_loss"], rel=1e-4)
    assert losses["architecture"] <= losses["derived_architecture"]
    assert 2 <= summary["candidates"] <= 6


def test_the_candidate_meets_the_target(chosen):
    config, result = chosen
    table = LatencyTable.load(config.lookup_path)
    assert 0.995 * config.target_lat <= table.architecture_ms(result.architecture) <= config.target_lat
    assert tfnas.space(config.space).fingerprint == result.summary["space_fingerprint"]


def test_one_candidate_is_the_derived_one_unjudged(tmp_path):
    result = search(small_config(tmp_path, "run", epochs=2), QUIET)
    assert "candidates" not in result.summary
