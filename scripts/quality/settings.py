"""What the benchmark is asked to do."""

from __future__ import annotations

import argparse
import dataclasses
import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import yaml

from tfnas.core.errors import InputError
from tfnas.searching.differentiable.search_config import SearchConfig

_FIXED = {"data", "target_lat", "seed", "run_dir", "save", "resume", "space", "lookup_path", "cost", "width_multiple"}


@dataclass(frozen=True, kw_only=True)
class Settings:
    """All settings; `search` holds what searches do differently from their defaults."""

    run_dir: Path
    name: str
    data: str
    space: str
    target: float
    lookup_path: str | None
    search: dict[str, Any]
    search_seeds: tuple[int, ...]
    random: int
    draw_seed: int
    seeds: tuple[int, ...]
    steps: int
    probe_steps: int
    candidates: int
    scores: str
    rounds: int

    @property
    def search_digest(self) -> str:
        """Tells searches with other settings apart."""
        said = [self.name, self.data, self.space, self.target, self.lookup_path, self.search]
        return hashlib.sha256(json.dumps(said, sort_keys=True).encode()).hexdigest()[:8]

    def to_json(self) -> dict[str, Any]:
        """All that results depend on, as plain data: not where they are kept."""
        return {name: value for name, value in dataclasses.asdict(self).items() if name != "run_dir"}


def add_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that `read` reads."""
    add = parser.add_argument
    add("--run_dir", type=Path, default=Path("runs/quality"), help="where the journal and the searches are kept")
    add("--name", default="", help="a word for the searches; after a change of the search's code give a new one")
    add("--data", default="digit_pairs", help="digit_pairs or digits")
    add("--space", default="digits", help="search space")
    add("--target", type=float, default=11.0, help="milliseconds; all networks are brought to it")
    add("--lookup_path", help="latency table; default: the space's own")
    add("--set", nargs="*", default=[], metavar="NAME=VALUE", help="settings of the searches, such as epochs=20")
    add("--search_seeds", type=int, nargs="+", default=[0, 1, 2], help="a search each")
    add("--random", type=int, default=16, help="random networks")
    add("--draw_seed", type=int, default=0, help="draws them")
    add("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="trainings of every network")
    add("--steps", type=int, default=600, help="steps of a training, of 32 images")
    add("--probe_steps", type=int, default=100, help="steps of a training inside the random search")
    add("--candidates", type=int, default=64, help="networks to re-rank after each search; 0 for no re-ranking")
    add("--scores", default="zen,naswot", help="scores to re-rank by")
    add("--rounds", type=int, default=20, help="rounds of timing all networks in turn")
    add("--json", type=Path, help="write all results there")
    add("--plot", type=Path, help="write a picture there (PNG)")
    add("--report", action="store_true", help="compute nothing; report what the journal holds")
    add("--smoke", action="store_true", help="a tiny run that shows that everything works; its figures mean nothing")


_SMOKE: dict[str, Any] = {
    "data": "digits",
    "search": {"epochs": 2, "warmup_epochs": 1},
    "search_seeds": (0, 1),
    "random": 6,
    "seeds": (0, 1),
    "steps": 10,
    "probe_steps": 5,
    "candidates": 4,
    "rounds": 3,
}


def read(arguments: argparse.Namespace) -> Settings:
    """The settings that flags say. Raises InputError for what cannot be."""
    search = dict(_setting(text) for text in arguments.set)
    names = [field.name for field in dataclasses.fields(Settings) if field.name != "search"]
    said = {name: getattr(arguments, name) for name in names}
    said |= {"search_seeds": tuple(arguments.search_seeds), "seeds": tuple(arguments.seeds), "search": search}
    if arguments.smoke:
        said |= _SMOKE
    for name, least in (("random", 5), ("steps", 1), ("probe_steps", 1), ("candidates", 0), ("rounds", 3)):
        if said[name] < least:
            raise InputError(f"--{name} must be {least} or more, got {said[name]}")
    if len(set(said["seeds"])) < max(2, len(said["seeds"])):
        raise InputError("--seeds must name two or more that differ: without, nobody knows what a seed changes")
    if len(set(said["search_seeds"])) < len(said["search_seeds"]):
        raise InputError("--search_seeds must differ")
    return Settings(**said)


def _setting(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    known = {field.name for field in dataclasses.fields(SearchConfig)} - _FIXED
    if not equals or name not in known:
        raise InputError(f"--set takes NAME=VALUE with a setting of the search, such as epochs=20, not {text!r}")
    return name, yaml.safe_load(value)
