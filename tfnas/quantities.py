"""Durations and shares as people type them: `10min`, `90 s`, `1%`."""

from __future__ import annotations

import math
import re

from tfnas.errors import InputError

_SECONDS = {"": 1, "s": 1, "sec": 1, "min": 60, "m": 60, "h": 3600}


def seconds_of(flag: str, text: str) -> float:
    """The seconds of `10min`, `90s`, `1.5 h`, or of a plain number. Raises InputError naming the flag."""
    found = re.fullmatch(r"\s*(\d+(?:\.\d*)?)\s*([a-z]*)\s*", text)
    seconds = float(found[1]) * _SECONDS[found[2]] if found is not None and found[2] in _SECONDS else math.nan
    if not 0 < seconds < math.inf:
        raise InputError(f"--{flag} must be a time like 90s, 10min or 1h, got {text!r}")
    return seconds


def share_of(flag: str, text: str) -> float:
    """The share of `3%` or `0.03`, above 0 and below 1. Raises InputError naming the flag."""
    found = re.fullmatch(r"\s*(\d*\.?\d+)\s*(%?)\s*", text)
    share = float(found[1]) / (100 if found[2] else 1) if found is not None else math.nan
    if not 0 < share < 1:
        raise InputError(f"--{flag} must be a share like 3% or 0.03, got {text!r}")
    return share
