"""Exports in tests time few calls: their figures are of no interest here."""

from __future__ import annotations

import pytest

from tfnas.bench.timing import RoundLimits
from tfnas.export import export_checks


@pytest.fixture(scope="session", autouse=True)
def few_timed_calls():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_checks, "_TIMED", RoundLimits(seconds=0.0, fewest=10, most=10))
        yield
