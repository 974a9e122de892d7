"""An evolutionary search may die at any moment, and its scores may come from anywhere: it ends bit for bit the same."""

import io
import time
from contextlib import nullcontext

import pytest
from real_process import RealProcess
from rich.console import Console
from test_resume import _InterruptAt, assert_same

from tfnas.core.errors import InputError, Interrupted, RunFailed
from tfnas.proxies.score_options import ScoreOptions
from tfnas.runs import session
from tfnas.runs.architecture_source import read_source
from tfnas.runs.run_directory import evolve_checkpoints
from tfnas.runs.worker_pool import TaskResult, WorkerPool
from tfnas.searching.evolution.candidate_scoring import CandidateScorer
from tfnas.searching.evolution.evolutionary_search import evolve
from tfnas.searching.evolution.evolve_config import EvolveConfig
from tfnas.searching.evolution.objective import Objective
from tfnas.spaces.families import load_architecture
from tfnas.spaces.zen.zen_family import StructureArchitecture

QUIET = Console(quiet=True)
TINY = "i3x8_n4:SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,8,2,8,1)SuperResK1K3K1(8,8,2,8,1)SuperConvK1BNRELU(8,16,1,1)"
SETTINGS = {
    "init": TINY,
    "max_macs": 50e3,
    "iterations": 66,
    "population": 14,
    "children": 6,
    "seed": 5,
    "device": "cpu",
}
EACH_STEP = {"save_minutes": 1e-9}
SCORES = {
    "passes": {"score": "naswot", "batch_size": 2, "jobs": 1},
    "ranks": {"score": "params+flops+random", "combine": "rank", "iterations": 1000},
}


def config(run_dir, scores="passes", **changes):
    return EvolveConfig(run_dir=str(run_dir), **{**SETTINGS, **EACH_STEP, **SCORES[scores], **changes})


def final_state(run_dir):
    """All that the last checkpoint holds but times and settings, and the files of the result."""
    state, _, _ = evolve_checkpoints(run_dir).load_latest()
    del state["seconds"], state["settings"]
    state["numbers"] = state["numbers"].numpy().tobytes()  # some are NaN, which equals nothing
    names = ("history.npz", "population.json", "architecture.json", "best_structure.txt", "evolution.png")
    return state, [(run_dir / name).read_bytes() for name in names]


@pytest.fixture(scope="module", params=SCORES)
def whole(request, tmp_path_factory):
    """The kind of scores, and what a run that is left alone comes to."""
    run_dir = tmp_path_factory.mktemp("whole") / "run"
    evolve(config(run_dir, request.param), QUIET)
    return request.param, final_state(run_dir)


def run_quietly(given):
    evolve(given, QUIET)


def test_killed_and_resumed_it_ends_bit_for_bit(tmp_path, whole):
    run_dir, (scores, expected) = tmp_path / "run", whole
    process = RealProcess(run_quietly, config(run_dir, scores), said=tmp_path / "said.txt")
    checkpoints, deadline = evolve_checkpoints(run_dir), time.monotonic() + 120
    while len(checkpoints.saved()) < 2 and time.monotonic() < deadline:
        time.sleep(0.002)
    process.kill()
    assert not (run_dir / "summary.json").exists()
    evolve(EvolveConfig(resume=str(run_dir)), QUIET)
    assert_same(final_state(run_dir), expected)


def test_interrupted_it_says_how_to_resume_and_what_it_has_found(tmp_path, whole, monkeypatch):
    run_dir, (scores, expected) = tmp_path / "run", whole
    with monkeypatch.context() as patched:
        patched.setattr(session, "watch_interruption", lambda _: nullcontext(_InterruptAt(2)))
        with pytest.raises(
            Interrupted, match=r"the last saved state is intact|the state is saved\. Resume with: .*evolve --resume"
        ):
            evolve(config(run_dir, scores), QUIET)
    found = read_source(run_dir, None)
    assert found.kind == "checkpoint of a search" and "best network that was found until then" in found.notes[0]
    assert read_source(evolve_checkpoints(run_dir).saved()[0], None).architecture == found.architecture
    with pytest.raises(InputError, match="--population 15 differs from the run's own 14"):
        evolve(EvolveConfig(resume=str(run_dir), population=15), QUIET)
    evolve(EvolveConfig(resume=str(run_dir)), QUIET)
    assert_same(final_state(run_dir), expected)
    (run_dir / "architecture.json").unlink()
    with pytest.raises(InputError, match=r"is a finished search without its architecture.json.*evolve --resume"):
        read_source(run_dir, None)
    evolve(EvolveConfig(resume=str(run_dir)), QUIET)
    assert read_source(run_dir, None).architecture == load_architecture(run_dir)


def test_another_start_is_refused(tmp_path):
    run_dir, start = tmp_path / "run", tmp_path / "start.txt"
    start.write_text(TINY)
    evolve(config(run_dir, "ranks", init=str(start), iterations=300), QUIET)
    start.write_text(TINY.replace("(8,16,1,1)", "(8,24,1,1)"))
    with pytest.raises(InputError, match=r"its network to start from was 'i3x8_n4:.* when it was saved and is now"):
        evolve(EvolveConfig(resume=str(run_dir)), QUIET)


def test_it_says_what_it_does(tmp_path):
    said = io.StringIO()
    evolve(config(tmp_path / "run", "ranks", iterations=600), Console(file=said, width=200))
    text = said.getvalue()
    assert "score     the ranks of params, flops, random in the population" in text
    assert "budgets   at most 50 k MACs" in text and "over macs" in text and "left" in text
    assert text.count("epoch ") == 3 and "best_structure.txt" in text


# ---- workers --------------------------------------------------------------------------------------------------------


class MadePool(WorkerPool):
    """Computes here, gives results back in another order, and dies a number of times, each time after one result."""

    def __init__(self, deaths):
        super().__init__(jobs=2, connected=True)
        object.__setattr__(self, "deaths", [None] * deaths)

    def results(self, tasks):
        for number in reversed(range(len(tasks))):
            yield TaskResult(number, tasks[number].compute(), 0.0)
            if self.deaths:
                self.deaths.pop()
                raise RunFailed("a process failed")


def scorer(pool):
    return CandidateScorer(Objective.parse("naswot+params"), ScoreOptions(batch_size=2, seed=1), pool)


def architectures():
    start = StructureArchitecture.parse(TINY)
    return [start.adapted(image_size=size, num_classes=4) for size in (8, 12, 16, 20)]


@pytest.mark.parametrize("deaths", [0, 2])
def test_scores_come_in_order_from_workers_that_may_die(deaths):
    here, there = scorer(WorkerPool()), scorer(MadePool(deaths))
    assert there.scores(architectures()) == here.scores(architectures())
    assert there.in_workers and not here.in_workers


def test_workers_that_die_again_and_again_end_the_run():
    with pytest.raises(RunFailed, match="a process failed"):
        scorer(MadePool(3)).scores(architectures())


def test_a_network_is_scored_once(monkeypatch):
    once = scorer(MadePool(0))
    expected = once.scores(architectures())
    monkeypatch.setattr(MadePool, "results", None)
    assert once.scores(architectures()[1:3]) == expected[1:3]


@pytest.mark.slow
def test_processes_of_their_own_change_nothing(tmp_path):
    evolve(config(tmp_path / "one"), QUIET)
    evolve(config(tmp_path / "two", jobs=2), QUIET)
    assert_same(final_state(tmp_path / "two"), final_state(tmp_path / "one"))
