"""Measuring: structure and invariants. How fast anything is, is not tested."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re

import pytest
import torch
from torch import nn

import tfnas
from tfnas.errors import InputError, RunFailed
from tfnas.latency import LatencyTable, latency_key
from tfnas.latency.build import BuildConfig, build_table
from tfnas.latency.loads import places_to_measure, widths_to_measure
from tfnas.latency.measure import Load, Timing, time_fairly, time_network, torch_threads


class Recorder(nn.Module):
    """Notes every call, with what it was given."""

    def __init__(self, name, calls):
        super().__init__()
        self.name, self.calls = name, calls

    def forward(self, features):
        self.calls.append((self.name, self.training, features._version))
        return features


def test_timing_is_median_and_interquartile_spread():
    assert Timing.of([4.0, 1.0, 3.0, 2.0, 100.0]) == Timing(median_ms=3.0, spread_ms=2.0, runs=5)


def test_time_network_calls_in_evaluation_mode_and_restores_it():
    calls = []
    module = Recorder("net", calls).train()
    timing = time_network(module, torch.ones(2, 3), runs=7, warmup=2)
    assert len(calls) == 9 and timing.runs == 7
    assert not any(training for _, training, _ in calls) and module.training
    assert timing.median_ms > 0 and timing.spread_ms >= 0


def test_threads_are_restored_even_after_an_error():
    before = torch.get_num_threads()
    with pytest.raises(KeyError), torch_threads(before + 1):
        assert torch.get_num_threads() == before + 1
        raise KeyError
    assert torch.get_num_threads() == before


def test_rounds_are_interleaved_and_inputs_are_written_anew():
    calls, visits = [], []
    loads = [Load(Recorder(index, calls), torch.full((2, 2), float(index + 1))) for index in range(4)]
    reference = Load(Recorder("reference", calls), torch.ones(1))
    timings = time_fairly(loads, reference, rounds=3, calls=2, seed=0, on_visit=lambda: visits.append(1))
    assert len(visits) == 12
    assert [timing.runs for timing in timings.loads] == [6] * 4
    assert timings.reference.runs == 24
    assert timings.drift[0] <= 1 <= timings.drift[1]
    names = [name for name, _, _ in calls if name != "reference"]
    rounds = [names[start : start + 12 : 3] for start in (0, 12, 24)]
    assert all(sorted(order) == [0, 1, 2, 3] for order in rounds) and len({tuple(order) for order in rounds}) > 1
    after_reference = [own for before, own in itertools.pairwise(calls) if before[0] == "reference" != own[0]]
    assert len(after_reference) == 24 + 1  # every timed call, and the very first of all
    for index in range(4):  # six timed calls of each, each on an input just written
        versions = [version for name, _, version in after_reference if name == index]
        assert versions[-6:] == [1, 2, 3, 4, 5, 6]
    assert [load.example_input[0, 0].item() for load in loads] == [1, 2, 3, 4]


def test_widths_hold_the_ends_and_odd_widths_between():
    assert widths_to_measure(48, 96, 5) == [48, 49, 73, 95, 96]
    assert widths_to_measure(48, 96, 3) == [48, 73, 96]
    assert widths_to_measure(48, 96, 2) == [48, 96]
    assert widths_to_measure(4, 5, 5) == [4, 5]
    for low, high, count in ((32, 64, 4), (33, 65, 6), (6, 10, 9)):
        widths = widths_to_measure(low, high, count)
        assert widths == sorted(set(widths)) and widths[0] == low and widths[-1] == high and len(widths) <= count
        assert all(width % 2 == 1 for width in widths[1:-1])


def test_every_operation_of_every_place_is_measured_over_its_range():
    space = tfnas.space("digits")
    measured = dict(places_to_measure(space, 4))
    for place in space.blocks:
        for operation in space.operations:
            for width in space.width_range(place, operation):
                asked = space.block(place, operation, width)
                block, size = measured[latency_key(asked, place.input_size), width]
                assert size == place.input_size
                assert dataclasses.replace(block, mid_range=asked.mid_range) == asked


TINY_YAML = """\
image_size: 8
name: tiny
stem_channels: 4
stem_stride: 2
stem_activation: relu
second_stem_channels: 4
second_stem_se_channels: 2
stages:
  - {channels: 6, stride: 2, blocks: 2, activation: swish}
feature_mix_channels: 8
feature_mix_activation: swish
operations: [k3_e3, k3_e6, k5_e3_se]
"""


@pytest.fixture
def tiny_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_YAML)
    return path


def test_a_built_table_loads_and_covers_its_space(tiny_file, tmp_path, capsys):
    out = tmp_path / "tables" / "tiny_cpu.json"
    threads = torch.get_num_threads()
    config = BuildConfig(space=str(tiny_file), out=str(out), batch=2, widths_per_block=3, rounds=2, networks=2)
    table = build_table(config)
    assert torch.get_num_threads() == threads
    loaded = LatencyTable.load(out)
    assert loaded.contents == table.contents and loaded.fingerprint == table.fingerprint
    space = tfnas.space(str(tiny_file))
    loaded.check(space)
    measured = loaded.contents.measurement
    assert (measured.space, measured.space_fingerprint) == ("tiny", space.fingerprint)
    assert (measured.batch_size, measured.threads, measured.dtype, measured.device_kind) == (2, 1, "float32", "cpu")
    assert measured.versions["torch"] == torch.__version__
    assert re.search(r"2 random whole networks .* measured \d", measured.procedure)
    # e3 (8..16) and e6 (16..32) without SE share a key; e3 with SE has its own
    assert loaded.contents.curves["MBInvertedResBlock_4_4_0_6_k3_s2_swish"].widths == (8, 13, 16, 25, 32)
    assert loaded.contents.curves["MBInvertedResBlock_4_4_4_6_k5_s2_swish"].widths == (8, 13, 16)
    assert capsys.readouterr().out == ""


def test_another_image_size_is_measured_on_demand(tiny_file, tmp_path):
    config = BuildConfig(
        space=str(tiny_file), out=str(tmp_path / "t.json"), image_size=12, batch=1, rounds=1, calls=1, networks=0
    )
    table = build_table(config)
    table.check(tfnas.space(str(tiny_file)).at(12))
    with pytest.raises(InputError, match="measured for images of 12 px"):
        table.check(tfnas.space(str(tiny_file)))
    assert "whole networks" not in json.loads((tmp_path / "t.json").read_text())["procedure"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "batch must be 1 or more, got 0"),
        ({"threads": -1}, "threads must be 1 or more"),
        ({"rounds": 0}, "rounds must be 1 or more"),
        ({"networks": -1}, "networks must be 0 or more"),
        ({"image_size": 0}, "image_size must be 1 or more"),
        ({"widths_per_block": 1}, "widths_per_block must be 2 or more"),
        ({"dtype": "float8"}, "dtype must be one of float32"),
        ({"device": "tpu"}, "device must be cpu, cuda or cuda:N, got 'tpu'"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        BuildConfig(out="table.json", **changes)


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU here")
def test_a_missing_gpu_is_reported():
    with pytest.raises(InputError, match="PyTorch sees no GPU here"):
        BuildConfig(out="table.json", device="cuda")


def test_a_place_that_cannot_be_written_is_reported_before_measuring(tiny_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFailed, match="could not be written"):
        build_table(BuildConfig(space=str(tiny_file), out=str(tmp_path / "file" / "t.json"), rounds=10**9))


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_table_is_built_on_the_gpu(tiny_file, tmp_path):
    config = BuildConfig(space=str(tiny_file), out=str(tmp_path / "t.json"), device="cuda", batch=2, rounds=2)
    table = build_table(config)
    table.check(tfnas.space(str(tiny_file)))
    assert table.contents.measurement.device == torch.cuda.get_device_name()
