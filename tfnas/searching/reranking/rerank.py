"""`rerank`: candidates of the same latency as a search's result, ranked by zero-shot scores.

    result = rerank(RerankConfig(model_path="runs/search-20260131-120000", scores="zen,naswot"))

`result.rows()` holds every candidate, best first; the same is in `rerank.csv` and `rerank.json` of the run directory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from rich.console import Console

from tfnas.core.errors import InputError
from tfnas.proxies.score import Score, find_score, score
from tfnas.runs.endings import handle_errors
from tfnas.runs.run_directory import Interruption, RunDirectory, watch_interruption
from tfnas.searching.differentiable.candidates import Candidate, draw_candidates
from tfnas.searching.reranking.finished_search import FinishedSearch, open_search
from tfnas.searching.reranking.rerank_config import FEWEST_CALIBRATED, INHERITED, RerankConfig
from tfnas.searching.reranking.rerank_journal import JOURNAL_FILE, ResultJournal
from tfnas.searching.reranking.rerank_plot import rerank_picture
from tfnas.searching.reranking.rerank_result import CSV_FILE, JSON_FILE, PLOT_FILE, Measured, Reranking, write_selection
from tfnas.searching.reranking.rerank_tasks import InheritedTask, ScoreTask, Task
from tfnas.searching.reranking.rerank_text import announcement, show_result, written
from tfnas.searching.reranking.rerank_workers import GO_ON, STOPPING, WorkerPool, compute_tasks, own_processes
from tfnas.searching.reranking.score_calibration import MACS, ScoreCalibration, calibrate, select_for_training
from tfnas.spaces.families import architecture_counts
from tfnas.utils.devices import named_device, usable_cores
from tfnas.utils.files import check_writable, write_whole
from tfnas.utils.progress import counting, waiting
from tfnas.utils.torch_settings import runtime_settings

_OUT_OF_MEMORY = (
    "out of memory; every number found so far is kept. Use fewer --jobs or a smaller --score_batch; the same command "
    "goes on"
)


def rerank(config: RerankConfig, console: Console | None = None) -> Reranking:
    """Draw candidates, measure and rank them, and put the one asked for into the search's run directory.

    Raises InputError for what does not fit together (before anything is written), RunFailed and Interrupted; every
    number found so far is kept then, and the same call goes on with them.
    """
    device = named_device(config.device)
    scores = [_known_score(name, config.scores_flag) for name in config.score_names if name != INHERITED]
    subject = open_search(config.model_path, config.lookup_path)
    for found in scores:
        _check_supported(found, subject, config.scores_flag)
    if config.calibrate:
        from tfnas.searching.reranking.train_from_scratch import calibration_images

        calibration_images(subject.data, config.calibrate_images, subject.space.image_size)
    run = RunDirectory(subject.run_dir, console or Console())
    with (
        run.locked(),
        runtime_settings(1, deterministic=False),
        own_processes(),
        watch_interruption(run.console, STOPPING) as interruption,
        ResultJournal.open(run.path) as journal,
        handle_errors(interruption, lambda: _remains(subject), _OUT_OF_MEMORY),
    ):
        return _Reranker(config, subject, device, run, interruption, journal).run()


def _remains(subject: FinishedSearch) -> str:
    """What is left of a re-ranking that ends early, and how to go on."""
    if (subject.run_dir / JOURNAL_FILE).is_file() and subject.checkpoint.is_file():
        return f"what was saved before is kept. {GO_ON}"
    return f"what was saved is lost, as {subject.run_dir} was removed or emptied"


def _known_score(name: str, flag: str) -> Score:
    try:
        return find_score(name)
    except InputError as error:
        raise InputError(f"{flag}: {error} {INHERITED} is the accuracy with inherited weights") from error


def _check_supported(found: Score, subject: FinishedSearch, flag: str) -> None:
    """Raise InputError for a score that no network of a search has, as far as that costs nothing to see."""
    if found.cost == "analytic":
        try:
            score(found.name, subject.derived)
        except InputError as error:
            raise InputError(f"{flag}: {found.name} is not for the networks of a search: {error}") from error


class _Reranker:
    """One re-ranking from its beginning to its files."""

    def __init__(
        self,
        config: RerankConfig,
        subject: FinishedSearch,
        device: torch.device,
        run: RunDirectory,
        interruption: Interruption,
        journal: ResultJournal,
    ) -> None:
        self.config, self.subject, self.device = config, subject, device
        self.run_dir, self.interruption, self.journal = run, interruption, journal
        self.jobs = config.jobs or (1 if device.type == "cuda" else usable_cores())
        self.workers = None if self.jobs == 1 else 0  # processes that compute need no further ones to load images
        self.seconds: dict[str, float] = {}

    def run(self) -> Reranking:
        for name in (CSV_FILE, PLOT_FILE, JSON_FILE):
            check_writable(self.run_dir.path / name)
        for line in announcement(self.config, self.subject):
            self.run_dir.say(line)
        with self._timed("candidates"):
            candidates = self._candidates()
        architectures = [candidate.architecture for candidate in candidates]
        measures = [*self._scores(candidates), self._inherited(candidates)]
        calibration = self._calibration(candidates, measures) if self.config.calibrate else None
        ranked = tuple(item.name for item in measures if item.ranked)
        left_out = () if calibration is None else calibration.worthless(ranked)
        result = Reranking(
            config=self.config,
            subject=self.subject,
            candidates=candidates,
            costs=tuple(self.subject.table.architecture_ms(architecture) for architecture in architectures),
            counts=tuple(architecture_counts(architecture) for architecture in architectures),
            measures=tuple(measures),
            calibration=calibration,
            used=tuple(name for name in ranked if name not in left_out),
            seconds=self.seconds,
        )
        show_result(result, self.run_dir)
        with waiting(self.run_dir.console, "writing"):
            write_whole(self.run_dir.path / CSV_FILE, result.to_csv())
            write_whole(self.run_dir.path / PLOT_FILE, rerank_picture(result))
            self.run_dir.write_json(JSON_FILE, result.to_json())
            write_selection(result, self.run_dir)
        for line in written(result, self.run_dir):
            self.run_dir.say(line)
        return result

    # ---- what is measured -------------------------------------------------------------------------------------

    def _candidates(self) -> tuple[Candidate, ...]:
        subject, count = self.subject, self.config.num_candidates
        with counting(self.run_dir.console, "drawing candidates", count) as on_done:

            def on_draw(done: int) -> None:
                on_done(done)
                self.interruption.raise_if_asked(f"nothing is lost. {GO_ON}")

            choice, table = subject.choice, subject.table
            return draw_candidates(choice, table, subject.target, subject.derived, count, self.config.seed, on_draw)

    def _scores(self, candidates: Sequence[Candidate]) -> Iterator[Measured]:
        """Each score of all candidates: those without a forward pass at once, the others side by side."""
        texts = [candidate.architecture.to_text() for candidate in candidates]
        names = [name for name in self.config.score_names if name != INHERITED]
        tasks: dict[str, list[Task]] = {name: [self._score_task(name, text) for text in texts] for name in names}
        here = [name for name in names if find_score(name).cost == "analytic"]
        crew = WorkerPool(self.config.joblib_backend, self.jobs, self.config.cluster)
        found: dict[str, list[float]] = {}
        with self._timed("scores"):
            for who, some in ((WorkerPool(), here), (crew, [name for name in names if name not in here])):
                if not some:
                    continue
                wanted = [task for name in some for task in tasks[name]]
                values = iter(self._numbers(wanted, who, f"scoring by {', '.join(some)}"))
                found |= {name: [next(values) for _ in texts] for name in some}
        for name in names:
            known = find_score(name)
            yield Measured(name, known.higher_is_better, tuple(found[name]), ranked=not known.is_control)

    def _score_task(self, name: str, text: str) -> Task:
        return ScoreTask(name, text, self.config.score_batch, self.config.seed, str(self.device))

    def _inherited(self, candidates: Sequence[Candidate]) -> Measured:
        subject = self.subject
        tasks = [
            InheritedTask(
                architecture=candidate.architecture.to_text(),
                checkpoint=str(subject.checkpoint),
                digest=subject.checkpoint_digest,
                data=subject.data,
                data_fingerprint=subject.data_fingerprint,
                data_seed=subject.seed,
                batch_size=subject.batch_size,
                device=str(self.device),
                workers=self.workers,
            )
            for candidate in candidates
        ]
        with self._timed("inherited"):
            values = self._numbers(tasks, WorkerPool(jobs=self.jobs), "judging with inherited weights")
        return Measured(INHERITED, True, tuple(values), ranked=INHERITED in self.config.score_names)

    def _calibration(self, candidates: Sequence[Candidate], measures: Sequence[Measured]) -> ScoreCalibration:
        from tfnas.searching.reranking.train_from_scratch import TrainedTask, calibration_images, short_recipe

        config, subject = self.config, self.subject
        if len(candidates) < FEWEST_CALIBRATED:
            raise InputError(
                f"the band holds only {len(candidates)} different networks, too few to tell what a score is worth: "
                "leave --calibrate out"
            )
        numbers = select_for_training(len(candidates), config.calibrate, config.seed)
        images = calibration_images(subject.data, config.calibrate_images, subject.space.image_size)
        recipe = short_recipe(subject.data, config.calibrate_epochs, len(images.to_train))
        seeds = range(config.seed, config.seed + config.calibrate_seeds)
        tasks = [
            TrainedTask(
                architecture=candidates[number].architecture.to_text(),
                data=subject.data,
                images=config.calibrate_images,
                recipe=recipe,
                seed=seed,
                device=str(self.device),
                workers=self.workers,
            )
            for seed in seeds  # all candidates once before any a second time: a run that is ended has whole rounds
            for number in numbers
        ]
        crew = WorkerPool(config.joblib_backend, self.jobs, config.cluster)
        with self._timed("training"):
            values = self._numbers(tasks, crew, f"training {len(numbers)} candidates from scratch")
        counts = [architecture_counts(candidates[number].architecture) for number in numbers]
        foretelling = {item.name: [item.signed[number] for number in numbers] for item in measures}
        foretelling |= {MACS: [float(count.macs) for count in counts]}
        foretelling |= {"params": [float(count.params) for count in counts]}
        foretelling |= {"preference": [candidates[number].preference for number in numbers]}
        runs = [values[place :: len(numbers)] for place in range(len(numbers))]
        sizes = len(images.to_train), len(images.to_judge)
        return calibrate(numbers, runs, foretelling, images=sizes, epochs=config.calibrate_epochs)

    def _numbers(self, tasks: Sequence[Task], crew: WorkerPool, words: str) -> list[float]:
        return compute_tasks(tasks, crew, self.journal, self.interruption, words)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - start, 2)
