"""The worker: times ONNX blocks on the device it runs on. Python >= 3.8, numpy and onnxruntime.

The text of this file is sent to a Python that reads its program from standard input, followed by a call of `serve`
(`remote_bench.py` writes it, `worker_messages.py` reads the responses; docs/worker.md describes both). It imports
nothing of the package, writes no file, and ends after one request. Every answer is one line of JSON.
"""

from __future__ import annotations

import base64
import json
import os
import platform
import sys
import time
import zlib
from pathlib import Path
from typing import Any, Callable, Sequence  # noqa: UP035 - Python 3.8 has no other Callable[...]

PROTOCOL = 1
_REFERENCE_CALLS_FIRST = 3
_PRIMING_BYTES = 31 * 2**20
_SAMPLES = 16
_REST_SECONDS = 0.002


def serve(pieces: Sequence[str]) -> None:
    """Answer the one request whose JSON text these pieces make up, and end the process."""
    answer = _answers()
    try:
        status = _serve("".join(pieces), answer)
    except BrokenPipeError:  # nobody listens any more
        status = 1
    sys.stderr.flush()
    os._exit(status)  # at once: libraries may take long to tidy up, or fail at it


def _answers() -> Callable[[dict[str, Any]], None]:
    """What writes an answer. Whatever libraries print goes to standard error, so that it never mixes with answers."""
    stream = os.fdopen(os.dup(1), "w", encoding="ascii")
    os.dup2(2, 1)

    def answer(document: dict[str, Any]) -> None:
        stream.write(json.dumps(document) + "\n")
        stream.flush()

    stream.write("\n")  # ends a greeting that had no line of its own
    return answer


def _serve(text: str, answer: Callable[[dict[str, Any]], None]) -> int:
    try:
        import numpy
        import onnxruntime  # type: ignore[import-untyped]
    except Exception as error:  # numpy and onnxruntime that do not fit each other raise all kinds
        missing = {"cannot": "import numpy and onnxruntime", "why": _words(error), "executable": sys.executable}
        answer({"tfnas_worker": PROTOCOL, **missing})
        return 1
    answer({"tfnas_worker": PROTOCOL, **_facts(numpy.__version__, onnxruntime.__version__)})
    request = json.loads(text)
    try:
        _time(request, answer)
    except BrokenPipeError:
        raise
    except Exception as error:
        answer({"refused": _words(error)})
        return 1
    return 0


def _words(error: Exception) -> str:
    return f"{type(error).__name__}: {error}"[:2000]


def _facts(numpy_version: str, onnxruntime_version: str) -> dict[str, Any]:
    return {
        "python": platform.python_version(),
        "numpy": numpy_version,
        "onnxruntime": onnxruntime_version,
        "device": device_name(),
        "cores": len(_cores()) or os.cpu_count() or 1,
        "flags": _cpuinfo("flags") or _cpuinfo("Features"),
    }


def _cores() -> list[int]:
    """The cores that this process may use; empty where the system cannot say."""
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else []


def device_name() -> str:
    """The board's name where it has one (`Raspberry Pi 4 Model B Rev 1.4`), else the processor's."""
    board = _text("/proc/device-tree/model").strip("\0\n ")
    return board or _cpuinfo("model name") or platform.processor() or platform.machine() or "unknown"


def _cpuinfo(field: str) -> str:
    """The first value of a field of Linux's description of the processor; empty where there is none."""
    values = (line.partition(":") for line in _text("/proc/cpuinfo").splitlines())
    return next((value.strip() for name, _, value in values if name.strip() == field), "")


def _text(path: str) -> str:
    try:
        return Path(path).read_text("utf-8", "replace")
    except OSError:
        return ""


def _time(request: dict[str, Any], answer: Callable[[dict[str, Any]], None]) -> None:
    """Make the measurements of a request, one answer each."""
    import numpy

    order: list[int] = request["order"]
    if order:
        cores = _cores()
        if cores:
            os.sched_setaffinity(0, cores[-request["threads"] :])
        numpy.empty(_PRIMING_BYTES, numpy.uint8)  # freed at once: see prime_allocator in devices.py
        _share_memory()
        opener = _BlockOpener(request)
        reference = opener.prepared(request["reference"])
        for _ in range(_REFERENCE_CALLS_FIRST):
            reference()
        answer({"ready": summary(reference.output())})
        blocks: dict[int, _Block] = {}
        for number, index in enumerate(order):
            fresh = index not in blocks
            if fresh:
                blocks[index] = opener.prepared(request["blocks"][index])
            document = {"visit": number, **measure(blocks[index], reference, request["calls"], request["tries"])}
            if fresh:
                document["output"] = summary(blocks[index].output())
            answer(document)
    answer({"done": len(order)})


def _share_memory() -> None:
    """Register one store of memory for all sessions."""
    import onnxruntime

    arena = onnxruntime.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    memory = onnxruntime.OrtMemoryInfo("Cpu", arena, 0, onnxruntime.OrtMemType.DEFAULT)
    onnxruntime.create_and_register_allocator(memory, None)


class _BlockOpener:
    """Opens blocks; inputs of the same shape are one and the same array."""

    def __init__(self, request: dict[str, Any]) -> None:
        self._threads, self._seed, self._dtype = request["threads"], request["seed"], request["dtype"]
        self._inputs: dict[tuple[int, ...], Any] = {}

    def prepared(self, block: dict[str, Any]) -> _Block:
        shape = tuple(block["shape"])
        if shape not in self._inputs:
            self._inputs[shape] = example_input(shape, self._dtype, self._seed)
        return _Block(zlib.decompress(base64.b64decode(block["onnx"])), self._inputs[shape], self._threads)


def example_input(shape: Sequence[int], dtype: str, seed: int) -> Any:
    """Normally distributed numbers: the same in every version of numpy, because RandomState's never change."""
    import numpy

    return numpy.random.RandomState(seed).standard_normal(tuple(shape)).astype(dtype)


class _Block:
    """A session of onnxruntime on the memory of its input."""

    def __init__(self, model: bytes, values: Any, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads, options.inter_op_num_threads = threads, 1
        # The two settings of onnxruntime_runtime.py, for the reasons given there.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        options.add_session_config_entry("session.use_env_allocators", "1")
        self._session = onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        (given,), (result,) = self._session.get_inputs(), self._session.get_outputs()
        self.values = values
        self._binding = self._session.io_binding()
        self._binding.bind_cpu_input(given.name, values)
        self._binding.bind_output(result.name)
        self()
        self._output = self._binding.get_outputs()[0]
        self._binding.bind_ortvalue_output(result.name, self._output)

    def __call__(self) -> float:
        """Milliseconds of one call."""
        start = time.perf_counter()
        self._session.run_with_iobinding(self._binding)
        return (time.perf_counter() - start) * 1e3

    def output(self) -> Any:
        """What the last call gave."""
        return self._output.numpy()


def measure(own: _Block, reference: _Block, calls: int, tries: int) -> dict[str, list[float]]:
    """The reference and the block, called in turn, as `LocalBench` does it."""
    own()
    pairs = [_undisturbed_pair_ms(own, reference, tries) for _ in range(calls)]
    return {"own_ms": [own_ms for own_ms, _ in pairs], "reference_ms": [reference_ms for _, reference_ms in pairs]}


def _undisturbed_pair_ms(own: _Block, reference: _Block, tries: int) -> tuple[float, float]:
    """Milliseconds of the block and of the reference before it, from an attempt that was not preempted, if possible.

    Another program that gets the core in between shows as a context switch that this process did not ask for.
    """
    fewest, best = -1, (0.0, 0.0)
    for attempt in range(tries):
        time.sleep(attempt * _REST_SECONDS)  # the system gives a process that has rested a whole slice of time
        before = _switches()
        reference_ms = reference()
        own.values *= 1  # written anew, in place, so that it is as warm as a layer's output would be
        own_ms = own()
        switches = _switches() - before
        if fewest < 0 or switches < fewest:
            fewest, best = switches, (own_ms, reference_ms)
        if switches == 0:
            break
    return best


def _switches() -> int:
    """How often this process has lost its core to others so far; always 0 where the system cannot say."""
    try:
        import resource
    except ImportError:
        return 0
    return resource.getrusage(resource.RUSAGE_SELF).ru_nivcsw


def summary(output: Any) -> dict[str, Any]:
    """Enough of an output to tell whether it is the right one: shape, root mean square and evenly spaced values."""
    import numpy

    flat = numpy.asarray(output, numpy.float64).ravel()
    values = [float(flat[place * (flat.size - 1) // (_SAMPLES - 1)]) for place in range(_SAMPLES)]
    rms = float(numpy.sqrt(numpy.mean(numpy.square(flat))))
    return {"shape": list(output.shape), "rms": rms, "values": values}
