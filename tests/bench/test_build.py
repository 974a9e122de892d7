"""Building a table: on devices of known truth, killed and resumed, and for real on a tiny space."""

from __future__ import annotations

import dataclasses
import itertools
import json
import re
import resource
import zlib

import numpy as np
import pytest
import torch
from made_device import MadeDevice, smooth

import tfnas
from tfnas.bench.bench_config import BuildConfig
from tfnas.bench.build_table import build_table
from tfnas.core.errors import InputError, RunFailed
from tfnas.latency.cost_table import LatencyTable
from tfnas.latency.default_table import table_space
from tfnas.latency.table_contents import WidthClasses
from tfnas.report.table_report import ALL, interpolation_errors
from tfnas.spaces.mbconv.table_keys import latency_key, widths_by_key

DIGITS = tfnas.space("digits")


@pytest.fixture
def build_on(tmp_path, monkeypatch):
    """Builds a table of the digits space on a device into `tmp_path / "t.json"`."""

    def build(device, **changes):
        monkeypatch.setattr("tfnas.bench.build_table.open_bench", lambda *_: device)
        fields = {"out": str(tmp_path / "t.json"), "num_classes": 10, "rounds": 3}
        return build_table(BuildConfig(**{**fields, **changes}))

    return build


def relative_errors(table, truth):
    """Of every block at every width of the space."""
    errors = []
    for place in DIGITS.blocks:
        for operation in DIGITS.operations:
            low, high = DIGITS.width_range(place, operation)
            block = DIGITS.block(place, operation, low)
            key = next(key for key in table.contents.curves if matches(key, block, place.input_size))
            expected = np.array([truth(key, width) for width in range(low, high + 1)])
            errors += list(np.abs(table.widths_ms(block, place.input_size) / expected - 1))
    return np.array(errors)


def matches(key, block, size):
    text = f"_{size}_{block.in_channels}_{block.se_channels}_{block.out_channels}_k{block.kernel_size}_s{block.stride}_"
    return text in key


def test_a_smooth_device_takes_few_points(build_on):
    table = build_on(MadeDevice(smooth, noise=0.005))
    table.check(DIGITS)
    built = table.contents.build
    assert table.contents.classes == WidthClasses()
    errors = relative_errors(table, smooth)
    assert np.median(errors) < 0.01 and errors.max() < 0.04
    assert built.enumerated_points == sum(len(widths.widths) for widths in widths_by_key(DIGITS).values())
    assert built.points == sum(len(curve.widths) for curve in table.contents.curves.values())
    assert built.points < built.enumerated_points / 14
    assert built.reference_ms == pytest.approx(0.7, rel=0.01)


def sawtooth(key, width):
    return smooth(key, width) * (0.9 if width % 8 == 0 else 1.0)


def stairs(key, width):
    return smooth(key, -(-width // 32) * 32)


def stairs_and_tooth(key, width):
    return smooth(key, -(-width // 16) * 16) * (0.8 if width % 16 == 0 else 1.0)


def two_stairs(key, width):
    """Widths that are no multiples of 4 take a slow path; the multiples are filled up to 16."""
    return smooth(key, width) * 2.4 if width % 4 else smooth(key, -(-width // 16) * 16)


@pytest.mark.parametrize(
    ("truth", "classes"),
    [
        (two_stairs, WidthClasses(4, 16)),
        (sawtooth, WidthClasses(8)),
        (stairs_and_tooth, WidthClasses(16, 1, 16)),
    ],
)
def test_what_the_device_prefers_is_found_and_kept(build_on, truth, classes):
    table = build_on(MadeDevice(truth, noise=0.005))
    assert table.contents.classes == classes
    errors = relative_errors(table, truth)
    assert np.median(errors) < 0.015 and np.percentile(errors, 95) < 0.05
    assert interpolation_errors(table.contents)[ALL].median_percent < 3
    assert LatencyTable.load(table.source.partition("latency table ")[2]).contents == table.contents


def test_stairs_without_a_class_of_their_own_are_kept(build_on):
    table = build_on(MadeDevice(stairs, noise=0.005))
    assert table.contents.classes.others_stair == 32
    errors = relative_errors(table, stairs)
    assert np.median(errors) < 0.015 and np.percentile(errors, 95) < 0.05


def bent(key, width):
    """Jumps in the middle of every range, as a cache that is too small makes it do."""
    return smooth(key, width) * (1.6 if width > 70 else 1.0)


def test_more_widths_are_measured_where_interpolation_misses(build_on):
    device = MadeDevice(bent, noise=0.003)
    table = build_on(device)
    plain = build_on(MadeDevice(smooth, noise=0.003))
    assert table.contents.build.points > plain.contents.build.points
    curve = next(curve for curve in table.contents.curves.values() if curve.widths[0] < 60 and curve.widths[-1] > 90)
    near = [width for width in curve.widths if 60 <= width <= 80]
    assert len(near) >= 3
    assert np.median(relative_errors(table, bent)) < 0.02


def test_a_larger_tolerance_and_a_spent_budget_stop_it(build_on):
    points = {
        name: build_on(MadeDevice(bent, noise=0.003), **changes).contents.build.points
        for name, changes in {"close": {}, "wide": {"tolerance": "70%"}, "short": {"time_budget": "0.001s"}}.items()
    }
    assert points["wide"] == points["short"] < points["close"]


def test_so_many_points_stop_it_and_the_largest_misses_come_first(build_on):
    """On a device that no interpolation tells, only the most points end it."""

    def rough(key, width):
        return smooth(key, width) * (1 + (zlib.crc32(f"{key} {width}".encode()) % 100) / 100)

    built = build_on(MadeDevice(rough), time_budget="0.001s", rounds=1).contents.build
    first = built.points + built.held_out_points
    curves = {}
    for most, expected in ((1, first), (None, int(np.ceil(1.25 * first))), (first + 10, first + 10)):
        contents = build_on(MadeDevice(rough), max_points=most, rounds=1).contents
        built, curves[None] = contents.build, contents.curves
        assert built.points + built.held_out_points == expected > built.enumerated_points // 32

    roughest = next(iter(widths_by_key(DIGITS)))

    def rougher(key, width):
        return rough(key, width) ** (2 if key == roughest else 1)

    curves[roughest] = build_on(MadeDevice(rougher), max_points=first + 10, rounds=1).contents.curves
    assert len(curves[roughest][roughest].widths) > len(curves[None][roughest].widths)


def test_a_short_budget_takes_fewer_rounds_but_covers_everything(build_on):
    device = MadeDevice(smooth)
    build_on(device, time_budget="0.001s", rounds=9)
    assert set(device.visited.values()) == {3}


def test_held_out_points_are_measured_and_not_used(build_on):
    table = build_on(MadeDevice(sawtooth, noise=0.005), held_out=40)
    contents = table.contents
    assert sum(len(curve.widths) for curve in contents.held_out.values()) == 40
    for key, curve in contents.held_out.items():
        assert not set(curve.widths) & set(contents.curves[key].widths)
    errors = {}
    for key, curve in contents.held_out.items():
        kind = re.search(r"_(\d+)_\d+_(k\d)_", key)
        for width, ms in zip(curve.widths, curve.ms, strict=True):
            foretold = contents.curves[key].dense_ms(contents.classes)[width - contents.curves[key].widths[0]]
            errors.setdefault(kind[2] + (" SE" if kind[1] != "0" else ""), []).append(100 * abs(foretold - ms) / ms)
    found = interpolation_errors(contents)
    assert set(found) == {*errors, ALL}
    for kind, row in {**errors, ALL: list(itertools.chain(*errors.values()))}.items():
        assert found[kind].points == len(row)
        assert found[kind].median_percent == pytest.approx(np.median(row))
        assert found[kind].p95_percent == pytest.approx(np.percentile(row, 95))


def test_slow_stretches_are_seen_and_do_no_harm(build_on):
    table = build_on(MadeDevice(smooth, noise=0.005, slow=lambda count: 2.0 if 300 < count < 500 else 1.0))
    assert table.contents.build.slowest_drift == pytest.approx(2, rel=0.02)
    assert table.contents.build.repeated_visits > 100
    assert np.median(relative_errors(table, smooth)) < 0.01


def test_another_number_of_classes_is_measured_besides_the_usual_ones(build_on):
    table = build_on(MadeDevice(smooth), num_classes=1203)
    assert table.contents.classifier.curve.widths == (1, 10, 100, 1000, 1203)
    assert table.base_ms() == table.base_ms(1203)


def test_only_multiples_are_measured_when_only_they_are_searched(build_on):
    table = build_on(MadeDevice(smooth), width_multiple=8)
    widths = {width for curve in table.contents.curves.values() for width in curve.widths}
    held_out = {width for curve in table.contents.held_out.values() for width in curve.widths}
    assert all(width % 8 == 0 for width in widths | held_out)
    eights = DIGITS.in_multiples_of(8)
    table.check(eights)
    assert table_space(table) == eights
    with pytest.raises(InputError, match=r"multiples of 8 only: search these, with --width_multiple 8"):
        table.check(DIGITS)
    block = DIGITS.block(DIGITS.blocks[0], DIGITS.operations[0], 41)
    with pytest.raises(InputError, match="prices widths that are multiples of 8 only, not 41"):
        table.block_ms(block, 16)


# ---- killed and resumed -------------------------------------------------------------------------------------------


def without_time(table):
    """What does not depend on when it was built, before midnight or after."""
    contents = table.contents
    build = dataclasses.replace(contents.build, seconds=0.0)
    return dataclasses.replace(contents, build=build, measurement=dataclasses.replace(contents.measurement, date=""))


@pytest.mark.parametrize("kills", [3, pytest.param(10, marks=pytest.mark.slow)])
def test_a_build_killed_many_times_ends_as_one_left_alone(build_on, tmp_path, kills):
    expected = without_time(build_on(MadeDevice(sawtooth, noise=0.005)))
    visits = expected.build.visits
    device = MadeDevice(sawtooth, noise=0.005)
    partial = tmp_path / "t.json.partial"
    for kill in range(1, kills + 1):
        device.stop_after = kill * visits // (kills + 1)
        (tmp_path / "t.json").unlink(missing_ok=True)
        with pytest.raises(KeyboardInterrupt):
            build_on(device)
        assert not (tmp_path / "t.json").exists()
        with partial.open("ab") as file:
            file.write(b'{"name": "MBInv')  # a line that the kill cut off
    device.stop_after = None
    assert without_time(build_on(device)) == expected
    assert device.count == visits
    assert not partial.exists()


def stopped(build_on, after=50, **changes):
    with pytest.raises(KeyboardInterrupt):
        build_on(MadeDevice(smooth, stop_after=after), **changes)


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"batch": 8}, "batch 32 in place of 8"),
        ({"seed": 3, "tolerance": "2%"}, "tolerance 3% in place of 2%, seed 0 in place of 3"),
        ({"image_size": 24}, "another space, image_size none in place of 24"),
    ],
)
def test_what_another_build_left_is_refused(build_on, changes, named):
    stopped(build_on)
    message = rf"belongs to a different measurement \({named}\): use the same settings.*\(rm "
    with pytest.raises(InputError, match=message):
        build_on(MadeDevice(smooth), **changes)


@pytest.mark.parametrize(
    "data",
    [
        b"\x89PNG\n",
        b"[1, 2]\n",
        b'{"subject": 1}\n[]\n',
        b'{"subject": 1}\n{"name": "x"}\n',
        b'{"subject": 1}\n{"name": "x", "own_ms": [1.0], "reference_ms": [], "seconds": 1}\n',
        b'{"subject": 1}\n{"name": "x", "own_ms": [1.0], "reference_ms": [0.0], "seconds": 1}\n',
        b"[" * 100_000 + b"\n",
    ],
)
def test_a_foreign_file_in_its_place_is_refused_and_kept(build_on, tmp_path, data):
    partial = tmp_path / "t.json.partial"
    partial.write_bytes(data)
    with pytest.raises(InputError, match=r"t\.json\.partial is not a measurement journal"):
        build_on(MadeDevice(smooth))
    assert partial.read_bytes() == data


def test_a_damaged_middle_is_refused(build_on, tmp_path):
    stopped(build_on)
    partial = tmp_path / "t.json.partial"
    lines = partial.read_text().splitlines(keepends=True)
    partial.write_text("".join(lines[:10] + lines[11:]))
    with pytest.raises(InputError, match=r"is damaged: it contains a measurement of .* instead of "):
        build_on(MadeDevice(smooth))


def test_two_builds_into_one_file_are_refused(build_on, monkeypatch):
    device = MadeDevice(smooth)
    calls = []

    def nested(*_):
        if not calls:
            calls.append(1)
            with pytest.raises(InputError, match="another process is currently measuring"):
                build_on(MadeDevice(smooth))
        return 1.0

    device.slow = nested
    build_on(device)
    assert calls


def test_a_table_that_cannot_be_written_in_the_end(build_on, monkeypatch):
    """What was measured is there, the message says where, and the same command ends at once."""
    with (
        monkeypatch.context() as patched,
        pytest.raises(RunFailed, match=r"full; measurements are saved in .*t\.json\.partial"),
    ):
        patched.setattr("tfnas.latency.cost_table.write_whole", lambda *_: (_ for _ in ()).throw(RunFailed("full")))
        build_on(MadeDevice(smooth))
    device = MadeDevice(smooth)
    build_on(device)
    assert device.count == 0


def test_a_full_disk_is_told_and_nothing_is_lost(build_on, tmp_path):
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (6000, before[1]))
    try:
        with pytest.raises(RunFailed, match=r"t\.json\.partial cannot be written: .* are intact"):
            build_on(MadeDevice(smooth))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    device = MadeDevice(smooth)
    table = build_on(device)
    assert device.count < table.contents.build.visits


# ---- for real -----------------------------------------------------------------------------------------------------

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
operations: [k3_e3, k3_e6, k5_e3_se, k3_e1, k5_e1_se]
"""


@pytest.fixture
def tiny_file(tmp_path):
    path = tmp_path / "tiny.yaml"
    path.write_text(TINY_YAML)
    return path


def blocks_that_expand(space):
    for place, operation in itertools.product(space.blocks, space.operations):
        if operation.expansion > 1:
            yield space.block(place, operation, space.initial_width(place, operation)), place.input_size


def test_a_table_is_built_on_this_machine(tiny_file, tmp_path, capsys):
    out = tmp_path / "tables" / "tiny_cpu.json"
    threads = torch.get_num_threads()
    table = build_table(BuildConfig(space=str(tiny_file), out=str(out), batch=2, rounds=2, held_out=5, num_classes=3))
    assert torch.get_num_threads() == threads
    loaded, space = LatencyTable.load(out), tfnas.space(str(tiny_file))
    assert loaded.contents == table.contents and loaded.fingerprint == table.fingerprint
    loaded.check(space)
    measured = loaded.contents.measurement
    assert (measured.space, measured.space_fingerprint) == ("tiny", space.fingerprint)
    assert (measured.batch_size, measured.threads, measured.dtype, measured.device_kind) == (2, 1, "float32", "cpu")
    assert measured.versions["torch"] == torch.__version__ and not measured.worker
    # e3 (8..16) and e6 (16..32) without SE share a key; e3 with SE has its own
    ends = {key: (curve.widths[0], curve.widths[-1]) for key, curve in loaded.contents.curves.items()}
    assert ends["MBInvertedResBlock_4_4_0_6_k3_s2_swish"] == (8, 32)
    assert ends["MBInvertedResBlock_4_4_4_6_k5_s2_swish"] == (8, 16)
    # what does not expand has keys of its own, at the width of its input
    single = [key for key in ends if key not in {latency_key(b, s) for b, s in blocks_that_expand(space)}]
    assert {key: ends[key] for key in single} == {
        "MBInvertedResBlock_4_4_0_6_k3_s2_swish_m4": (4, 4),
        "MBInvertedResBlock_4_4_1_6_k5_s2_swish_m4": (4, 4),
        "MBInvertedResBlock_2_6_0_6_k3_s1_swish_m6": (6, 6),
        "MBInvertedResBlock_2_6_2_6_k5_s1_swish_m6": (6, 6),
    }
    assert loaded.contents.classifier.curve.widths == (1, 3, 10, 100, 1000)
    assert sorted(entry.name for entry in out.parent.iterdir()) == ["tiny_cpu.json"]
    assert capsys.readouterr().out == ""


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU here")
def test_a_table_is_built_on_the_gpu(tiny_file, tmp_path):
    config = BuildConfig(space=str(tiny_file), out=str(tmp_path / "t.json"), device="cuda", batch=2, rounds=2)
    table = build_table(config)
    table.check(tfnas.space(str(tiny_file)))
    assert table.contents.measurement.device == torch.cuda.get_device_name()


def test_another_image_size_is_measured_on_demand(tiny_file, tmp_path):
    config = BuildConfig(space=str(tiny_file), out=str(tmp_path / "t.json"), image_size=12, batch=1, rounds=1, calls=1)
    table = build_table(config)
    table.check(tfnas.space(str(tiny_file)).at(12))
    with pytest.raises(InputError, match="measured for images of 12 px"):
        table.check(tfnas.space(str(tiny_file)))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"batch": 0}, "--batch must be 1 or more, got 0"),
        ({"threads": -1}, "--threads must be 1 or more"),
        ({"rounds": 0}, "--rounds must be 1 or more"),
        ({"held_out": -1}, "--held_out must be 0 or more"),
        ({"image_size": 0}, "--image_size must be 1 or more"),
        ({"width_multiple": 0}, "--width_multiple must be 1 or more"),
        ({"out": ""}, "--out must name a file"),
        ({"seed": 2**63}, "--seed must be 0 or more, and below 2.63"),
        ({"num_classes": 65537}, "--num_classes must be 65536 at most, got 65537"),
        ({"cost": "flops"}, "--cost must be one of ms, macs, params, got 'flops'"),
        ({"worker_timeout": 0.0}, "--worker_timeout must be above 0 s"),
        ({"dtype": "float8"}, "--dtype must be one of float32"),
        ({"device": "tpu"}, "--device must be cpu, cuda or cuda:N, got 'tpu'"),
        ({"tolerance": "3 percent"}, "--tolerance must be a share like 3% or 0.03, got '3 percent'"),
        ({"time_budget": "ten"}, "--time_budget must be a time like 90s, 10min or 1h, got 'ten'"),
    ],
)
def test_wrong_settings_are_refused(changes, message):
    with pytest.raises(InputError, match=message):
        BuildConfig(**{"out": "table.json", **changes})


def test_an_unknown_runtime_is_refused_before_anything_is_written(tiny_file, tmp_path):
    with pytest.raises(InputError, match=r"there is no runtime 'tvm'; there are .*torch"):
        build_table(BuildConfig(space=str(tiny_file), out=str(tmp_path / "x" / "t.json"), runtime="tvm"))
    assert not (tmp_path / "x").exists()


def test_a_place_that_cannot_be_written_is_reported_before_measuring(tiny_file, tmp_path):
    (tmp_path / "file").write_text("in the way")
    with pytest.raises(RunFailed, match=r"cannot write .*t\.json: "):
        build_table(BuildConfig(space=str(tiny_file), out=str(tmp_path / "file" / "t.json"), rounds=10**6))


def test_a_folder_in_its_place_is_reported_before_measuring(build_on, tmp_path):
    (tmp_path / "t.json").mkdir()
    device = MadeDevice(smooth)
    with pytest.raises(RunFailed, match=r"t\.json: it is not a file but a folder"):
        build_on(device)
    assert device.count == 0


def test_too_large_a_batch_is_told(tiny_file, tmp_path):
    with pytest.raises(RunFailed, match="out of memory with 10000000000 images at once: give a smaller --batch"):
        build_table(BuildConfig(space=str(tiny_file), out=str(tmp_path / "t.json"), batch=10**10))


def test_the_file_is_json_with_a_line_for_every_block(build_on, tmp_path):
    table = build_on(MadeDevice(smooth))
    text = (tmp_path / "t.json").read_text()
    for key, curve in table.contents.curves.items():
        lines = [line for line in text.splitlines() if line.startswith(f'  "{key}": ')]
        assert len(lines) == 1 + (key in table.contents.held_out) and str(list(curve.widths)) in lines[0]
    assert json.loads(text)["build"]["points"] == table.contents.build.points
