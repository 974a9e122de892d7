"""What a runtime requires: its library, a device and a number type that it knows."""

from __future__ import annotations

import importlib
from collections.abc import Mapping, Sequence
from typing import Any

from tfnas.errors import InputError
from tfnas.latency.measuring.conditions import Conditions


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
            f"the runtime {conditions.runtime} runs on the device {' or '.join(dtypes)}, not on {conditions.device!r}"
        )
    known = dtypes[conditions.device_kind]
    if conditions.dtype not in known:
        raise InputError(
            f"the runtime {conditions.runtime} takes the dtype {' or '.join(known)} on {conditions.device_kind}, not "
            f"{conditions.dtype!r}"
        )
