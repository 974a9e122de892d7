"""Tasks that need no network, for what surrounds them; other processes can import this module."""

from __future__ import annotations

import os
import time
from dataclasses import dataclass
from typing import Any

from tfnas.core.errors import InputError, RunFailed

PICTURE = b"in place of a picture, which takes long to draw"


@dataclass(frozen=True)
class MadeTask:
    """The length of a text, times a factor; some texts make trouble."""

    architecture: str
    measure: str = "length"
    factor: float = 1.0
    seconds: float = 0.0

    def settings(self) -> dict[str, Any]:
        return {"factor": self.factor}

    def compute(self) -> float:
        time.sleep(self.seconds)
        if self.architecture == "refused":
            raise InputError("this one cannot be had")
        if self.architecture == "failed":
            raise RunFailed("this one broke")
        if self.architecture == "infinite":
            return float("inf")
        if self.architecture == "dies":
            os._exit(9)
        if self.architecture == "process":
            return float(os.getpid())
        return self.factor * len(self.architecture)


@dataclass(frozen=True)
class CountedTask(MadeTask):
    """Appends a line to a file whenever it is computed."""

    log: str = ""

    def compute(self) -> float:
        with open(self.log, "a") as file:  # noqa: PTH123
            file.write(f"{self.measure} {self.architecture}\n")
        return super().compute()
