"""What can run a block: PyTorch, ONNX Runtime and others, all behind one small protocol.

A runtime is one file next to this one (`torch_compile_runtime.py` is `torch-compile`), with its class as `RUNTIME`.
Another package offers one under the entry point group `tfnas.runtimes`; docs/runtimes.md shows how. A table holds a
runtime's name only, which is looked up among these: no file that is read can name code to run.
"""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Callable, Mapping, Sequence
from importlib.metadata import EntryPoint, entry_points
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from tfnas import bench
from tfnas.core.errors import InputError
from tfnas.latency.table_contents import Conditions


def required_library(name: str, runtime: str) -> Any:
    """The imported library; the package's extra that brings it is called like the runtime.

    Raises InputError that says how to install it.
    """
    try:
        return importlib.import_module(name)
    except ImportError as error:
        raise InputError(
            f"the runtime {runtime} needs the library {name}, which cannot be imported ({error}): "
            f"pip install tfnas[{runtime}]"
        ) from error


def require_conditions(conditions: Conditions, dtypes: Mapping[str, Sequence[str]]) -> None:
    """Check device and number type against those that a runtime knows: `dtypes` holds number types by kind of device.

    Raises InputError that says what the runtime knows.
    """
    if conditions.device_kind not in dtypes:
        raise InputError(
            f"the runtime {conditions.runtime} supports the devices {' or '.join(dtypes)}, not {conditions.device!r}"
        )
    known = dtypes[conditions.device_kind]
    if conditions.dtype not in known:
        raise InputError(
            f"the runtime {conditions.runtime} supports the dtypes {' or '.join(known)} on {conditions.device_kind}, "
            f"not {conditions.dtype!r}"
        )


_ENTRY_POINTS = "tfnas.runtimes"
_OWN_ENDING = "_runtime"


class Runtime(Protocol):
    """Runs modules under fixed conditions. Its class is called with the `Conditions`.

    The constructor raises InputError when the runtime is not installed (and says how to install it), or does not know
    the device or the number type.
    """

    @property
    def memory_format(self) -> torch.memory_format:
        """How the example inputs are to lie in memory."""
        ...

    @property
    def versions(self) -> Mapping[str, str]:
        """The versions of the libraries that compute, by name; they go into the table."""
        ...

    def prepare(self, module: nn.Module, example_input: Tensor) -> Callable[[], object]:
        """A function that runs the module, which is in evaluation mode, once on the memory of `example_input`.

        Module and input are on the device and in the number type already. The input's values change between calls, in
        place; the function reads them each time.
        """
        ...

    def synchronise(self) -> None:
        """Wait until everything that has been started is done."""
        ...


def runtime_names() -> list[str]:
    """All runtimes that there are, whether what they need is installed or not."""
    own = (module.name for module in pkgutil.iter_modules(bench.__path__) if module.name.endswith(_OWN_ENDING))
    return sorted({*(name.removesuffix(_OWN_ENDING).replace("_", "-") for name in own), *_offered()})


def open_runtime(conditions: Conditions) -> Runtime:
    """The runtime of these conditions, ready to prepare modules.

    Raises InputError when there is none of that name, when it is not installed, or when it does not know the device or
    the number type.
    """
    names = runtime_names()
    if conditions.runtime not in names:
        raise InputError(f"there is no runtime {conditions.runtime!r}; there are {', '.join(names)}")
    offered = _offered().get(conditions.runtime)
    if offered is not None:
        make = offered.load()
    else:
        name = conditions.runtime.replace("-", "_") + _OWN_ENDING
        make = importlib.import_module(f"{bench.__name__}.{name}").RUNTIME
    return cast("Callable[[Conditions], Runtime]", make)(conditions)


def _offered() -> dict[str, EntryPoint]:
    return {entry.name: entry for entry in entry_points(group=_ENTRY_POINTS)}
