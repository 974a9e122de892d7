"""What a person at a terminal sees while something goes on, and that a file gets lines or nothing."""

from __future__ import annotations

import io
import re

import pytest
from rich.console import Console
from rich.progress import Progress

from tfnas.utils import progress
from tfnas.utils.progress import TimeLeftColumn, counting, spending, waiting


def console(*, terminal):
    return Console(file=io.StringIO(), force_terminal=terminal, width=100, color_system=None)


def shown(console):
    """What was drawn, one drawing after the other, without what moves the cursor."""
    return [text for text in re.split(r"\x1b\[[0-9;?]*[A-Za-z]|[\r\n]+", console.file.getvalue()) if text.strip()]


def test_waiting_says_what_and_for_how_long():
    at = console(terminal=True)
    with waiting(at, "opening the images") as now:
        now("reading the weights")
    first, *_, last = shown(at)
    assert first.startswith("opening the images 0:00:0") and last.startswith("reading the weights 0:00:0")


def test_seconds_spent_and_left():
    at = console(terminal=True)
    with spending(at, "timing it") as spent:
        spent(3.0, None)
        spent(20.0, 65.0)
    assert "left" not in shown(at)[0] and shown(at)[-1].rstrip().endswith("about 45 s left")


def test_counting_at_a_terminal():
    at = console(terminal=True)
    with counting(at, "judging", 8) as done:
        done(0)
        done(3)
        done(4, 16)
    assert "0/8" in shown(at)[0] and "4/16" in shown(at)[-1]


@pytest.mark.parametrize("show", [waiting, spending, counting])
def test_where_nobody_watches_nothing_is_drawn(show):
    to = console(terminal=False)
    with show(to, "words") as told:
        told(*{"waiting": ("other",), "spending": (1.0, 2.0), "counting": (1, 2)}[show.__name__])
    assert to.file.getvalue() == ""


def test_counting_writes_a_line_from_time_to_time(monkeypatch):
    """Ten seconds apart, with what is left by the pace of this time: what was there before does not count."""
    clock = iter([0.0, 0.0, 12.0, 15.0, 30.0, 45.0])
    monkeypatch.setattr(progress.time, "monotonic", lambda: next(clock))
    to = console(terminal=False)
    with counting(to, "judging", 10) as done:
        for number in (4, 6, 7, 8, 10):
            done(number)
    assert to.file.getvalue().splitlines() == [
        "judging: 6 of 10, about 24 s left",
        "judging: 8 of 10, about 15 s left",
    ]


def test_time_left_is_named_only_where_it_is_known():
    """Seconds gone by, beside an empty place and the word, would read as what is left."""
    clock = iter(range(1000))
    bar = Progress(TimeLeftColumn(), console=console(terminal=True), get_time=lambda: float(next(clock)))
    task = bar.add_task("searching", total=None)
    (column,) = bar.columns
    assert column.render(bar.tasks[0]).plain == ""
    bar.update(task, total=10)
    for completed in (1, 2, 3):
        bar.update(task, completed=completed)
    assert re.fullmatch(r"0:00:\d\d left", column.render(bar.tasks[0]).plain)
