"""What is found for a seed: by the search, by re-ranking after it, and by a random search that takes as long."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from quality.journal import Journal
from quality.networks import RandomNetworks, Wanted
from quality.settings import Settings
from quality.training import Data, Recipe, Watch, evaluated, trained
from tfnas.core.architecture import Architecture
from tfnas.runs.run_directory import saved_choice, search_checkpoints
from tfnas.searching.differentiable.candidates import log_prob_gap
from tfnas.searching.differentiable.differentiable_search import search
from tfnas.searching.differentiable.inherited_evaluation import derived_accuracy
from tfnas.searching.differentiable.search_config import SearchConfig
from tfnas.searching.reranking.rerank import rerank
from tfnas.searching.reranking.rerank_config import RerankConfig
from tfnas.supernet.extract import supernet_from_state

Say = Callable[[str], None]

_DRAWS_FROM = 1_000_000  # random searches draw other networks than those that all are compared with


@dataclass(frozen=True)
class Found:
    """The networks of one search seed, and the seconds of everything."""

    seed: int
    searched: Architecture
    reranked: Architecture | None
    random_search: Architecture
    numbers: dict[str, Any]


class NotYetError(Exception):
    """The journal does not hold what is asked for, and nothing is to be computed."""


class Finder:
    """Finds them, and keeps every step of it. With `only_known` it raises NotYetError in place of computing."""

    def __init__(
        self, settings: Settings, wanted: Wanted, data: Data, journal: Journal, say: Say, *, only_known: bool = False
    ) -> None:
        self.settings, self.wanted, self.data, self.journal, self.say = settings, wanted, data, journal, say
        self._only_known = only_known

    def _kept(self, identity: dict[str, Any], compute: Callable[[], dict[str, Any]], words: str) -> dict[str, Any]:
        """The numbers of what is named, from the journal, or computed and kept there; `words` say that it computes."""
        numbers = self.journal.find(**identity)
        if numbers is None:
            if self._only_known:
                raise NotYetError
            self.say(words)
            numbers = compute()
            self.journal.record(numbers, **identity)
        return numbers

    def find(self, seed: int) -> Found:
        """Search, re-rank, and search at random."""
        searched = self._searched(seed)
        reranked = self._reranked(seed) if self.settings.candidates else None
        at_random = self._random_search(seed, searched["cpu_seconds"])
        numbers = {"search": searched, "rerank": reranked, "random_search": at_random}
        return Found(
            seed,
            searched=Architecture.parse(searched["architecture"]),
            reranked=None if reranked is None else Architecture.parse(reranked["architecture"]),
            random_search=Architecture.parse(at_random["architecture"]),
            numbers=numbers,
        )

    def search_run(self, seed: int) -> Path:
        """The run directory of a search."""
        return self.settings.run_dir / f"search-{self.settings.search_digest}-seed{seed}"

    # ---- the search ---------------------------------------------------------------------------------------------

    def _searched(self, seed: int) -> dict[str, Any]:
        identity = {"kind": "search", "settings": self.settings.search_digest, "seed": seed}
        return self._kept(identity, lambda: self._search(seed), f"searching, seed {seed}")

    def _search(self, seed: int) -> dict[str, Any]:
        run_dir, watch = self.search_run(seed), Watch()
        resumed = (run_dir / "config.yaml").is_file()
        config = SearchConfig(resume=str(run_dir)) if resumed else self._config(seed, run_dir)
        summary, spent = search(config, Console(quiet=True)).summary, watch.read()
        seconds = summary["seconds"]["total"]
        if resumed:  # what was computed before is not known: as large a share of its time, then, as now
            spent["cpu_seconds"] *= max(1.0, seconds / spent["seconds"])
        names = ("architecture", "top1", "supernet_top1", "operation_entropy", "depth_entropy", "macs", "params")
        return {name: summary[name] for name in names} | {
            "seconds": seconds,
            "cpu_seconds": spent["cpu_seconds"],
            "resumed": resumed,
            "history": summary["history"],
        }

    def _config(self, seed: int, run_dir: Path) -> SearchConfig:
        settings = self.settings
        return SearchConfig(
            data=settings.data,  # type: ignore[arg-type]
            space=settings.space,
            target_lat=settings.target,
            lookup_path=settings.lookup_path,
            seed=seed,
            run_dir=str(run_dir),
            device="cpu",
            threads=1,
            **settings.search,
        )

    def _reranked(self, seed: int) -> dict[str, Any]:
        """The first of the combined ranking."""
        count, scores = self.settings.candidates, self.settings.scores
        identity = {"kind": "rerank", "settings": self.settings.search_digest, "seed": seed}
        identity |= {"candidates": count, "scores": scores}
        return self._kept(identity, lambda: self._rerank(seed), f"re-ranking, seed {seed}")

    def _rerank(self, seed: int) -> dict[str, Any]:
        watch = Watch()
        config = RerankConfig(
            model_path=str(self.search_run(seed)),
            scores=self.settings.scores,
            num_candidates=self.settings.candidates,
            device="cpu",
            jobs=1,
        )
        result = rerank(config, Console(quiet=True))
        first = result.candidates[result.order[0]]
        return {"architecture": first.architecture.to_text(), "derived_rank": result.derived_rank, **watch.read()}

    # ---- the random search --------------------------------------------------------------------------------------

    def _random_search(self, seed: int, budget_s: float) -> dict[str, Any]:
        """Draw, train shortly on the weight part, evaluate by cross entropy on the architecture part, keep the best.

        It ends when it has computed for as long as the search of that seed; what it then trains is finished.
        """
        recipe = Recipe(steps=self.settings.probe_steps)
        draws, spent_s = RandomNetworks(self.wanted, _DRAWS_FROM + seed), {"seconds": 0.0, "cpu_seconds": 0.0}
        best: dict[str, Any] = {}
        count = 0
        while spent_s["cpu_seconds"] < budget_s:
            architecture = next(draws)
            text = architecture.to_text()
            identity = {"kind": "probe", "architecture": text, "seed": seed, **self._on("weights", recipe)}
            words = f"searching at random, seed {seed}: {spent_s['cpu_seconds']:.0f} of {budget_s:.0f} s of computing"
            numbers = self._kept(identity, partial(self._probe, architecture, recipe, seed), words)
            spent_s = {name: spent_s[name] + numbers[name] for name in spent_s}
            count += 1
            if not best or numbers["loss"] < best["loss"]:
                best = {"architecture": text, "loss": numbers["loss"]}
        return {**best, "networks": count, **spent_s}

    def _probe(self, architecture: Architecture, recipe: Recipe, seed: int) -> dict[str, Any]:
        watch = Watch()
        network = trained(architecture, self.data.weights, recipe, seed)
        return evaluated(network, self.data.architecture) | watch.read()

    def _on(self, trained_on: str, recipe: Recipe) -> dict[str, Any]:
        return {
            "data": self.settings.data,
            "images": self.data.fingerprint,
            "trained_on": trained_on,
            "recipe": dataclasses.asdict(recipe),
        }

    # ---- trainings that count -----------------------------------------------------------------------------------

    def training(self, architecture: Architecture, seed: int, words: str) -> dict[str, Any]:
        """Test loss and top-1 after training on the weight and the architecture part."""
        recipe = Recipe(steps=self.settings.steps)
        identity = {"kind": "training", "architecture": architecture.to_text(), "seed": seed}
        identity |= self._on("weights and architecture", recipe)

        def compute() -> dict[str, Any]:
            watch = Watch()
            images = self.data.weights.and_(self.data.architecture)
            return evaluated(trained(architecture, images, recipe, seed), self.data.test) | watch.read()

        return self._kept(identity, compute, words)

    # ---- what the supernet knows --------------------------------------------------------------------------------

    def supernet_says(self, seed: int, networks: list[Architecture]) -> dict[str, list[float]]:
        """Of every network, top-1 with inherited weights on the architecture part, and the log-probability.

        That is how much less likely its operations and depths are than the derived ones', after the search.
        """
        texts = [network.to_text() for network in networks]
        identity = {"kind": "inherited", "settings": self.settings.search_digest, "seed": seed, "networks": texts}
        words = f"evaluating {len(networks)} networks with inherited weights, seed {seed}"
        return self._kept(identity, lambda: self._supernet_says(seed, networks), words)

    def _supernet_says(self, seed: int, networks: list[Architecture]) -> dict[str, list[float]]:
        state, _, _ = search_checkpoints(self.search_run(seed)).load_latest()
        supernet, choice = supernet_from_state(state).to(memory_format=torch.channels_last), saved_choice(state)  # type: ignore[call-overload]
        images = self.data.architecture
        batches = list(zip(images.pixels.split(32), images.labels.split(32), strict=True))
        device = torch.device("cpu")
        return {
            "inherited": [derived_accuracy(supernet, network, batches, device) for network in networks],
            "preference": [log_prob_gap(choice, network) for network in networks],
        }
