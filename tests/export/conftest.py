"""Exports in tests time few calls: their figures are of no interest here."""

from __future__ import annotations

import pytest

from tfnas.export import file_timing as timing


@pytest.fixture(scope="session", autouse=True)
def few_timed_calls():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(timing, "_RUNS", (10, 10))
        yield
