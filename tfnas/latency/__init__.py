"""Latency tables: milliseconds per block and width, where they come from, and architectures fitted to them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.latency.default import default_table_path
from tfnas.latency.files.authors import LatencyTableWarning
from tfnas.latency.keys import latency_key
from tfnas.latency.table import LatencyTable

if TYPE_CHECKING:
    from tfnas.latency.building.build import build_table
    from tfnas.latency.building.config import BuildConfig
    from tfnas.latency.checking.check import check_table
    from tfnas.latency.checking.config import CheckConfig

__all__ = [
    "BuildConfig",
    "CheckConfig",
    "LatencyTable",
    "LatencyTableWarning",
    "build_table",
    "check_table",
    "default_table_path",
    "latency_key",
]

__getattr__ = lazy_names(
    "tfnas.latency",
    {
        "BuildConfig": "tfnas.latency.building.config",
        "CheckConfig": "tfnas.latency.checking.config",
        "build_table": "tfnas.latency.building.build",
        "check_table": "tfnas.latency.checking.check",
    },
)
