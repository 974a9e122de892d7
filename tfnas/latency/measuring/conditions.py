"""Under which conditions milliseconds are measured: what must be alike for two figures to be comparable."""

from __future__ import annotations

from dataclasses import dataclass

DTYPES = ("float32", "float64", "bfloat16", "float16")


@dataclass(frozen=True, kw_only=True)
class Conditions:
    """Runtime, device, batch, threads and number type of a measurement."""

    runtime: str = "torch"
    device: str = "cpu"
    """`cpu`, `cuda` or `cuda:N`."""
    batch_size: int = 1
    threads: int = 1
    dtype: str = "float32"

    @property
    def device_kind(self) -> str:
        """`cpu` or `cuda`."""
        return self.device.partition(":")[0]
