"""A table of another machine, runtime or number type: warned of where nobody chose it, noted where somebody did."""

from __future__ import annotations

import dataclasses
import json
import random

import pytest
from rich.console import Console
from tiny import measurement, tiny_contents, tiny_space

import tfnas
from tfnas.bench.timing import NetworkTiming, Timing
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.counted_table import counted_table
from tfnas.latency.default_table import default_table_path, other_conditions, other_machine, search_remarks
from tfnas.report.parse_report import print_timings
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.searching.differentiable.search_setup import prepare
from tfnas.searching.differentiable.search_text import table_remarks
from tfnas.searching.parsing import parse_model
from tfnas.utils.devices import device_names


@pytest.fixture(autouse=True)
def made_up_machine(monkeypatch):
    monkeypatch.setattr("tfnas.utils.devices.processor_name", lambda: "Made-up Processor")


def table_with(**changes):
    space = tiny_space()
    contents = tiny_contents(space, random.Random(3))
    return LatencyTable(dataclasses.replace(contents, measurement=measurement(space, **changes)))


def remarks(table, shipped):
    return search_remarks(table, shipped=shipped, space_flags=["--space", "tiny"])


@pytest.mark.parametrize("shipped", [True, False])
def test_nothing_is_said_where_nothing_is_wrong(shipped):
    assert remarks(table_with(), shipped) == ()
    assert remarks(counted_table(tiny_space(), "macs"), shipped) == ()
    authors = LatencyTable(dataclasses.replace(table_with().contents, measurement=None, classifier=None))
    assert remarks(authors, shipped) == ()
    assert remarks(table_with(device="Raspberry Pi 5", worker=True), shipped) == ()  # of another device on purpose


def test_a_table_that_nobody_chose_is_warned_of():
    (warning,) = remarks(table_with(device="Another Processor"), shipped=True)
    assert warning.startswith("warning: the table was measured on Another Processor, this machine has Made-up Proc")
    assert "-m tfnas latency build --space tiny --out FILE" in warning


def test_of_a_table_that_was_chosen_it_is_said_where_it_holds():
    (warning,) = remarks(table_with(device="Another Processor"), shipped=False)
    assert warning.startswith("warning: ") and "Another Processor" in warning and "latency build" not in warning


@pytest.mark.parametrize("shipped", [True, False])
def test_another_runtime_number_type_or_number_of_threads_is_warned_of(shipped):
    (warning,) = remarks(table_with(runtime="onnxruntime"), shipped)
    assert warning.startswith("warning: the target applies to onnxruntime, not to PyTorch")
    (warning,) = remarks(table_with(runtime="openvino", dtype="bfloat16", threads=2), shipped)
    assert "openvino, bfloat16, 2 threads, not" in warning
    (warning,) = remarks(table_with(threads=4), shipped)
    assert "the target applies to 4 threads, not" in warning


def test_a_gpu_table_is_compared_with_the_gpus_here(monkeypatch):
    table = table_with(device="Some GPU", device_kind="cuda")
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert other_machine(table) == "the table was measured on Some GPU, this machine has no GPU"
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.setattr("torch.cuda.get_device_name", lambda index: ["Old GPU", "Some GPU", "Old GPU"][index])
    assert device_names("cuda") == ("Old GPU", "Some GPU")
    assert other_machine(table) is None


def test_conditions_that_differ_are_listed():
    space = tiny_space()
    assert other_conditions(measurement(space), "Made-up Processor", 1) == []
    listed = other_conditions(measurement(space, runtime="openvino", dtype="float64", threads=2), "Another", 1)
    assert listed == ["on Made-up Processor", "openvino", "float64", "2 threads"]
    on_gpu = measurement(space, device="Some GPU", device_kind="cuda", threads=2)
    assert other_conditions(on_gpu, "Some GPU", 1) == []


# ---- where it is said -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("named", "words"),
    [(None, "latency build"), ("default", "latency build"), ("copy", "the target applies to that device")],
)
def test_a_search_is_given_the_remarks(tmp_path, named, words):
    """Also where a resumed run names the default table by its path."""
    path = default_table_path("digits")
    lookup_path = None if named is None else str(path)
    if named == "copy":
        (tmp_path / "mine.json").write_bytes(path.read_bytes())
        lookup_path = str(tmp_path / "mine.json")
    setup = prepare(SearchConfig(target_lat=15, lookup_path=lookup_path, device="cpu"))
    remarks = table_remarks(setup)
    assert len(remarks) == 1 and remarks[0].startswith("warning: ") and words in remarks[0]


def test_a_search_with_the_table_of_this_machine_says_nothing(monkeypatch):
    device = LatencyTable.load(default_table_path("digits")).contents.measurement.device
    monkeypatch.setattr("tfnas.utils.devices.processor_name", lambda: device)
    assert table_remarks(prepare(SearchConfig(target_lat=15, device="cpu"))) == ()


def parsed_network(folder, **flags):
    space = tfnas.space("digits")
    widths = [space.initial_width(place, space.operations[0]) for place in space.blocks]
    document = space.architecture([0] * 5, [1, 2, 2], widths, 10).to_json()
    (folder / "architecture.json").write_text(json.dumps(document))
    return parse_model(folder / "architecture.json", **flags)


def test_a_parsed_network_notes_that_the_shipped_table_is_of_another_machine(tmp_path, monkeypatch):
    (note,) = [note for note in parsed_network(tmp_path).notes if "bundled table of space digits" in note]
    assert note.endswith("this machine has Made-up Processor")
    device = LatencyTable.load(default_table_path("digits")).contents.measurement.device
    monkeypatch.setattr("tfnas.utils.devices.processor_name", lambda: device)
    assert "latency from the bundled table of space digits" in parsed_network(tmp_path).notes


def test_timings_here_say_what_of_the_table_is_not_alike(tmp_path):
    parsed = parsed_network(tmp_path)
    contents = parsed.table.contents
    table = LatencyTable(
        dataclasses.replace(contents, measurement=dataclasses.replace(contents.measurement, runtime="onnxruntime"))
    )
    parsed = dataclasses.replace(parsed, table=table)
    here = contents.measurement.device
    console = Console(width=200)
    with console.capture() as capture:
        timings = [NetworkTiming("CPU, 1 thread", name, 32, Timing(9.0, 0.1, 5)) for name in (here, "Another")]
        print_timings(console, parsed, timings)
    same, other = [line for line in capture.get().splitlines() if "table latency" in line]
    assert same.endswith("(onnxruntime)") and other.endswith(f"(on {here}, onnxruntime)")
