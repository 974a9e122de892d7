"""PyTorch as it is (eager mode), channels last: needs nothing more."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor, nn

from tfnas.bench.timing import wait_for
from tfnas.latency.table_contents import Conditions
from tfnas.utils.devices import named_device


class TorchRuntime:
    """Calls the module itself."""

    memory_format = torch.channels_last

    def __init__(self, conditions: Conditions) -> None:
        self._device = named_device(conditions.device)

    @property
    def versions(self) -> Mapping[str, str]:
        """PyTorch's."""
        return {"torch": torch.__version__}

    def prepare(self, module: nn.Module, example_input: Tensor) -> Callable[[], object]:
        """The module's call."""
        module = module.to(memory_format=self.memory_format)
        return lambda: module(example_input)

    def synchronise(self) -> None:
        """Wait for the GPU, where there is one."""
        wait_for(self._device)


RUNTIME = TorchRuntime
