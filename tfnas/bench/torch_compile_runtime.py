"""PyTorch's compiler (`torch.compile`, default mode), channels last.

Compiling is slow: on a CPU a block takes 10 seconds and more, so measure few of them. It happens while a module is
prepared. It needs a C++ compiler for the CPU, and Triton (which comes with PyTorch's CUDA packages) for a GPU.
"""

from __future__ import annotations

import types
import warnings
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from tfnas.bench.torch_runtime import TorchRuntime
from tfnas.core.errors import InputError


class TorchCompileRuntime(TorchRuntime):
    """Every module is compiled by itself, for the one shape that it receives."""

    def prepare(self, module: nn.Module, example_input: Tensor) -> Callable[[], object]:
        """Compile the module, and call it once.

        Raises InputError when the compiler lacks something, such as a C++ compiler.
        """
        module = module.to(memory_format=self.memory_format)

        def run(features: Tensor) -> Any:
            return module(features)

        # PyTorch keeps what it compiled with the code object of a function, looks through all of it at every call, and
        # gives up compiling after eight. So every module gets a code object of its own.
        own = types.FunctionType(run.__code__.replace(), run.__globals__, run.__name__, None, run.__closure__)
        compiled = torch.compile(own, fullgraph=True, dynamic=False)
        with torch.inference_mode(), warnings.catch_warnings():
            # The compiler looks at every name of every module that is loaded, also those that warn of their age.
            warnings.filterwarnings("ignore", category=DeprecationWarning)
            try:
                compiled(example_input)
            except (torch._dynamo.exc.TorchDynamoException, RuntimeError) as error:
                reason = " ".join(str(error).split())[:300]
                raise InputError(f"the runtime torch-compile cannot compile a benchmark case here: {reason}") from error
        return lambda: compiled(example_input)


RUNTIME = TorchCompileRuntime
