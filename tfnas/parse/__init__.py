"""What a search found: read from whatever holds it, priced, written out, shown.

    parsed = parse_model("runs/search-20250131-120000")

`parsed.architecture`, `parsed.table_ms` and `parsed.target_ms` are what most callers want.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.parse.config import ParseConfig

if TYPE_CHECKING:
    from tfnas.parse.parsed import Parsed, Part, parse_model
    from tfnas.parse.report import print_report, print_timings
    from tfnas.parse.source import Source, read_source
    from tfnas.parse.timing import NetworkTiming, time_here
    from tfnas.parse.writing import write_files

__all__ = [
    "NetworkTiming",
    "ParseConfig",
    "Parsed",
    "Part",
    "Source",
    "parse_model",
    "print_report",
    "print_timings",
    "read_source",
    "time_here",
    "write_files",
]

__getattr__ = lazy_names(
    "tfnas.parse",
    {
        "NetworkTiming": "tfnas.parse.timing",
        "Parsed": "tfnas.parse.parsed",
        "Part": "tfnas.parse.parsed",
        "Source": "tfnas.parse.source",
        "parse_model": "tfnas.parse.parsed",
        "print_report": "tfnas.parse.report",
        "print_timings": "tfnas.parse.report",
        "read_source": "tfnas.parse.source",
        "time_here": "tfnas.parse.timing",
        "write_files": "tfnas.parse.writing",
    },
)
