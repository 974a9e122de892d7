"""A search small enough for tests: 8 px digits, a tiny space as a YAML file, a made-up table."""

from __future__ import annotations

import random

import yaml
from tiny import tiny_contents, tiny_space

from tfnas.latency.cost_table import LatencyTable
from tfnas.searching.differentiable.search_config import SearchConfig

PROCEDURE = {"shared_weights": True, "sampled_depth": True, "candidates": 4}  # that of the small spaces


def write_inputs(folder, **changes):
    """Write space and table; returns the flags that name them."""
    space = tiny_space(**changes)
    document = space.to_json()
    document["schedule"] = {"epochs": 3, "warmup_epochs": 1, "batch_size": 96, "w_lr": 0.05, "threads": 1, **PROCEDURE}
    (folder / "tiny.yaml").write_text(yaml.safe_dump(document))
    LatencyTable(tiny_contents(space, random.Random(3))).save(folder / "table.json")
    return {"space": str(folder / "tiny.yaml"), "lookup_path": str(folder / "table.json")}


def middle_ms(inputs):
    """A target in the middle of the space's range."""
    from tfnas.spaces.mbconv.space_file import space

    low, high = LatencyTable.load(inputs["lookup_path"]).range_ms(space(inputs["space"]))
    return (low + high) / 2


def small_config(folder, name, inputs=None, **changes):
    """The configuration of a run in `folder/name`, which saves after every step.

    `inputs` are what `write_inputs` gave, by default of the tiny space.
    """
    inputs = inputs or write_inputs(folder)
    settings = {"target_lat": middle_ms(inputs), "seed": 4, "device": "cpu", "save_minutes": 1e-9, **inputs}
    return SearchConfig(run_dir=str(folder / name), **{**settings, **changes})
