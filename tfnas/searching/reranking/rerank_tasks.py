"""Tasks of a re-ranking, one number of one candidate each, and the journal of their results.

A task can be pickled and gives the same number in every process. Every result is appended to a file of the run
directory with its measure, architecture and settings, and computed only once: a second re-ranking with one more score
computes that score only, and one that was killed continues with what it had.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import torch

from tfnas.core import __version__
from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError, RunFailed
from tfnas.data.data_config import DataConfig
from tfnas.data.image_batches import EpochBatches, loader
from tfnas.data.opened_data import ImageData, open_data
from tfnas.proxies.labelled_images import labelled_images
from tfnas.proxies.score import Score, measure
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork
from tfnas.runs.endings import Interruption
from tfnas.runs.run_directory import SEARCH_KIND, load_checkpoint
from tfnas.runs.worker_pool import Task, TaskResult, WorkerPool
from tfnas.searching.differentiable.inherited_evaluation import derived_accuracy
from tfnas.searching.reranking.rerank_config import INHERITED
from tfnas.supernet.extract import supernet_from_state
from tfnas.supernet.supernet import Supernet
from tfnas.utils.files import LineFile
from tfnas.utils.progress import counting
from tfnas.utils.text import typed

JOURNAL_FILE = "rerank.journal"
SAVED = "all results so far are saved"
CONTINUES = "The same command continues with them"
STOPPING = "stopping when the evaluations in progress are complete; interrupt again to stop at once"


@dataclass(frozen=True)
class ScoreTask:
    """A zero-shot score, which comes with its definition: other processes may not have it registered."""

    score: Score
    architecture: str
    batch_size: int
    seed: int
    device: str
    data: DataConfig | None = None
    """Where real images come from, for a score that needs them."""

    @property
    def measure(self) -> str:
        """The name of the score."""
        return self.score.name

    def settings(self) -> dict[str, Any]:
        """Batch size and seed of the inputs, the data of real ones, device and versions."""
        data = {} if self.data is None else {"data": plain_settings(self.data)}
        return {"batch": self.batch_size, "seed": self.seed, **data, **environment(self.device)}

    def compute(self) -> float:
        """The score of the network with random weights."""
        architecture = Architecture.parse(self.architecture)
        images = labels = None
        if self.data is not None:
            images, labels = labelled_images(self.data, architecture.image_size, 2 * self.batch_size, self.seed)
        options = ScoreOptions(
            batch_size=self.batch_size, seed=self.seed, device=self.device, images=images, labels=labels
        )
        return measure(self.score, ScoredNetwork.of(architecture), options)


@dataclass(frozen=True)
class InheritedTask:
    """Top-1 in percent on the architecture part with the weights of the supernet in a checkpoint."""

    architecture: str
    checkpoint: str
    digest: str
    data: DataConfig
    data_fingerprint: str
    data_seed: int
    batch_size: int
    device: str
    workers: int | None

    @property
    def measure(self) -> str:
        """`inherited`."""
        return INHERITED

    def settings(self) -> dict[str, Any]:
        """Checkpoint, images and their order (batch norm uses the statistics of each batch), device and versions."""
        images = {"images": self.data_fingerprint, "batch": self.batch_size, "order": self.data_seed}
        return {"checkpoint": self.digest, **images, **environment(self.device)}

    def compute(self) -> float:
        """One-hot depth, batch statistics; channels of a refitted width by the largest depthwise L1 norm."""
        supernet, data = _supernet_and_data(self.checkpoint, self.digest, self.data, self.data_seed, self.device)
        if data.fingerprint != self.data_fingerprint:
            raise InputError(
                "the images are not those of the search: the search has since used others, or files were moved"
            )
        held_out = data.architecture
        # in the order of the search's evaluation
        batches = EpochBatches(len(held_out), batch_size=self.batch_size, epoch=0, seed=self.data_seed)
        workers = data.workers if self.workers is None else self.workers
        architecture = Architecture.parse(self.architecture)
        images = ((pictures, labels) for pictures, labels in loader(held_out, batches, workers=workers))
        return derived_accuracy(supernet, architecture, images, torch.device(self.device))


@lru_cache(maxsize=1)
def _supernet_and_data(
    checkpoint: str, _digest: str, data: DataConfig, data_seed: int, device: str
) -> tuple[Supernet, ImageData]:
    """The supernet of a checkpoint and its images, opened once in a process."""
    supernet = supernet_from_state(load_checkpoint(Path(checkpoint), SEARCH_KIND))
    supernet = supernet.to(torch.device(device), memory_format=torch.channels_last)  # type: ignore[call-overload]
    return supernet, open_data(data, image_size=supernet.space.image_size, seed=data_seed)


def plain_settings(data: DataConfig) -> dict[str, Any]:
    """What of the data's settings decides a number."""
    return {name: value for name, value in dataclasses.asdict(data).items() if name != "workers"}


def environment(device: str) -> dict[str, str]:
    """Kind of device and versions, on which the last digits of a number depend."""
    return {"device": torch.device(device).type, "tfnas": __version__, "torch": torch.__version__}


# ---- the journal ----------------------------------------------------------------------------------------------------


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
