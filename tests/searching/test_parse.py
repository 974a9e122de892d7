"""Parsing: every kind of input, its price, the files written and what is shown of it."""

from __future__ import annotations

import dataclasses
import json
import random
import re
import shutil

import numpy as np
import pytest
import torch
from authors_checkpoint import authors_document
from rich.console import Console

import tfnas
from tfnas.bench.timing import time_network
from tfnas.cli import parsing_model
from tfnas.core.errors import InputError, RunFailed
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import default_table_path
from tfnas.latency.table_contents import BasePart, ClassifierPart, Curve, Measurement, TableContents
from tfnas.nn.network import Network
from tfnas.report.parse_report import print_report, print_timings
from tfnas.runs.run_directory import search_checkpoints
from tfnas.searching.parsing import parse_model, write_files
from tfnas.spaces.mbconv.table_keys import classifier_key, latency_key, stem_keys

TEXT = (
    "i3x16_n10:conv_k3_s1_c16_relu:mb_k3_s1_m16_se4_c16_relu"
    ":mb_k5_s2_m54_w32-64_c24_relu"
    ":mb_k3_s2_m80_w48-96_se24_c32_swish,mb_k5_s1_m131_w128-256_se64_c32_swish"
    ":mb_k3_s1_m100_w64-128_c48_swish"
    ":conv_k1_s1_c96_swish"
)

SMALL_SPACE = """
name: small
image_size: 16
stem_channels: 4
stem_stride: 2
stem_activation: relu
second_stem_channels: 4
second_stem_se_channels: 2
stages:
  - {channels: 6, stride: 2, blocks: 1, activation: relu}
  - {channels: 8, stride: 1, blocks: 2, activation: swish, min_blocks: 1}
feature_mix_channels: 12
feature_mix_activation: swish
operations: [k3_e3, k5_e6_se]
"""


@pytest.fixture(scope="module")
def architecture():
    return tfnas.Architecture.parse(TEXT)


def table_for(architecture, seed=0):
    """A made-up table in our form that prices exactly this architecture."""
    numbers = random.Random(seed)
    curves = {
        latency_key(place.block, place.input_size): Curve((place.block.mid_channels,), (numbers.uniform(1, 2),), (0.0,))
        for place in architecture.blocks
    }
    base = {name: BasePart(key, numbers.uniform(0.1, 1), 0.0) for name, key in stem_keys(architecture).items()}
    head = ClassifierPart(classifier_key(architecture), Curve((architecture.num_classes,), (0.25,), (0.0,)))
    measurement = Measurement(
        space="made up",
        space_fingerprint="none",
        image_size=architecture.image_size,
        device="Made-up [board]",
        device_kind="cpu",
        runtime="torch",
        batch_size=3,
        threads=1,
        dtype="float32",
        num_classes=architecture.num_classes,
        width_multiple=1,
        worker=False,
        versions={},
        date="2025-01-31",
        procedure="made up",
    )
    return LatencyTable(TableContents(base, curves, measurement, head))


@pytest.fixture
def run_dir(tmp_path, architecture):
    """A finished run directory with a table of its own."""
    folder = tmp_path / "run"
    folder.mkdir()
    table = table_for(architecture)
    table.save(tmp_path / "table.json")
    summary = {
        "architecture": TEXT,
        "target_ms": 12.5,
        "lookup_path": str(tmp_path / "table.json"),
        "table_fingerprint": table.fingerprint,
    }
    (folder / "summary.json").write_text(json.dumps(summary))
    (folder / "architecture.json").write_text(json.dumps(architecture.to_json()))
    (folder / "model.config").write_text(json.dumps(architecture.to_model_config()))
    return folder


def checkpoint_in(folder, space, best):
    """A checkpoint of a search in which operation `best` leads everywhere and every stage is at its deepest."""
    log_alphas = torch.zeros(len(space.blocks), len(space.operations))
    log_alphas[:, best] = 1.0
    (folder / "checkpoints").mkdir(parents=True, exist_ok=True)
    state = {
        "space": space.to_json(),
        "num_classes": 10,
        "parameters": {
            "log_alphas": log_alphas.log_softmax(1),
            **{f"betas.{stage}": torch.arange(float(len(c))) for stage, c in enumerate(space.depth_choices)},
        },
        "active": [[torch.arange(space.initial_width(p, o)) for o in space.operations] for p in space.blocks],
        "target_ms": 12.5,
        "lookup_path": None,
        "table_fingerprint": None,
    }
    return search_checkpoints(folder).save(state, epoch=4, step=7)


# ---- what can be read -----------------------------------------------------------------------------------------------


def test_a_finished_run(run_dir, architecture):
    table = table_for(architecture)
    parts = [*table.contents.base.values(), *table.contents.curves.values()]
    expected_ms = 0.25 + sum(part.ms if isinstance(part, BasePart) else part.ms[0] for part in parts)
    for path in (run_dir, run_dir / "architecture.json", run_dir / "model.config"):
        parsed = parse_model(path)
        assert parsed.architecture == architecture
        assert parsed.target_ms == 12.5
        assert parsed.table_ms == pytest.approx(expected_ms, rel=1e-12)
        assert parsed.error_percent == pytest.approx((expected_ms - 12.5) / 12.5 * 100, rel=1e-9)
        assert parsed.source.finished_run == run_dir
        assert parsed.notes == ()


def test_the_parts_add_up(run_dir, architecture):
    parsed = parse_model(run_dir)
    assert [part.label for part in parsed.parts] == ["stem 1", "stem 2", "1.1", "2.1", "2.2", "3.1", "mix", "head"]
    assert [part.input_size for part in parsed.parts] == [16, 16, 16, 8, 4, 4, 4, 4]
    assert sum(part.counts.params for part in parsed.parts) == parsed.counts.params
    assert sum(part.counts.macs for part in parsed.parts) == parsed.counts.macs
    assert sum(part.table_ms for part in parsed.parts) == pytest.approx(parsed.table_ms, rel=1e-12)
    assert parsed.counts.params == sum(p.numel() for p in Network(architecture).parameters())
    # 1.1 by hand: 16 -> 54 -> 24, 5x5, stride 2, on 16 x 16 pixels, batch norms with two numbers a channel
    assert parsed.parts[2].counts.params == 16 * 54 + 25 * 54 + 54 * 24 + 2 * (54 + 54 + 24)
    assert parsed.parts[2].counts.macs == 16 * 54 * 16**2 + 25 * 54 * 8**2 + 54 * 24 * 8**2


def test_an_unfinished_run_and_its_checkpoints(tmp_path):
    space = tfnas.space("digits")
    run = tmp_path / "run"
    path = checkpoint_in(run, space, best=5)
    for source in (run, path):
        parsed = parse_model(source)
        assert [place.block.to_text()[:12] for place in parsed.architecture.blocks] == [
            *("mb_k3_s2_m96", "mb_k3_s2_m14", "mb_k3_s1_m19", "mb_k3_s1_m19", "mb_k3_s1_m28")
        ]
        assert parsed.source.finished_run is None
        assert parsed.target_ms == 12.5
        assert any("after 4 epochs and 7 steps, not yet fitted to the target" in note for note in parsed.notes)


def test_a_damaged_newest_checkpoint_is_passed_over(tmp_path):
    space = tfnas.space("digits")
    older = checkpoint_in(tmp_path, space, best=1)
    newer = older.with_name("search-0005-000000.pt")
    newer.write_bytes(older.read_bytes()[:-100])
    parsed = parse_model(tmp_path)
    assert any("search-0005-000000.pt is damaged" in note for note in parsed.notes)
    with pytest.raises(InputError, match=r"search-0005-000000\.pt is no readable checkpoint"):
        parse_model(newer)


@pytest.mark.parametrize("zipped", [True, False])
def test_the_authors_checkpoint(tmp_path, zipped):
    (tmp_path / "small.yaml").write_text(SMALL_SPACE)
    path = tmp_path / "searched_model_EE.pth.tar"
    torch.save(authors_document(), path, _use_new_zipfile_serialization=zipped)
    parsed = parse_model(path, space=str(tmp_path / "small.yaml"), num_classes=3)
    assert [place.block.mid_channels for place in parsed.architecture.blocks] == [27, 19, 61]
    assert parsed.architecture.num_classes == 3
    assert parsed.table is None and parsed.table_ms is None and parsed.error_percent is None
    with pytest.raises(InputError, match=r"searched_model_EE\.pth\.tar is not of space imagenet"):
        parse_model(path)


def test_a_model_config_alone(tmp_path, architecture):
    path = tmp_path / "mine.config"
    path.write_text(json.dumps(architecture.to_model_config()))
    parsed = parse_model(path)
    assert parsed.architecture.image_size == 224
    assert parsed.notes[0] == "mine.config has no image size; assuming 224; override with --image_size"
    assert parse_model(path, image_size=20).architecture.image_size == 20
    (tmp_path / "architecture.json").write_text(json.dumps(architecture.to_json()))
    assert parse_model(path).architecture == architecture  # the same network beside it says 16


def test_the_oracles_model_configs_come_back_equal(shared_data, tmp_path):
    nets = json.loads((shared_data / "oracles" / "tfnas.json").read_text())["nets"]
    cases = [net for net in nets if net["model_config"] is not None]
    assert cases
    for number, net in enumerate(cases):
        path = tmp_path / f"{number}.config"
        path.write_text(json.dumps(net["model_config"]))
        parsed = parse_model(path, space="imagenet")
        assert parsed.counts.params == net["params"]
        assert parsed.counts.macs == round(net["macs_m"] * 1e6)
        authors, ours = write_files(parsed, str(tmp_path / "model.config"))
        assert json.loads(authors.read_text()) == net["model_config"]
        assert tfnas.Architecture.load(ours) == parsed.architecture


# ---- what is refused ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none", None, "none cannot be read .*give a run directory, a checkpoint"),
        ("empty", b"", "is neither JSON .* nor a checkpoint"),
        ("words", b"hello", "is neither JSON"),
        ("half.json", b'{"format":', "half.json cannot be read as JSON"),
        ("other.json", b"{}", "other.json: expected keys stage1"),
        ("bad.json", b'{"format": "else"}', "bad.json: expected format"),
        ("torn.pt", b"PK\x03\x04rest", "torn.pt is no readable checkpoint"),
        ("run.pkl", b"\x80\x04\x8c\x02os\x8c\x06getcwd\x93)R.", "could run code"),
    ],
)
def test_files_refused(tmp_path, name, content, message):
    if content is not None:
        (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=message):
        parse_model(tmp_path / name)


def test_folders_refused(tmp_path, run_dir):
    with pytest.raises(
        InputError, match=r"is not a run directory: it contains neither architecture\.json nor checkpoints/"
    ):
        parse_model(tmp_path)
    (tmp_path / "checkpoints").mkdir()
    with pytest.raises(InputError, match="contains no readable checkpoint"):
        parse_model(tmp_path)
    for text in ("{", '{"a":' + "[" * 3000 + "]" * 3000 + "}", '{"target_ms": 1, "target_ms": 2}', '{"a": "\xff"}'):
        (run_dir / "summary.json").write_bytes(text.encode("latin-1"))
        for path in (run_dir, run_dir / "architecture.json", run_dir / "model.config"):
            with pytest.raises(InputError, match=r"^\S*summary\.json cannot be read as JSON: [^\n]*$"):
                parse_model(path)


def test_a_file_that_cannot_be_read_is_not_replaced(tmp_path, run_dir, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (run_dir / "summary.json").unlink()
    parsed = parse_model(run_dir / "architecture.json")
    write_files(parsed)
    write_files(parsed)
    whole = (tmp_path / "model.config").read_bytes()
    (tmp_path / "model.config").write_bytes(b"\xef\xbb\xbf" + whole)
    write_files(parsed)
    for content in (b"[" * 3000 + b"]" * 3000, whole[:-3], whole[:1] + b'"stage1": 1, ' + whole[1:]):
        (tmp_path / "model.config").write_bytes(content)
        with pytest.raises(InputError, match=r"model\.config already exists with different contents"):
            write_files(parsed)
        assert (tmp_path / "model.config").read_bytes() == content


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"image_size": 32}, "its image_size is 32, the space's is 16"),
        ({"first_stem": {"activation": "swish"}}, "its first stem is"),
        ({"second_stem": {"se_channels": 0}}, "its second stem is"),
        ({"feature_mix": {"out_channels": 64}}, "its feature mix is"),
    ],
)
def test_networks_of_another_space_are_refused(tmp_path, architecture, change, message):
    def changed(part, value):
        return dataclasses.replace(getattr(architecture, part), **value) if isinstance(value, dict) else value

    other = dataclasses.replace(architecture, **{part: changed(part, value) for part, value in change.items()})
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(other.to_json()))
    with pytest.raises(InputError, match=rf"architecture\.json is not a network of space digits: .*{message}"):
        parse_model(path, space="digits")


def test_blocks_of_another_space_are_refused(tmp_path, run_dir, architecture):
    assert parse_model(run_dir, space="digits").architecture.to_text() == TEXT
    (tmp_path / "relu.json").write_text(json.dumps(tfnas.Architecture.parse(TEXT.replace("swish", "relu")).to_json()))
    with pytest.raises(InputError, match="its feature mix is"):
        parse_model(tmp_path / "relu.json", space="digits")
    relu = tfnas.Architecture.parse(TEXT.replace("c32_swish", "c32_relu"))
    (tmp_path / "relu.json").write_text(json.dumps(relu.to_json()))
    with pytest.raises(InputError, match=r"stage2\.block1 of space digits offers no operation like mb_.*_relu"):
        parse_model(tmp_path / "relu.json", space="digits")
    first, second, third = architecture.stages
    for stages, message in (
        ((first, second, third, ()), "its number of stages is 4, the space's is 3"),
        ((first, (*second, second[1]), third), r"its stage 2 has 3 blocks, the space's \(1, 2\)"),
    ):
        (tmp_path / "other.json").write_text(json.dumps(dataclasses.replace(architecture, stages=stages).to_json()))
        with pytest.raises(InputError, match=message):
            parse_model(tmp_path / "other.json", space="digits")
    (tmp_path / "without.yaml").write_text("extends: digits\noperations: [k3_e3, k3_e6]\n")
    with pytest.raises(
        InputError, match=r"space without: stage1\.block1 of space without offers no operation like mb_k5"
    ):
        parse_model(run_dir, space=str(tmp_path / "without.yaml"))


# ---- the table ------------------------------------------------------------------------------------------------------


def test_a_table_asked_for_must_fit(tmp_path, run_dir, architecture):
    other = table_for(architecture, seed=1)
    other.save(tmp_path / "other.json")
    parsed = parse_model(run_dir, lookup_path=tmp_path / "other.json")
    assert parsed.table_ms == pytest.approx(other.architecture_ms(architecture))
    assert parsed.notes == ("the target was set with another table than this one",)
    with pytest.raises(InputError, match=r"other\.json.* is for other networks"):
        parse_model(run_dir, lookup_path=tmp_path / "other.json", image_size=32)


def test_the_runs_table_gone_or_changed(tmp_path, run_dir, architecture):
    (tmp_path / "table.json").unlink()
    parsed = parse_model(run_dir)
    assert re.match("the search's own table cannot be used: latency table .* cannot be read", parsed.notes[0])
    table_for(architecture, seed=1).save(tmp_path / "table.json")
    assert "has changed since the search" in parse_model(run_dir).notes[0]


def test_the_shipped_table_is_found_by_the_network(tmp_path, monkeypatch):
    device = LatencyTable.load(default_table_path("digits")).contents.measurement.device
    monkeypatch.setattr("tfnas.utils.devices.processor_name", lambda: device)  # elsewhere the note would say so
    architecture = tfnas.Architecture.parse(TEXT)
    path = tmp_path / "architecture.json"
    path.write_text(json.dumps(architecture.to_json()))
    parsed = parse_model(path)
    assert parsed.table is not None and parsed.table.contents.measurement.space == "digits"
    assert parsed.notes == ("latency from the bundled table of space digits",)
    assert parse_model(path, image_size=20).notes == (
        "no bundled latency table fits this network; give one with --lookup_path",
    )


# ---- files and words ------------------------------------------------------------------------------------------------


def test_where_files_go(tmp_path, run_dir, architecture, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = {path.name: path.read_bytes() for path in run_dir.iterdir()}
    assert write_files(parse_model(run_dir)) == (run_dir / "model.config", run_dir / "architecture.json")
    assert set(before) == {path.name for path in run_dir.iterdir()}
    assert tfnas.Architecture.load(run_dir) == architecture
    changed = parse_model(run_dir, num_classes=3)  # not the run's own result: the run's files stay
    assert [str(path) for path in write_files(changed)] == ["model.config", "architecture.json"]
    assert tfnas.Architecture.load(tmp_path / "architecture.json").num_classes == 3
    assert tfnas.Architecture.load(run_dir).num_classes == 10
    (tmp_path / "nets").mkdir()
    assert write_files(changed, "nets") == tuple(
        (tmp_path / "nets").relative_to(tmp_path) / n for n in ("model.config", "architecture.json")
    )
    assert [str(path) for path in write_files(changed, "nets/a.config")] == ["nets/a.config", "nets/a.json"]


def test_what_an_unfinished_search_would_derive_is_written_only_where_asked_for(tmp_path, monkeypatch, capsys):
    checkpoint_in(tmp_path / "run", tfnas.space("digits"), best=1)
    monkeypatch.chdir(tmp_path)
    for name in ("architecture.json", "model.config"):
        (tmp_path / name).write_text("mine")
    assert parsing_model.main(["--model_path", "run"]) == 0
    assert "written    nothing: the search is not finished; --save_path FILE" in capsys.readouterr().out
    assert {path.name: path.read_text() for path in tmp_path.iterdir() if path.is_file()} == {
        "architecture.json": "mine",
        "model.config": "mine",
    }
    assert not (tmp_path / "run" / "architecture.json").exists()
    assert parsing_model.main(["--model_path", "run", "--save_path", "model.config"]) == 0
    parsed = parse_model(tmp_path / "run")
    assert tfnas.Architecture.load(tmp_path / "architecture.json") == parsed.architecture
    assert json.loads((tmp_path / "model.config").read_text()) == parsed.architecture.to_model_config()


@pytest.mark.parametrize("name", ["model.config", "architecture.json"])
@pytest.mark.parametrize("content", ["mine", None])
def test_another_network_is_not_replaced_unasked(tmp_path, run_dir, monkeypatch, capsys, name, content):
    """Neither any file of that name, nor the result of the run that the command stands in."""
    folder = run_dir if content is None else tmp_path
    if content is not None:
        (folder / name).write_text(content)
    monkeypatch.chdir(folder)
    before = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    given = ["--model_path", str(run_dir / name), "--num_classes", "3"]
    assert parsing_model.main(given) == 2
    message = capsys.readouterr().err
    assert (
        f"{folder}/" in message
        and "already exists with different contents" in message
        and "--save_path model.config replaces" in message
    )
    assert {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()} == before
    assert parsing_model.main([*given, "--save_path", "model.config"]) == 0
    assert parsing_model.main(given) == 0  # the same network is no other
    assert tfnas.Architecture.load(folder / "architecture.json").num_classes == 3


def test_where_files_cannot_go(tmp_path, run_dir):
    parsed = parse_model(run_dir)
    with pytest.raises(InputError, match=r"\.json is the ending of our own form"):
        write_files(parsed, str(tmp_path / "a.json"))
    with pytest.raises(InputError, match=r"there is no folder .*none; make it first"):
        write_files(parsed, str(tmp_path / "none" / "model.config"))
    (tmp_path / "full" / "a.json").mkdir(parents=True)
    with pytest.raises(RunFailed, match="cannot write"):
        write_files(parsed, str(tmp_path / "full" / "a.config"))


def shown(parsed, width, terminal):
    console = Console(width=width, force_terminal=terminal, color_system=None)
    with console.capture() as capture:
        print_report(console, parsed, ())
    return capture.get()


@pytest.mark.parametrize("terminal", [True, False])
def test_the_report_cuts_nothing(run_dir, terminal):
    parsed = parse_model(run_dir)
    texts = [shown(parsed, width, terminal) for width in (30, 80, 120)]
    assert "…" not in "".join(texts)
    if terminal:  # long lines are wrapped between words, the table is not
        assert max(len(line) for line in texts[1].splitlines() if "/" not in line) <= 80  # a path stays whole
    else:
        assert texts[1] == texts[2]
    squeezed = [re.sub(r"\s+", "", text) for text in texts]
    assert squeezed[0] == squeezed[1]
    rows = texts[1].split("\n\n")[0].splitlines()
    assert max(map(len, rows)) <= 80
    block = next(row for row in texts[1].splitlines() if row.startswith("2.2")).split()
    assert block[:9] == ["2.2", "MBConv", "k5", "32", "32", "131", "64", "1", "4"]
    assert f"({parsed.counts.params:,})" in texts[1]
    assert "target     12.5 ms (table latency" in texts[1]
    assert "Made-up [board], torch, batch 3" in texts[1]


def test_widest_rows_fit_80_columns(tmp_path):
    space = tfnas.space("imagenet")
    widths = [space.width_range(place, space.operations[7])[1] for place in space.blocks]
    depths = [max(choices) for choices in space.depth_choices]
    largest = space.architecture([7] * len(widths), depths, widths, 1000)
    (tmp_path / "architecture.json").write_text(json.dumps(largest.to_json()))
    table = table_for(largest)
    table.save(tmp_path / "table.json")
    text = shown(parse_model(tmp_path / "architecture.json", lookup_path=tmp_path / "table.json"), 80, True)
    rows = [line.rstrip() for line in text.splitlines() if re.match(r"(part|stem|mix|head|\d\.\d)", line)]
    assert len(rows) == 1 + 2 + len(widths) + 2
    assert max(map(len, rows)) <= 80


def time_here(parsed, device):
    """The timings that `--print_lat` prints."""
    architecture = parsed.architecture
    return time_network(lambda: Network(architecture), architecture.image_size, parsed.timed_batches, device, seed=2)


def test_timing_here(run_dir):
    torch.manual_seed(0)
    before = torch.get_rng_state()
    parsed = parse_model(run_dir)
    found = list(time_here(parsed, "cpu"))
    assert [(item.device, item.batch_size) for item in found] == [("CPU, 1 thread", batch) for batch in (1, 3, 32)]
    assert all(item.timing.median_ms > 0 and item.timing.runs >= 5 for item in found)
    assert torch.equal(torch.get_rng_state(), before)
    console = Console(width=40, color_system=None)
    with console.capture() as capture:
        print_timings(console, parsed, found)
    assert re.search(r"batch 32 +[\d.]+ ms \+- [\d.]+ ms of +\d+ runs   CPU, 1 thread\n", capture.get())
    assert f"CPU, 1 thread; table latency {parsed.table_ms:.3f} ms" in capture.get()


@pytest.mark.parametrize("device", ["gpu", "cuda:99", "meta"])
def test_devices_refused(run_dir, device):
    with pytest.raises(InputError, match=device):
        time_here(parse_model(run_dir), device)


def test_the_run_can_move(tmp_path, run_dir, architecture):
    shutil.move(run_dir, tmp_path / "elsewhere")
    assert parse_model(tmp_path / "elsewhere").architecture == architecture
    assert np.isfinite(parse_model(tmp_path / "elsewhere").error_percent)
