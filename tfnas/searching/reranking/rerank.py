"""`rerank`: candidates with the target latency of a finished search, ranked by zero-shot scores.

    result = rerank(RerankConfig(model_path="runs/search-20260131-120000", scores="zen,naswot"))

`result.rows()` lists the candidates, best first, as do `rerank.csv` and `rerank.json` in the run directory.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from rich.console import Console

from tfnas.core.errors import InputError
from tfnas.proxies.score import Score, find_score, score
from tfnas.runs.endings import Interruption, handle_errors, watch_interruption
from tfnas.runs.run_directory import RunDirectory
from tfnas.runs.worker_pool import Task, WorkerPool, owned_processes
from tfnas.searching.differentiable.candidates import Candidate, draw_candidates
from tfnas.searching.reranking.finished_search import FinishedSearch, open_search
from tfnas.searching.reranking.rerank_config import FEWEST_CALIBRATED, INHERITED, RerankConfig
from tfnas.searching.reranking.rerank_report import announcement, rerank_picture, show_result, written
from tfnas.searching.reranking.rerank_result import (
    CSV_FILE,
    JSON_FILE,
    MACS,
    PLOT_FILE,
    Measured,
    Reranking,
    ScoreCalibration,
    calibrate,
    select_for_training,
    write_selection,
)
from tfnas.searching.reranking.rerank_tasks import (
    CONTINUES,
    JOURNAL_FILE,
    SAVED,
    STOPPING,
    InheritedTask,
    ResultJournal,
    ScoreTask,
    compute_tasks,
)
from tfnas.spaces.families import architecture_counts
from tfnas.utils.devices import named_device, runtime_settings, usable_cores
from tfnas.utils.files import check_writable, write_whole
from tfnas.utils.progress import counting, waiting

_OUT_OF_MEMORY = f"out of memory; {SAVED}. Use fewer --jobs or a smaller --score_batch; the same command continues"


def rerank(config: RerankConfig, console: Console | None = None) -> Reranking:
    """Sample candidates, measure and rank them, and write the selected one into the search's run directory.

    Raises InputError for settings that do not fit together (before anything is written), RunFailed and Interrupted;
    all results so far are saved then, and the same call continues with them.
    """
    device = named_device(config.device)
    scores = [_known_score(name, config.scores_flag) for name in config.score_names if name != INHERITED]
    search = open_search(config.model_path, config.lookup_path)
    for found in scores:
        _check_supported(found, search, config.scores_flag)
    if config.calibrate:
        from tfnas.searching.reranking.train_from_scratch import calibration_images

        calibration_images(search.data, config.calibrate_images, search.space.image_size)
    run = RunDirectory(search.run_dir, console or Console())
    with (
        run.locked(),
        runtime_settings(1, deterministic=False),
        owned_processes(),
        watch_interruption(run.console, STOPPING) as interruption,
        ResultJournal.open(run.path) as journal,
        handle_errors(interruption, lambda: _remains(search), _OUT_OF_MEMORY),
    ):
        return _Reranker(config, search, device, run, interruption, journal).run()


def _remains(search: FinishedSearch) -> str:
    """What remains of a re-ranking that ends early, and how to continue."""
    if (search.run_dir / JOURNAL_FILE).is_file() and search.checkpoint.is_file():
        return f"{SAVED}. {CONTINUES}"
    return f"what was saved is lost, as {search.run_dir} was removed or emptied"


def _known_score(name: str, flag: str) -> Score:
    try:
        return find_score(name)
    except InputError as error:
        raise InputError(f"{flag}: {error} {INHERITED} is the accuracy with inherited weights") from error


def _check_supported(found: Score, search: FinishedSearch, flag: str) -> None:
    """Raise InputError for a score that is not defined for networks of a search, if that can be seen at no cost."""
    if found.cost == "analytic":
        try:
            score(found.name, search.derived)
        except InputError as error:
            raise InputError(f"{flag}: {found.name} is not for the networks of a search: {error}") from error


class _Reranker:
    """One re-ranking, from its candidates to its files."""

    def __init__(
        self,
        config: RerankConfig,
        search: FinishedSearch,
        device: torch.device,
        run: RunDirectory,
        interruption: Interruption,
        journal: ResultJournal,
    ) -> None:
        self.config, self.search, self.device = config, search, device
        self.run_dir, self.interruption, self.journal = run, interruption, journal
        self.jobs = config.jobs or (1 if device.type == "cuda" else usable_cores())
        self.workers = None if self.jobs == 1 else 0  # processes that compute need no further ones to load images
        self.seconds: dict[str, float] = {}

    def run(self) -> Reranking:
        for name in (CSV_FILE, PLOT_FILE, JSON_FILE):
            check_writable(self.run_dir.path / name)
        for line in announcement(self.config, self.search):
            self.run_dir.say(line)
        with self._timed("candidates"):
            candidates = self._candidates()
        architectures = [candidate.architecture for candidate in candidates]
        measures = [*self._scores(candidates), self._inherited(candidates)]
        calibration = self._calibration(candidates, measures) if self.config.calibrate else None
        ranked = tuple(item.name for item in measures if item.ranked)
        left_out = () if calibration is None else calibration.not_useful(ranked)
        result = Reranking(
            config=self.config,
            search=self.search,
            candidates=candidates,
            costs=tuple(self.search.table.architecture_ms(architecture) for architecture in architectures),
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
        search, count = self.search, self.config.num_candidates
        with counting(self.run_dir.console, "drawing candidates", count) as on_done:

            def on_draw(done: int) -> None:
                on_done(done)
                self.interruption.raise_if_asked(f"nothing is lost. {CONTINUES}")

            choice, table = search.choice, search.table
            return draw_candidates(choice, table, search.target, search.derived, count, self.config.seed, on_draw)

    def _scores(self, candidates: Sequence[Candidate]) -> Iterator[Measured]:
        """Each score of all candidates: analytic ones in this process, the others in the worker pool."""
        texts = [candidate.architecture.to_text() for candidate in candidates]
        names = [name for name in self.config.score_names if name != INHERITED]
        tasks: dict[str, list[Task]] = {name: [self._score_task(name, text) for text in texts] for name in names}
        here = [name for name in names if find_score(name).cost == "analytic"]
        pool = WorkerPool(self.config.joblib_backend, self.jobs, self.config.cluster)
        found: dict[str, list[float]] = {}
        with self._timed("scores"):
            for workers, some in ((WorkerPool(), here), (pool, [name for name in names if name not in here])):
                if not some:
                    continue
                wanted = [task for name in some for task in tasks[name]]
                values = iter(self._computed(wanted, workers, f"scoring by {', '.join(some)}"))
                found |= {name: [next(values) for _ in texts] for name in some}
        for name in names:
            known = find_score(name)
            yield Measured(name, known.higher_is_better, tuple(found[name]), ranked=not known.is_control)

    def _score_task(self, name: str, text: str) -> Task:
        found, config = find_score(name), self.config
        data = self.search.data if found.needs_data else None
        return ScoreTask(found, text, config.score_batch, config.seed, str(self.device), data)

    def _inherited(self, candidates: Sequence[Candidate]) -> Measured:
        search = self.search
        tasks = [
            InheritedTask(
                architecture=candidate.architecture.to_text(),
                checkpoint=str(search.checkpoint),
                digest=search.checkpoint_digest,
                data=search.data,
                data_fingerprint=search.data_fingerprint,
                data_seed=search.seed,
                batch_size=search.batch_size,
                device=str(self.device),
                workers=self.workers,
            )
            for candidate in candidates
        ]
        with self._timed("inherited"):
            values = self._computed(tasks, WorkerPool(jobs=self.jobs), "evaluating with inherited weights")
        return Measured(INHERITED, True, tuple(values), ranked=INHERITED in self.config.score_names)

    def _calibration(self, candidates: Sequence[Candidate], measures: Sequence[Measured]) -> ScoreCalibration:
        """Train some of the candidates from scratch, and compare every measure with their accuracy."""
        from tfnas.searching.reranking.train_from_scratch import calibration_images

        config, search = self.config, self.search
        if len(candidates) < FEWEST_CALIBRATED:
            raise InputError(
                f"the latency band contains only {len(candidates)} distinct networks, too few for a calibration: omit "
                "--calibrate"
            )
        numbers = select_for_training(len(candidates), config.calibrate, config.seed)
        images = calibration_images(search.data, config.calibrate_images, search.space.image_size)
        chosen = [candidates[number] for number in numbers]
        values = self._trained(chosen, len(images.to_train))
        counts = [architecture_counts(candidate.architecture) for candidate in chosen]
        predictors = {item.name: [item.signed[number] for number in numbers] for item in measures}
        predictors |= {MACS: [float(count.macs) for count in counts]}
        predictors |= {"params": [float(count.params) for count in counts]}
        predictors |= {"preference": [candidate.log_prob_gap for candidate in chosen]}
        runs = [values[index :: len(numbers)] for index in range(len(numbers))]
        sizes = len(images.to_train), len(images.to_evaluate)
        return calibrate(numbers, runs, predictors, images=sizes, epochs=config.calibrate_epochs)

    def _trained(self, candidates: Sequence[Candidate], num_images: int) -> list[float]:
        """Top-1 of every training: all candidates with the first seed, then all with the next one."""
        from tfnas.searching.reranking.train_from_scratch import TrainedTask, short_recipe

        config, data = self.config, self.search.data
        tasks = [
            TrainedTask(
                architecture=candidate.architecture.to_text(),
                data=data,
                images=config.calibrate_images,
                recipe=short_recipe(data, config.calibrate_epochs, num_images),
                seed=seed,
                device=str(self.device),
                workers=self.workers,
            )
            for seed in range(
                config.seed, config.seed + config.calibrate_seeds
            )  # so that an ended run has whole rounds
            for candidate in candidates
        ]
        pool = WorkerPool(config.joblib_backend, self.jobs, config.cluster)
        with self._timed("training"):
            return self._computed(tasks, pool, f"training {len(candidates)} candidates from scratch")

    def _computed(self, tasks: Sequence[Task], pool: WorkerPool, words: str) -> list[float]:
        return compute_tasks(tasks, pool, self.journal, self.interruption, words)

    @contextmanager
    def _timed(self, phase: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.seconds[phase] = round(time.perf_counter() - start, 2)
