"""Is a searched network better than a random one of the same latency? A benchmark that can say no.

    python scripts/bench_quality.py --json quality.json --plot quality.png

All networks are brought to one table latency by `meet_target` and timed side by side: the result of every search seed,
the first of re-ranking after it, the best of a random search that computes as long, random networks, the deepest
uniform one, and the largest by MACs. All are trained by one short recipe from the same seeds, on the weight and the
architecture part, and evaluated on the test part.

What the supernet knows is reported too: how inherited accuracy and the learned probabilities of the random networks go
with what they reach alone.

Killed at any moment, the same command goes on. A journal keeps every training, so that further seeds, networks or
searches with other settings (`--set epochs=20`) train only what is new. `--report` shows what there is so far.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from quality.journal import Journal
from quality.largest import largest_by_macs
from quality.networks import RandomNetworks, Wanted, deepest_uniform
from quality.picture import picture
from quality.results import results, table
from quality.searched import Finder, Found, NotYetError
from quality.settings import Settings, add_flags, read
from quality.training import Data, open_images

import tfnas
from tfnas.bench.benches import open_bench, reference_case, table_conditions
from tfnas.bench.benchmark_cases import network_case
from tfnas.bench.check_timing import SampleBudget, time_in_rounds
from tfnas.core.architecture import Architecture
from tfnas.core.errors import Infeasible, TfnasError
from tfnas.latency.default_table import open_table
from tfnas.spaces.mbconv.space_file import space_arguments
from tfnas.utils.files import write_whole

T = TypeVar("T")
U = TypeVar("U")

_TIMING_CALLS = 2
_MOST_TIMING_SECONDS = 600.0


def main() -> int:
    """Run, and report; the exit status."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_flags(parser)
    arguments = parser.parse_args()
    torch.set_num_threads(1)
    try:
        found = Benchmark.open(read(arguments), only_known=arguments.report).run()
        if arguments.json is not None:
            write_whole(arguments.json, json.dumps(found, indent=1) + "\n")
        if arguments.plot is not None:
            settings = found["settings"]
            title = f"{settings['data']}, {settings['target']:g} ms, {len(found['seeds'])} trainings of each network"
            write_whole(arguments.plot, picture(found, title))
        print(table(found), flush=True)
    except TfnasError as error:
        print(error, file=sys.stderr)
        return error.exit_status
    except KeyboardInterrupt:
        print("interrupted: the same command goes on", file=sys.stderr)
        return 130
    return 0


def say(text: str) -> None:
    """A line of progress."""
    print(text, file=sys.stderr, flush=True)


@dataclass(frozen=True)
class Benchmark:
    """Everything that a run needs, opened. With `only_known` nothing is computed that the journal does not hold."""

    settings: Settings
    wanted: Wanted
    data: Data
    journal: Journal
    finder: Finder
    only_known: bool

    @classmethod
    def open(cls, settings: Settings, *, only_known: bool) -> Benchmark:
        """Open space, table, images and journal. Raises InputError for what does not fit together."""
        space = tfnas.space(settings.space)
        lookup, _ = open_table(settings.lookup_path, space, space_arguments(space, settings.space))
        data = open_images(settings.data, space.image_size)
        wanted = Wanted(space, lookup, settings.target, data.num_classes)
        journal = Journal(settings.run_dir / "journal.jsonl")
        finder = Finder(settings, wanted, data, journal, say, only_known=only_known)
        return cls(settings, wanted, data, journal, finder, only_known)

    def run(self) -> dict[str, Any]:
        """All results, as plain data."""
        draws = RandomNetworks(self.wanted, self.settings.draw_seed)
        at_random = [next(draws) for _ in range(self.settings.random)]
        if not self.only_known:
            self._trainings(at_random)  # first: they show whether networks differ more than seeds
        found = list(self._if_known(self.finder.find, self.settings.search_seeds))
        groups = {"random": at_random, **self._found_groups(found), **self._fixed_groups()}
        networks = list(dict.fromkeys(network for group in groups.values() for network in group))
        latency = self._latency(networks)
        supernets = list(self._if_known(lambda one: self.finder.supernet_says(one.seed, at_random), found))
        seeds, trainings = self._trainings(networks)
        return {
            "settings": self.settings.to_json(),
            "seeds": seeds,
            "table_fingerprint": self.wanted.table.fingerprint,
            "table": self.wanted.table.description,
            "seconds": self._seconds(found, trainings),
            **results(groups, trainings, latency, supernets),
            "searches": [{"seed": one.seed, **one.numbers} for one in found],
        }

    def _if_known(self, find: Callable[[T], U], things: Iterable[T]) -> Iterator[U]:
        """What is found of things; where nothing is to be computed, of those that the journal knows."""
        for thing in things:
            with suppress(NotYetError):
                yield find(thing)

    def _found_groups(self, found: Sequence[Found]) -> dict[str, list[Architecture]]:
        groups = {"searched": [one.searched for one in found]}
        if self.settings.candidates:
            groups["re-ranked"] = [one.reranked for one in found if one.reranked is not None]
        groups["random search"] = [one.random_search for one in found]
        return {name: networks for name, networks in groups.items() if networks}

    def _fixed_groups(self) -> dict[str, list[Architecture]]:
        groups = {}
        for name, make in (("deepest uniform", deepest_uniform), ("largest by MACs", largest_by_macs)):
            try:
                groups[name] = [make(self.wanted)]
            except Infeasible as error:
                say(f"{name}: {error}")
        return groups

    # ---- latency ------------------------------------------------------------------------------------------------

    def _latency(self, networks: Sequence[Architecture]) -> dict[str, dict[str, float]]:
        """Table and measured milliseconds of every network by its text, timed in turn within minutes."""
        texts = sorted(network.to_text() for network in networks)
        identity = {"kind": "latency", "networks": hashlib.sha256("\n".join(texts).encode()).hexdigest()[:16]}
        known = self.journal.find(**identity)
        if known is not None or self.only_known:
            return known or {}
        say(f"timing {len(networks)} networks in turn")
        space, lookup = self.wanted.space, self.wanted.table
        bench = open_bench(table_conditions(lookup), reference_case(space))
        budget = SampleBudget(self.settings.rounds, _TIMING_CALLS, _MOST_TIMING_SECONDS, seed=0)
        timed = time_in_rounds(
            bench, [network_case(network) for network in networks], [reference_case(space)], budget, lambda *_: None
        )
        if timed.disturbance is not None:
            say(f"warning: {timed.disturbance}")
        numbers = {
            network.to_text(): {
                "table_ms": lookup.architecture_ms(network),
                "measured_ms": timing.median_ms,
                "spread_ms": timing.spread_ms,
            }
            for network, timing in zip(networks, timed.networks, strict=True)
        }
        self.journal.record(numbers, **identity)
        return numbers

    # ---- trainings ----------------------------------------------------------------------------------------------

    def _trainings(self, networks: Sequence[Architecture]) -> tuple[list[int], dict[str, list[dict[str, float]]]]:
        """The seeds that all networks were trained with, and what came of each network: seed by seed, so that any
        prefix is a whole comparison.
        """
        complete: list[int] = []
        trainings: dict[str, list[dict[str, float]]] = {network.to_text(): [] for network in networks}
        for number, seed in enumerate(self.settings.seeds, 1):
            runs = {}
            for place, network in enumerate(networks, 1):
                words = f"training {number} of {len(self.settings.seeds)}: network {place} of {len(networks)}"
                with suppress(NotYetError):
                    runs[network.to_text()] = self.finder.training(network, seed, words)
            if len(runs) == len(trainings):
                complete.append(seed)
                for text, numbers in runs.items():
                    trainings[text].append(numbers)
        if len(complete) < 2:
            raise tfnas.RunFailed(f"only {len(complete)} seed(s) have trained all networks: two are needed to report")
        return complete, trainings

    def _seconds(self, found: Sequence[Found], trainings: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
        """Wall time of each phase; of searches and trainings, the mean of one."""
        build = self.wanted.table.contents.build
        runs = [run["seconds"] for row in trainings.values() for run in row]
        phases: dict[str, list[float]] = {}
        for one in found:
            for name, numbers in one.numbers.items():
                if numbers is not None:
                    phases.setdefault(name, []).append(numbers["seconds"])
        return {
            "table": None if build is None else build.seconds,
            **{name: sum(values) / len(values) for name, values in phases.items()},
            "training": sum(runs) / len(runs),
            "trainings": len(runs),
        }


if __name__ == "__main__":
    sys.exit(main())
