"""Journal of a re-ranking: every result is appended to a file of the run directory, so that it is computed only once.

A line is one number with its measure, architecture and settings. Lines of other settings stay, so a second re-ranking
with one more score computes that score only, and one that was killed continues with what it had.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tfnas.core.errors import InputError, RunFailed
from tfnas.runs.endings import Interruption
from tfnas.searching.reranking.rerank_workers import Task, TaskResult, WorkerPool
from tfnas.utils.line_file import LineFile
from tfnas.utils.progress import counting
from tfnas.utils.text import typed

JOURNAL_FILE = "rerank.journal"
SAVED = "all results so far are saved"
CONTINUES = "The same command continues with them"
STOPPING = "stopping when the evaluations in progress are complete; interrupt again to stop at once"


class ResultJournal:
    """Results so far by task. The run directory must be locked: two writers would mix their lines."""

    def __init__(self, file: LineFile) -> None:
        self._file, self._values = file, _entries(file)

    @classmethod
    @contextmanager
    def open(cls, run_dir: Path) -> Iterator[ResultJournal]:
        """The journal in a run directory, created if there is none; an incomplete last line is removed.

        Raises InputError when the file is not a journal, RunFailed when it cannot be written.
        """
        with LineFile.open(run_dir / JOURNAL_FILE) as file:
            yield cls(file)

    def value(self, task: Task) -> float | None:
        """The result of a task, None if it is not in the journal."""
        return self._values.get(_key(_identity(task)))

    def record(self, task: Task, value: float, seconds: float) -> None:
        """Append a result. Raises RunFailed when it cannot be written; the file keeps its contents."""
        identity = _identity(task)
        self._file.append({**identity, "value": value, "seconds": round(seconds, 4)})
        self._values[_key(identity)] = value


def _identity(task: Task) -> dict[str, Any]:
    return {"measure": task.measure, "architecture": task.architecture, "settings": task.settings()}


def _key(identity: Mapping[str, Any]) -> str:
    return json.dumps([identity["measure"], identity["architecture"], identity["settings"]], sort_keys=True)


def _entries(file: LineFile) -> dict[str, float]:
    found = {}
    for number, line in enumerate(file.lines, 1):
        try:
            entry = json.loads(line)
            key, value = _key(entry), entry["value"]
        except (ValueError, TypeError, KeyError, RecursionError) as error:
            raise _damaged(file.path, number) from error
        if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
            raise _damaged(file.path, number)
        found[key] = float(value)
    return found


def _damaged(path: Path, line: int) -> InputError:
    return InputError(
        f"{path}:{line} is not a re-ranking journal: remove the file (rm {typed(path)}) to recompute everything"
    )


# ---- computing ------------------------------------------------------------------------------------------------------


def compute_tasks(
    tasks: Sequence[Task], pool: WorkerPool, journal: ResultJournal, interruption: Interruption, words: str
) -> list[float]:
    """The number of every task, from the journal or computed; `words` name the work in the progress display.

    Raises InputError or RunFailed naming the task without a number, and Interrupted; all results are in the journal.
    """
    known = [journal.value(task) for task in tasks]
    missing = [index for index, value in enumerate(known) if value is None]
    with counting(interruption.console, words, len(tasks)) as on_done:
        on_done(len(tasks) - len(missing))
        results = pool.results([tasks[index] for index in missing])
        with closing(results), _interrupted_together(interruption):
            for done, result in enumerate(results, 1):
                index = missing[result.number]
                _check_result(tasks[index], result)
                journal.record(tasks[index], result.value, result.seconds)
                known[index] = result.value
                on_done(len(tasks) - len(missing) + done)
                interruption.raise_if_asked(f"{SAVED}. {CONTINUES}")
    return [value for value in known if value is not None]


@contextmanager
def _interrupted_together(interruption: Interruption) -> Iterator[None]:
    """Ctrl-C in a terminal goes to all processes; one that is still starting dies of it, which is no failure."""
    try:
        yield
    except RunFailed:
        interruption.raise_if_asked(f"{SAVED}. {CONTINUES}")
        raise


def _check_result(task: Task, result: TaskResult) -> None:
    if result.problem is None and math.isfinite(result.value):
        return
    problem = result.problem or f"it is {result.value}"
    kind = InputError if result.status == InputError.exit_status else RunFailed
    raise kind(f"{task.measure} of {task.architecture}: {problem}")
