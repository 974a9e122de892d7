"""Choosing among candidates: by the loss that their inherited weights have on the held-out part."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import tfnas
from tfnas.core.architecture import Architecture
from tfnas.latency.cost_table import LatencyTable
from tfnas.runs.run_directory import search_checkpoints
from tfnas.searching.differentiable.search_setup import evaluation_batches, prepare
from tfnas.supernet.extract import extract_network, supernet_from_state


def loss_of(network, batches):
    """Mean cross entropy with the statistics of each batch: a plain network that is still training."""
    network.train()
    with torch.no_grad():
        losses = [
            (functional.cross_entropy(network(images), labels, reduction="sum"), len(labels))
            for images, labels in batches
        ]
    return float(sum(loss for loss, _ in losses)) / sum(count for _, count in losses)


def test_the_candidate_of_lowest_held_out_loss_is_taken(searched_small):
    config, result = searched_small
    summary = result.summary
    state, _, _ = search_checkpoints(result.run_dir).load_latest()
    batches = list(evaluation_batches(prepare(config)))
    losses = {
        name: loss_of(extract_network(supernet_from_state(state), Architecture.parse(summary[name])), batches)
        for name in ("architecture", "derived_architecture")
    }
    assert losses["architecture"] == pytest.approx(summary["chosen_loss"], rel=1e-4)
    assert losses["derived_architecture"] == pytest.approx(summary["derived_loss"], rel=1e-4)
    assert losses["architecture"] <= losses["derived_architecture"]
    assert 2 <= summary["candidates"] <= 4


def test_the_candidate_meets_the_target(searched_small):
    config, result = searched_small
    table = LatencyTable.load(config.lookup_path)
    assert 0.995 * config.target_lat <= table.architecture_ms(result.architecture) <= config.target_lat
    assert tfnas.space(config.space).fingerprint == result.summary["space_fingerprint"]
