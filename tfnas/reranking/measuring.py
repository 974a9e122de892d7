"""The numbers of tasks: those in the journal from there, the others computed, and kept one by one as they come."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager

from tfnas.errors import InputError, RunFailed
from tfnas.progress import counting
from tfnas.reranking.journal import Journal
from tfnas.reranking.parallel import Crew, Outcome
from tfnas.reranking.tasks import Task
from tfnas.run import Interruption

KEPT = "every number found so far is kept"
GO_ON = "The same command goes on with them"
STOPPING = f"stopping after the numbers at work, since {KEPT}; once more ends it at once"


def numbers_of(
    tasks: Sequence[Task], crew: Crew, journal: Journal, interruption: Interruption, words: str
) -> list[float]:
    """The number of every task. `words` says what is computed, for the progress that is shown.

    Raises InputError or RunFailed naming the task that gave no number, and Interrupted; what was found is in the
    journal.
    """
    known = [journal.value(task) for task in tasks]
    missing = [index for index, value in enumerate(known) if value is None]
    with counting(interruption.console, words, len(tasks)) as on_done:
        on_done(len(tasks) - len(missing))
        outcomes = crew.outcomes([tasks[index] for index in missing])
        with closing(outcomes), _ended_together(interruption):
            for done, outcome in enumerate(outcomes, 1):
                index = missing[outcome.number]
                _check(tasks[index], outcome)
                journal.record(tasks[index], outcome.value, outcome.seconds)
                known[index] = outcome.value
                on_done(len(tasks) - len(missing) + done)
                interruption.raise_if_asked(f"{KEPT}. {GO_ON}")
    return [value for value in known if value is not None]


@contextmanager
def _ended_together(interruption: Interruption) -> Iterator[None]:
    """Ctrl-C in a terminal goes to all processes, and one that is still starting dies of it: that is no failure."""
    try:
        yield
    except RunFailed:
        interruption.raise_if_asked(f"{KEPT}. {GO_ON}")
        raise


def _check(task: Task, outcome: Outcome) -> None:
    if outcome.problem is None and math.isfinite(outcome.value):
        return
    problem = outcome.problem or f"it is {outcome.value}"
    kind = InputError if outcome.status == InputError.exit_status else RunFailed
    raise kind(f"{task.measure} of {task.architecture}: {problem}")
