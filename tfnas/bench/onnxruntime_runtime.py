"""ONNX Runtime, on the CPU or on an NVIDIA GPU: what a file of `tfnas export --format onnx` runs in."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from tfnas.bench.runtime import require_conditions, required_library
from tfnas.bench.timing import wait_for
from tfnas.core.errors import InputError
from tfnas.latency.table_contents import Conditions
from tfnas.utils.devices import named_device

_DTYPES = {"cpu": ("float32", "float16"), "cuda": ("float32", "float16", "float64")}
_PROVIDERS = {"cpu": "CPUExecutionProvider", "cuda": "CUDAExecutionProvider"}
_ERRORS_ONLY = 3


class OnnxRuntime:
    """One session per module, on the memory of its input: nothing is copied in a call.

    The result is written to the same memory at every call, and the call returns it as a list of `OrtValue`.
    """

    memory_format = torch.contiguous_format

    def __init__(self, conditions: Conditions) -> None:
        """Raises InputError: see `Runtime`."""
        self._library = required_library("onnxruntime", "onnxruntime")
        require_conditions(conditions, _DTYPES)
        self._provider = _PROVIDERS[conditions.device_kind]
        if self._provider not in self._library.get_available_providers():
            raise InputError(
                "--device cuda: the installed onnxruntime computes on the CPU only; pip install onnxruntime-gpu "
                "instead, or choose --device cpu"
            )
        self._device, self._threads = named_device(conditions.device), conditions.threads

    @property
    def versions(self) -> Mapping[str, str]:
        """ONNX Runtime's."""
        return {"onnxruntime": self._library.__version__}

    def prepare(self, module: nn.Module, example_input: Tensor) -> Callable[[], list[Any]]:
        """Open a session and run it once, which finds the memory that the result needs.

        Raises InputError when the session does not get the GPU (then onnxruntime would silently take the CPU).
        """
        from tfnas.bench.onnx_graph import module_to_onnx

        device, index = self._device.type, self._device.index or 0
        provider = (self._provider, self._provider_options())
        session = self._library.InferenceSession(
            module_to_onnx(module, example_input), self._session_options(), providers=[provider]
        )
        if session.get_providers()[0] != self._provider:
            raise InputError(
                f"--device {self._device}: onnxruntime cannot use the GPU; see that its CUDA libraries are installed "
                "(pip install onnxruntime-gpu[cuda,cudnn]), or choose --device cpu"
            )
        (given,), (result,) = session.get_inputs(), session.get_outputs()
        binding = session.io_binding()
        shape, number_type = list(example_input.shape), torch.empty(0, dtype=example_input.dtype).numpy().dtype
        binding.bind_input(given.name, device, index, number_type, shape, example_input.data_ptr())
        binding.bind_output(result.name, device, index)
        session.run_with_iobinding(binding)
        outputs = binding.get_outputs()
        binding.bind_ortvalue_output(result.name, outputs[0])

        def call(_kept_alive: Tensor = example_input) -> list[Any]:
            session.run_with_iobinding(binding)
            return list(outputs)

        return call

    def synchronise(self) -> None:
        """Wait for the GPU, where there is one."""
        wait_for(self._device)

    def _session_options(self) -> Any:
        options = self._library.SessionOptions()
        options.log_severity_level = _ERRORS_ONLY
        options.execution_mode = self._library.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads, options.inter_op_num_threads = self._threads, 1
        # A session's threads would go on spinning for a while after its call, on the cores that the next session is
        # timed on; on a busy machine that made calls ten times slower. With one thread there are no others to wait.
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        if self._device.type == "cpu":
            # One store of memory for all sessions, as the layers of one network have: a fifth of the memory, no slower.
            _share_memory(self._library)
            options.add_session_config_entry("session.use_env_allocators", "1")
        return options

    def _provider_options(self) -> dict[str, str]:
        if self._device.type == "cpu":
            return {}
        return {"device_id": str(self._device.index or 0), "arena_extend_strategy": "kSameAsRequested"}


@functools.cache
def _share_memory(library: Any) -> None:
    """Register the store of memory that the sessions of this process share; once is enough."""
    arena = library.OrtAllocatorType.ORT_ARENA_ALLOCATOR
    library.create_and_register_allocator(library.OrtMemoryInfo("Cpu", arena, 0, library.OrtMemType.DEFAULT), None)


RUNTIME = OnnxRuntime
