"""Latency tables: milliseconds per block and width, where they come from, and architectures fitted to them."""

from __future__ import annotations

from tfnas.latency.default import default_table_path
from tfnas.latency.files.authors import LatencyTableWarning
from tfnas.latency.keys import latency_key
from tfnas.latency.table import LatencyTable

__all__ = ["LatencyTable", "LatencyTableWarning", "default_table_path", "latency_key"]
