"""What a worker may say, line by line, without a process."""

from __future__ import annotations

import json
import re
import sys
import time

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_workers import fates

from tfnas.bench.timing import TimingSample
from tfnas.bench.worker_messages import Payload, WorkerResponses
from tfnas.bench.worker_process import WorkerError, WorkerProcess
from tfnas.core.errors import InputError, RunFailed

OUTPUT = {"shape": [1, 2], "rms": 2.0, "values": [1.0, -3.0]}
PARCEL = Payload("block", {}, OUTPUT, 1)
HELLO = {"tfnas_worker": 1, "python": "3.9.2", "numpy": "1.2", "onnxruntime": "1.1", "device": "Toy", "cores": 2}
VISIT = {"visit": 4, "own_ms": [1.0, 2.0], "reference_ms": [3, 4.0]}


class Lines:
    """A process that has printed these lines."""

    def __init__(self, *lines):
        self._lines = [line if isinstance(line, bytes) else json.dumps(line).encode() for line in lines]
        self.started = time.monotonic() - 100

    def line(self, patience_s, longest, since=None):
        return self._lines.pop(0) if self._lines else None


def answers(*lines):
    return WorkerResponses(Lines(*lines), 1.0, 1.0)


def visit(document, fresh=None):
    return answers(document).measurement(4, PARCEL, 2, fresh)


def test_what_is_right_is_taken():
    hello = answers(b"Welcome", b"", HELLO).handshake()
    assert (hello.device, hello.cores, hello.versions["numpy"]) == ("Toy", 2, "1.2")
    answers({"ready": OUTPUT}).ready(PARCEL, "float32")
    expected = TimingSample((1.0, 2.0), (3.0, 4.0))
    assert visit(VISIT) == visit({**VISIT, "output": OUTPUT}, "float32") == expected
    answers({"done": 3}, b"").done(3)


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"tfnas_worker": 2}, "protocol version 2, not 1"),
        ({"tfnas_worker": True}, "protocol version True"),
        ({"device": "\x1b[31mToy"}, "names a device"),
        ({"device": ""}, "names a device"),
        ({"device": "T" * 201}, "names a device"),
        ({"numpy": None}, "names a device or a version None"),
        ({"cores": 0}, "has 0 cores"),
        ({"cores": 2.0}, "has 2.0 cores"),
        ({"flags": ["avx2"]}, "processor's flags are"),
        ({"more": 1}, "its first answer is incomplete"),
    ],
)
def test_first_answers_that_are_wrong(change, what):
    with pytest.raises(WorkerError, match=what):
        answers({**HELLO, **change}).handshake()


def test_instruction_sets_of_the_far_processor():
    """Those for arithmetic, of whatever it says; a worker need not say any."""
    assert answers({**HELLO, "flags": "fp asimd crc32 asimddp"}).handshake().instruction_sets == ("asimd", "asimddp")
    assert answers(HELLO).handshake().instruction_sets == ()


def test_a_missing_library_names_the_command_of_that_python():
    document = {"tfnas_worker": 1, "cannot": "import numpy", "why": "No module", "executable": "/opt/py/bin/python3"}
    with pytest.raises(InputError, match=r"/opt/py/bin/python3 -m pip install numpy onnxruntime"):
        answers(document).handshake()


def test_greetings_have_a_limit():
    with pytest.raises(WorkerError, match="unrelated output"):
        answers(*[b"line"] * 501, HELLO).handshake()
    with pytest.raises(WorkerError, match="unrelated output"):
        answers(*[b"x" * 40_000] * 2, HELLO).handshake()
    with pytest.raises(WorkerError, match="before its first answer"):
        answers(b"only this").handshake()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"visit": 3}, "expected measurement 4, got 3"),
        ({"visit": 5}, "expected measurement 4, got 5"),
        ({"visit": 4.0}, "expected measurement 4, got 4.0"),
        ({"visit": True}, "expected measurement 4, got True"),
        ({"own_ms": [1.0]}, "list of 2 numbers"),
        ({"own_ms": [1.0, 1.0, 1.0]}, "list of 2 numbers"),
        ({"reference_ms": {"0": 1.0, "1": 1.0}}, "list of 2 numbers"),
        ({"own_ms": [1.0, 0.0]}, "got 0.0"),
        ({"own_ms": [1.0, -1e-9]}, "got -1e-09"),
        ({"own_ms": [1.0, True]}, "got True"),
        ({"own_ms": [1.0, "1.0"]}, "got 1.0"),
        ({"own_ms": [1.0, None]}, "got None"),
        ({"own_ms": [1.0, [1.0]]}, "got "),
        ({"reference_ms": [1.0, 1e6]}, "it reports .* ms of measurements"),
        ({"own_ms": [1.0, 10**400]}, "must be positive"),
        ({"more": 1}, "expected an answer with"),
        ({"output": OUTPUT}, "expected an answer with"),
    ],
)
def test_visits_that_are_wrong(change, what):
    with pytest.raises(WorkerError, match=what):
        visit({**VISIT, **change})


@pytest.mark.parametrize(
    "line",
    [b"", b"[1]", b"3", b"null", b"{", b"[" * 9999, b"\xff", b"Segmentation fault", b'{"visit": 4}']
    + [json.dumps(VISIT).encode().replace(b"2.0", number) for number in (b"NaN", b"Infinity", b"1e999", b"9" * 5000)],
)
def test_lines_that_are_wrong(line):
    with pytest.raises(WorkerError):
        visit(line)


@pytest.mark.parametrize(
    ("change", "fits"),
    [
        ({}, True),
        ({"values": [1.0, -3.001]}, True),
        ({"values": [1.0, -3.1]}, False),
        ({"values": [1.0, 3.0]}, False),
        ({"rms": 2.1}, False),
        ({"shape": [2, 1]}, False),
        ({"values": [1.0]}, False),
        ({"values": [1.0, None]}, False),
        ({"values": 1.0}, False),
        ({"rms": "2.0"}, False),
        ({"rms": 1e300}, False),
        ({"values": [1.7e308, -1.7e308]}, False),
    ],
)
def test_outputs_prove_which_block_was_timed(change, fits):
    document = {**VISIT, "output": {**OUTPUT, **change}}
    if fits:
        assert visit(document, "float32").own_ms == (1.0, 2.0)
    else:
        with pytest.raises(WorkerError, match=r"different output on the device|malformed"):
            visit(document, "float32")


def test_half_precision_may_differ_more():
    document = {**VISIT, "output": {**OUTPUT, "values": [1.05, -3.0]}}
    assert visit(document, "float16").own_ms == (1.0, 2.0)
    with pytest.raises(WorkerError):
        visit(document, "float32")


def test_last_answers_that_are_wrong():
    for lines, what in (
        ([], "before its last answer"),
        ([{"done": 2}], "it reports 2 measurements, not 3"),
        ([{"done": 3}, b"bye"], "it sends output after its last answer: bye"),
    ):
        with pytest.raises(WorkerError, match=re.escape(what)):
            answers(*lines).done(3)


def test_empty_lines_after_the_last_answer_have_a_limit():
    answers({"done": 3}, *[b" "] * 500).done(3)
    lines = Lines({"done": 3}, *[b""] * 5000)
    with pytest.raises(WorkerError, match="empty lines without an end"):
        WorkerResponses(lines, 1.0, 1.0).done(3)


def test_empty_lines_one_by_one_do_not_put_off_the_end():
    """They go on for 2 s at least, each within the half second that it may take."""
    lines = "import time; print('here', flush=True); print('{\"done\": 0}', flush=True); "
    lines += "[(time.sleep(0.02), print(flush=True)) for _ in range(100)]"
    with WorkerProcess([sys.executable, "-S", "-c", lines], b"") as far:
        assert far.line(60.0, 10) == b"here"
        with pytest.raises(WorkerError, match=r"no answer for 0\.5 s"):
            WorkerResponses(far, 60.0, 0.5).done(0)


@pytest.mark.parametrize("can_ask", [True, False])
def test_the_end_of_a_process_is_known_and_ends_what_it_has_started(monkeypatch, tmp_path, can_ask):
    if not can_ask:
        monkeypatch.delattr("os.waitid", raising=False)  # as on macOS before Python 3.13
    with WorkerProcess(["sh", "-c", "sleep 60 >&- 2>&- & echo $!; exit 3"], b"") as far:
        (tmp_path / "pids").write_bytes(far.line(60.0, 20))
        assert fates(tmp_path) == [False]
        assert far.finish(60.0) == 3 and far.finish(1.0) == 3
    deadline = time.monotonic() + 10
    while not all(fates(tmp_path)) and time.monotonic() < deadline:
        time.sleep(0.02)
    assert fates(tmp_path) == [True]


def test_a_refusal_says_which_case():
    with pytest.raises(RunFailed, match=r"cannot run block: no memory"):
        visit({"refused": "no memory"})


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from([*VISIT, "output", "x"]), inner),
    max_leaves=8,
)


@settings(max_examples=200, deadline=None)
@given(st.sampled_from([*VISIT, "output"]), ANYTHING, st.booleans())
def test_any_answer_is_either_right_or_a_fault(key, value, is_fresh):
    document = {**VISIT, **({"output": OUTPUT} if is_fresh else {}), key: value}
    try:
        found = visit(document, "float32" if is_fresh else None)
    except WorkerError:
        return
    assert len(found.own_ms) == len(found.reference_ms) == 2
    assert all(0 < ms < 100_000 for ms in (*found.own_ms, *found.reference_ms))


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=40))
def test_any_bytes_are_a_fault(line):
    with pytest.raises(WorkerError):
        visit(line)
