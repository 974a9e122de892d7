"""A worker on this machine, and far sides that go wrong. Nothing here tests how fast anything is."""

from __future__ import annotations

import ast
import base64
import inspect
import itertools
import json
import math
import os
import resource
import shlex
import signal
import sys
import time
import zlib

import numpy as np
import onnxruntime
import pytest
import torch
from made_workers import CONDITIONS, fake_bench, fates, requests_of, tiny_cases
from torch import nn

from tfnas.bench import benches as local_bench
from tfnas.bench import remote_bench as remote
from tfnas.bench import worker
from tfnas.bench.benches import LocalBench
from tfnas.bench.benchmark_cases import BenchmarkCase
from tfnas.bench.onnx_graph import module_to_onnx
from tfnas.bench.remote_bench import WorkerBench, WorkerWarning
from tfnas.bench.timing import TimingSample
from tfnas.bench.worker_messages import Payload
from tfnas.core.errors import InputError, RunFailed
from tfnas.latency.table_contents import Conditions

HERE = shlex.join([sys.executable, "-"])
ORDER = [0, 1, 2, 1, 0]


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(remote, "_PAUSE_S", 0.0)
    monkeypatch.setattr(remote, "_TO_SAY_WHY_S", 0.3)


def visits_of(bench, order=ORDER, calls=2):
    return list(bench.measure(tiny_cases()[0], order, calls))


def expected(order=ORDER, calls=2):
    """What the fake answers."""
    return [TimingSample((1e-3 * (index + 1),) * calls, (5e-4,) * calls) for index in order]


@pytest.fixture(scope="module")
def bench_here():
    return WorkerBench(HERE, CONDITIONS, tiny_cases()[1], seed=3)


# A real worker


def test_a_real_worker_times_blocks_in_order(bench_here):
    visits = visits_of(bench_here, calls=3)
    assert len(visits) == len(ORDER)
    for visit in visits:
        assert len(visit.own_ms) == len(visit.reference_ms) == 3
        assert all(0 < ms < 60_000 for ms in (*visit.own_ms, *visit.reference_ms))


def test_a_real_worker_says_who_it_is(bench_here):
    assert bench_here.versions == {
        "python": ".".join(map(str, sys.version_info[:3])),
        "numpy": np.__version__,
        "onnxruntime": onnxruntime.__version__,
    }
    assert bench_here.device_name == worker.device_name()
    assert bench_here.conditions is CONDITIONS


def test_half_precision(bench_here):
    conditions = Conditions(runtime="onnxruntime", dtype="float16", batch_size=2)
    bench = WorkerBench(HERE, conditions, tiny_cases()[1])
    assert len(visits_of(bench)) == len(ORDER)


def test_large_requests_are_split_and_nothing_is_lost(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_MOST_CASES", 2)
    assert visits_of(fake_bench(tmp_path, "ok")) == expected()
    assert requests_of(tmp_path) == [[0, 1], [0, 1], [0]]  # of the cases 0 and 1, 2 and 1, 0


def test_a_workload_larger_than_the_memory_limit_goes_alone(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_MOST_MEMORY_BYTES", 1)
    assert visits_of(fake_bench(tmp_path, "ok")) == expected()
    assert requests_of(tmp_path) == [[0]] * 5


def test_nothing_to_visit(tmp_path):
    assert visits_of(fake_bench(tmp_path, "ok"), order=[]) == []


def test_a_worker_that_lacks_onnxruntime():
    lacking = "import sys; sys.modules['onnxruntime'] = None; exec(sys.stdin.read())"
    with pytest.raises(InputError, match=r"cannot import numpy and onnxruntime .*pip install numpy onnxruntime"):
        WorkerBench(shlex.join([sys.executable, "-c", lacking]), CONDITIONS, tiny_cases()[1])


def test_a_block_that_onnxruntime_cannot_open(monkeypatch):
    nonsense = base64.b64encode(zlib.compress(b"no model")).decode()
    payload = Payload("unheard-of", {"shape": [1, 4, 4, 4], "onnx": nonsense}, {}, 1)
    monkeypatch.setattr(Payload, "of", lambda *_: payload)
    bench = WorkerBench(HERE, CONDITIONS, tiny_cases()[1])
    with pytest.raises(RunFailed, match=r"cannot run unheard-of: .*pip install -U onnxruntime"):
        visits_of(bench)


def test_a_shell_in_place_of_python_runs_nothing(tmp_path):
    with (
        pytest.warns(WorkerWarning, match="exit status 64"),
        pytest.raises(RunFailed, match="the command started a shell"),
    ):
        WorkerBench("sh", CONDITIONS, tiny_cases()[1])


# The worker itself


def test_the_worker_is_python_3_8_and_needs_nothing_but_numpy_and_onnxruntime():
    tree = ast.parse(inspect.getsource(worker), feature_version=(3, 8))
    imported = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            imported |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            imported.add(node.module)
    assert {"numpy", "onnxruntime"} < imported
    assert {name.partition(".")[0] for name in imported} - {"numpy", "onnxruntime"} <= sys.stdlib_module_names


class Noting:
    """A block that takes as many milliseconds as the log has entries."""

    def __init__(self, name, log):
        self.name, self.log, self.values = name, log, self

    def __imul__(self, factor):
        assert factor == 1
        self.log.append("write")
        return self

    def __call__(self):
        self.log.append(self.name)
        return float(len(self.log))


def noted_visit(monkeypatch, lost, calls, tries):
    """What a measurement returns and calls when the core is lost so often during each try."""
    log, rests, switches = [], [], itertools.accumulate(itertools.chain([0], *([count, 0] for count in lost)))
    monkeypatch.setattr(worker, "_switches", lambda: next(switches))
    monkeypatch.setattr(worker.time, "sleep", rests.append)
    result = worker.measure(Noting("own", log), Noting("reference", log), calls, tries)
    return result, log, rests


def test_a_visit_calls_reference_and_block_in_turn_on_an_input_written_anew(monkeypatch):
    result, log, _ = noted_visit(monkeypatch, [0, 0], 2, 8)
    assert log == ["own", "reference", "write", "own", "reference", "write", "own"]
    assert result == {"own_ms": [4.0, 7.0], "reference_ms": [2.0, 5.0]}


def test_calls_that_lost_the_core_are_made_again(monkeypatch):
    """Of tries that each take three entries: the first without a loss, else the one with the fewest."""
    result, _, rests = noted_visit(monkeypatch, [3, 1, 0, 0], 2, 8)
    assert result == {"own_ms": [10.0, 13.0], "reference_ms": [8.0, 11.0]}
    assert rests == [0.0, 0.002, 0.004, 0.0]
    result, log, _ = noted_visit(monkeypatch, [5, 4, 2, 7, 2, 9, 9, 9], 1, 8)
    assert result == {"own_ms": [10.0], "reference_ms": [8.0]} and log.count("reference") == 8
    result, log, _ = noted_visit(monkeypatch, [5, 5], 2, 1)
    assert result == {"own_ms": [4.0, 7.0], "reference_ms": [2.0, 5.0]}


def test_the_loss_of_the_core_is_what_the_system_says(monkeypatch):
    assert 0 <= worker._switches() <= resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw
    monkeypatch.setitem(sys.modules, "resource", None)  # a system without it: one try
    assert worker._switches() == 0


def test_a_worker_is_asked_to_try_as_often_as_this_machine_does(tmp_path):
    payload = Payload.of(tiny_cases()[0][0], CONDITIONS, 0)
    assert fake_bench(tmp_path, "ok")._request([payload], 2)["tries"] == local_bench._TRIES
    assert fake_bench(tmp_path, "ok", every_call=True)._request([payload], 2)["tries"] == 1


def test_a_block_reads_its_input_anew_at_every_call():
    module = nn.Conv2d(2, 3, 1)
    values = worker.example_input((1, 2, 4, 4), "float32", 1)
    worker._share_memory()
    block = worker._Block(module_to_onnx(module, torch.from_numpy(values)), values, 1)
    for factor in (1.0, 3.0):
        values *= factor
        assert block() > 0
        np.testing.assert_allclose(block.output(), module(torch.from_numpy(values)).detach(), rtol=1e-5, atol=1e-6)


def test_a_summary_by_hand():
    summary = worker.summary(np.arange(31, dtype=np.float32).reshape(1, 31))
    assert summary["shape"] == [1, 31] and summary["values"] == [float(2 * place) for place in range(16)]
    assert summary["rms"] == pytest.approx(math.sqrt(sum(n * n for n in range(31)) / 31))


def test_parcels_are_small_and_depend_on_the_seed_only():
    case = BenchmarkCase("wide", lambda: nn.Conv2d(256, 512, 3), 256, 4)
    first, again, other = (Payload.of(case, CONDITIONS, seed) for seed in (0, 0, 1))
    assert first.document == again.document and first.output == again.output
    assert first.document != other.document
    weights = 4 * 256 * 512 * 9
    assert first.memory_bytes > weights and len(first.document["onnx"]) < weights / 50
    assert 0.05 < first.output["rms"] < 20


# Far sides that go wrong


def test_greetings_are_passed_over(tmp_path):
    assert visits_of(fake_bench(tmp_path, "banner")) == expected()


def test_a_flood_of_complaints_blocks_nobody(tmp_path):
    assert visits_of(fake_bench(tmp_path, "flood")) == expected()


@pytest.mark.parametrize(
    ("mode", "what"),
    [
        ("die_at_once", r"ended before its first answer \(exit status 3\).*no  \[31mcolours \| bad luck"),
        ("die", r"ended before its last answer \(exit status 1\); last lines of standard error: Killed by a toy"),
        ("half", "in the middle of a line"),
        ("endless", "a line of more than 16"),
        ("endless_banner", "too much unrelated output"),
        ("other_device", "a different device answered than before: Another Toy"),
        ("skip", 'expected an answer with .*, got {"visit": 3'),
        ("bytes", "not an answer"),
        ("say:Segmentation fault", "not an answer: Segmentation fault"),
        ("own:NaN", "not an answer"),
        ("own:-0.5", "positive, finite numbers, got -0.5"),
        ('change:{"own_ms": [9e9, 1.0]}', "it reports .* ms of measurements"),
        ("other_block", "gives a different output on the device than here"),
    ],
)
def test_one_fault_costs_a_retry_and_no_visit(tmp_path, mode, what):
    bench = fake_bench(tmp_path, mode, "ok")
    with pytest.warns(WorkerWarning, match=what) as warned:
        assert visits_of(bench) == expected()
    assert len(warned) == 1
    first, second = requests_of(tmp_path)
    asked = [[0, 1, 2][index] for index in ORDER]
    done = 5 - len(second)
    assert first == asked and done in (0, 2, 3)


def test_a_fault_after_all_visits_costs_nothing(tmp_path):
    for mode in ("nonzero", "more"):
        (tmp_path / mode).mkdir()
        bench = fake_bench(tmp_path / mode, mode)
        with pytest.warns(WorkerWarning, match="all answers had been received"):
            assert visits_of(bench) == expected()
        assert len(requests_of(tmp_path / mode)) == 1


def test_two_faults_in_a_row_end_it(tmp_path):
    bench = fake_bench(tmp_path, "die", "die_at_once")
    found = []
    with pytest.warns(WorkerWarning), pytest.raises(RunFailed, match=r"second failure in a row.*import numpy, onnx"):
        for visit in bench.measure(tiny_cases()[0], [0, 1, 2, 0, 1, 2], 2):
            found.append(visit)
    assert found == expected([0, 1])


def test_processes_that_get_on_are_no_failures_in_a_row(tmp_path):
    """Each dies after two visits; whoever asks for a few at a time never hears that one has ended well."""
    bench = fake_bench(tmp_path, "die")
    with pytest.warns(WorkerWarning, match="Killed by a toy") as warned:
        assert visits_of(bench, [0, 1, 2, 0, 1, 2]) == expected([0, 1, 2, 0, 1, 2])
    assert len(warned) == 2
    with pytest.warns(WorkerWarning, match="Killed by a toy"):
        for _ in range(3):
            visits = bench.measure(tiny_cases()[0], ORDER, 2)
            assert list(itertools.islice(visits, 3)) == expected(ORDER[:3])
            visits.close()


def test_faults_that_do_not_follow_one_another_are_survived(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_MOST_CASES", 3)
    bench = fake_bench(tmp_path, "die", "ok", "die", "ok")
    for _ in range(2):
        with pytest.warns(WorkerWarning, match="Killed by a toy"):
            assert visits_of(bench) == expected()


def test_a_block_that_is_refused_is_not_asked_for_again(tmp_path):
    bench = fake_bench(tmp_path, "refused")
    with pytest.raises(RunFailed, match=r"cannot run MBInverted.*unsupported IR version"):
        visits_of(bench)
    assert len(requests_of(tmp_path)) == 1


# Hanging and killing


def wait_for_end(folder):
    deadline = time.monotonic() + 10
    while not all(fates(folder)) and time.monotonic() < deadline:
        time.sleep(0.05)
    return fates(folder)


def test_a_hanging_worker_is_killed_and_asked_again(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_NEXT_FACTOR", 0.1)
    bench = fake_bench(tmp_path, "hang", "ok", timeout_s=15)
    with pytest.warns(WorkerWarning, match="no answer for 1.5 s"):
        assert visits_of(bench) == expected()
    assert wait_for_end(tmp_path) == [True, True]


def test_a_worker_that_hangs_at_once(tmp_path):
    with pytest.warns(WorkerWarning, match="no answer for 1 s"), pytest.raises(RunFailed, match="worker_timeout"):
        fake_bench(tmp_path, "greeting:hang_at_once", timeout_s=1.0)
    assert wait_for_end(tmp_path) == [True] * 4


def test_a_worker_that_reads_nothing(tmp_path, monkeypatch):
    """More is sent than a pipe holds."""
    monkeypatch.setattr(remote, "program", lambda request: b"#" * 2**21)
    with pytest.warns(WorkerWarning, match="does not read its input for 1 s"), pytest.raises(RunFailed):
        fake_bench(tmp_path, "deaf", timeout_s=1.0)
    assert wait_for_end(tmp_path) == [True] * 4


def test_a_closed_generator_kills_the_worker(tmp_path):
    visits = fake_bench(tmp_path, "hang").measure(tiny_cases()[0], ORDER, 2)
    assert list(itertools.islice(visits, 2)) == expected()[:2]
    deadline = time.monotonic() + 20
    while not (tmp_path / "pids").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert fates(tmp_path) == [False, False]
    visits.close()
    assert wait_for_end(tmp_path) == [True, True]


def test_an_interrupt_kills_the_worker(tmp_path):
    bench = fake_bench(tmp_path, "hang")

    def interrupt(*_):
        if not (tmp_path / "pids").exists():  # not hanging yet
            signal.setitimer(signal.ITIMER_REAL, 0.1)
            return
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGALRM, interrupt)
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            visits_of(bench)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    assert wait_for_end(tmp_path) == [True, True]


# What is refused before anything starts


@pytest.mark.parametrize(
    ("command", "what"),
    [
        ("", "give a command"),
        ("ssh 'pi", "the command has an error: No closing quotation"),
        ("/nowhere/to-be-found python3 -", "/nowhere/to-be-found cannot be started: No such file"),
    ],
)
def test_commands_that_cannot_be(command, what):
    with pytest.raises(InputError, match=what):
        WorkerBench(command, CONDITIONS, tiny_cases()[1])


@pytest.mark.parametrize(
    ("changed", "what"),
    [
        ({"runtime": "torch"}, "the runtime onnxruntime only, not with 'torch'"),
        ({"runtime": "onnxruntime", "device": "cuda:0"}, "the device cpu only"),
        ({"runtime": "onnxruntime", "dtype": "bfloat16"}, "the dtype float32 or float16 only, not with 'bfloat16'"),
    ],
)
def test_conditions_that_cannot_be(changed, what):
    with pytest.raises(InputError, match=what):
        WorkerBench(HERE, Conditions(**changed), tiny_cases()[1])


def test_more_threads_than_cores(tmp_path):
    bench = fake_bench(tmp_path, "ok")  # it has two
    command = shlex.join(bench._arguments)
    with pytest.raises(InputError, match="--threads is 3, but the worker has 2 cores"):
        WorkerBench(command, Conditions(runtime="onnxruntime", threads=3), tiny_cases()[1])


def test_more_threads_than_cores_here():
    cores = len(os.sched_getaffinity(0))
    with pytest.raises(InputError, match=rf"{cores + 1} threads need a core each, but this process may use {cores}"):
        LocalBench(Conditions(threads=cores + 1), tiny_cases()[1])
    assert LocalBench(Conditions(threads=cores), tiny_cases()[1]).conditions.threads == cores


def test_no_time_to_answer():
    for seconds in (0, -1.0, math.nan):
        with pytest.raises(InputError, match="--worker_timeout must be above 0"):
            WorkerBench(HERE, CONDITIONS, tiny_cases()[1], timeout_s=seconds)


def test_what_is_sent_is_plain_text_that_a_shell_leaves_at_once():
    text = remote.program({"order": [], "odd": 'quote " backslash \\ line\n' * 500}).decode("ascii")
    assert text.splitlines()[0] == '"exit" "64"'
    pieces = ast.literal_eval(text[text.rindex('names["serve"](') + len('names["serve"](') :].strip()[:-1])
    assert json.loads("".join(pieces))["odd"] == 'quote " backslash \\ line\n' * 500
    assert len(pieces) > 1
