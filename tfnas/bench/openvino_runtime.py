"""OpenVINO on the CPU, set for the shortest time per call."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tfnas.bench.runtime import require_conditions, required_library
from tfnas.core.errors import InputError
from tfnas.latency.table_contents import Conditions

_PRECISIONS = {"float32": "f32", "float16": "f16"}
# OpenVINO takes float64, but computes it in float32.


class OpenVinoRuntime:
    """One compiled model per module, on the memory of its input: nothing is copied in a call.

    float32 is computed in float32, also on a processor where OpenVINO would choose bfloat16 by itself. With float16 it
    computes in float16 where the processor can, else in float32.
    """

    memory_format = torch.contiguous_format

    def __init__(self, conditions: Conditions) -> None:
        """Raises InputError: see `Runtime`."""
        self._library = required_library("openvino", "openvino")
        require_conditions(conditions, {"cpu": tuple(_PRECISIONS)})
        self._threads, self._precision = conditions.threads, _PRECISIONS[conditions.dtype]
        self._core = self._library.Core()
        # It counts the cores once in a process, when its CPU part is first asked for anything. That must happen here:
        # while cases are timed, this thread is bound to few cores, and OpenVINO would never see the others.
        self._core.get_property("CPU", "AVAILABLE_DEVICES")

    @property
    def versions(self) -> Mapping[str, str]:
        """OpenVINO's."""
        return {"openvino": self._library.__version__.partition("-")[0]}

    def prepare(self, module: nn.Module, example_input: Tensor) -> Callable[[], Any]:
        """Compile the module; the call returns its result as a numpy array on memory that the next call overwrites.

        Raises InputError when OpenVINO would take another number of threads than it was asked for.
        """
        from tfnas.bench.onnx_graph import module_to_onnx

        compiled = self._core.compile_model(
            self._core.read_model(module_to_onnx(module, example_input)), "CPU", self._settings()
        )
        threads = compiled.get_property("INFERENCE_NUM_THREADS")
        if threads != self._threads:
            raise InputError(f"--threads must be at most {threads} for openvino on this machine, got {self._threads}")
        request = compiled.create_infer_request()
        request.set_input_tensor(self._library.Tensor(example_input.numpy(), shared_memory=True))
        output = request.get_output_tensor().data

        def call(_kept_alive: Tensor = example_input) -> Any:
            request.infer(share_outputs=True)
            return output

        return call

    def synchronise(self) -> None:
        """Nothing to wait for: a call returns when it is done."""

    def _settings(self) -> dict[str, object]:
        return {
            "PERFORMANCE_HINT": "LATENCY",
            "NUM_STREAMS": 1,
            "INFERENCE_NUM_THREADS": self._threads,
            "INFERENCE_PRECISION_HINT": self._precision,
            "ENABLE_CPU_PINNING": False,  # threads are bound by who times them
        }


RUNTIME = OpenVinoRuntime
