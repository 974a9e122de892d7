"""Finding the architecture: in a run directory, a checkpoint of a search (ours or the authors'), a file, or a name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tfnas.core.architecture import RUN_FILE, Architecture
from tfnas.core.cost import COSTS
from tfnas.core.errors import InputError
from tfnas.core.family import NetworkArchitecture
from tfnas.core.json_yaml import load_json_file
from tfnas.core.space import SearchSpace
from tfnas.runs.authors_search import AuthorsSearch
from tfnas.runs.named_network import NamesNetwork, named_flags
from tfnas.runs.run_directory import (
    BEST,
    CHECKPOINT_FOLDER,
    EVOLVE_KIND,
    SEARCH_KIND,
    SUMMARY_FILE,
    State,
    checkpoint_format,
    evolve_checkpoints,
    load_checkpoint,
    saved_choice,
    search_checkpoints,
)
from tfnas.spaces.families import find_family, load_architecture, parse_architecture, text_form
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.utils.tensor_file import load_plain
from tfnas.utils.text import command_line

_AUTHORS_IMAGE_SIZE = 224
_AUTHORS_SPACE = "imagenet"
_OF_TEXTS = re.compile(r"[([{:]")
"""What texts of architectures have, and names of the zoo have not, but for those that begin with `init:`."""

UNFINISHED = "checkpoint of a search"
"""The kind of a source that is no result: what a search would derive now."""

DERIVED = "derived"
"""In a summary whose result was picked by rank: the numbers of the derived architecture."""


@dataclass(frozen=True, kw_only=True)
class ArchitectureSource:
    """An architecture, what held it, and what stood beside it: target, latency table, notes for the user.

    `finished_run` is the directory of a finished run whose result this is; `cost` names what the target is of (`ms`,
    `macs` or `params`).
    """

    architecture: Any
    """Of any family."""
    kind: str
    finished_run: Path | None = None
    cost: str = "ms"
    target: float | None = None
    lookup_path: str | None = None
    table_fingerprint: str | None = None
    notes: tuple[str, ...] = ()

    @property
    def target_ms(self) -> float | None:
        """The target, where it is a latency."""
        return self.target if COSTS[self.cost].is_time else None

    @property
    def recorded(self) -> dict[str, Any]:
        """Target and table under the names that a summary has for them."""
        return {
            "cost": self.cost,
            COSTS[self.cost].target_key: self.target,
            "lookup_path": self.lookup_path,
            "table_fingerprint": self.table_fingerprint,
        }


def named_source(named: NamesNetwork) -> ArchitectureSource:
    """Read what a configuration names its network by. Raises InputError naming the flag or file and what is wrong."""
    for name, value in named_flags(named).items():
        return arch_source(value) if name == "arch" else path_source(value)
    raise InputError("no network is named")


def path_source(path: str | Path) -> ArchitectureSource:
    """As `read_source`, for a path that may not even be looked up: too long, in a folder that may not be entered."""
    try:
        return read_source(Path(path), None)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): give a run directory or a file in one") from error


def arch_source(given: str) -> ArchitectureSource:
    """The network that `--arch` names: of the zoo, or in the text form of any family.

    Raises InputError with the names that are near, or the place where the text is wrong.
    """
    if given.startswith("init:") or not _OF_TEXTS.search(given):
        from tfnas.spaces.zen.zoo_networks import zoo_architecture  # a search has no use for it

        return ArchitectureSource(architecture=zoo_architecture(given), kind="network of the zoo")
    try:
        architecture = parse_architecture(given)
    except InputError as error:
        raise InputError(f"--arch: {error}") from error
    notes = () if find_family(architecture.family).says_images(given) else (_no_size("the text"),)
    return ArchitectureSource(architecture=architecture, kind="text of an architecture", notes=notes)


def _no_size(name: str) -> str:
    return f"{name} has no image size; assuming {_AUTHORS_IMAGE_SIZE}; override with --image_size"


def read_source(path: Path, space: SearchSpace | None) -> ArchitectureSource:
    """Read whatever `path` is; `space` is the one the user named, for what the file does not say.

    Raises InputError naming the file and what is wrong with it.
    """
    if path.is_dir():
        return _read_run(path)
    try:
        with path.open("rb") as file:
            start = file.read(64).lstrip()
    except OSError as error:
        raise InputError(
            f"{path} cannot be read ({error.strerror}): give a run directory, a checkpoint of a search, model.config "
            "or architecture.json"
        ) from error
    if start.startswith(b"{") and text_form(path) is None:
        return _read_json(path, space)
    if start.startswith((b"PK", b"\x80")):
        return _read_checkpoint(path, space)
    text = text_form(path)
    if text is None:
        raise InputError(
            f"{path} is neither JSON (model.config, architecture.json), nor the text of an architecture, nor a "
            "checkpoint of PyTorch's; give one of these"
        )
    architecture = load_architecture(path)
    notes = () if find_family(architecture.family).says_images(text) else (_no_size(path.name),)
    return _of_file(path, architecture, notes)


def _read_run(run_dir: Path) -> ArchitectureSource:
    """A finished run's result, or what its newest readable checkpoint had come to."""
    checkpoints, result = search_checkpoints(run_dir), run_dir / RUN_FILE
    evolved = evolve_checkpoints(run_dir)
    if evolved.saved() and not read_summary(run_dir):
        return _from_population(*evolved.load_latest())
    of_search = checkpoints.saved() or (checkpoints.folder.is_dir() and not result.is_file())
    if of_search and not read_summary(run_dir):  # the summary is the last file of a run
        return _from_state(*checkpoints.load_latest())
    if not result.is_file() and (checkpoints.saved() or evolved.saved()):
        kind = SEARCH_KIND if checkpoints.saved() else EVOLVE_KIND
        raise InputError(
            f"{run_dir} is a finished search without its {RUN_FILE}; this writes it again: "
            f"{command_line(kind, '--resume', run_dir)}"
        )
    if not result.is_file():
        raise InputError(f"{run_dir} is not a run directory: it contains neither {RUN_FILE} nor {CHECKPOINT_FOLDER}/")
    return _read_json(result, None)


def _read_json(path: Path, space: SearchSpace | None) -> ArchitectureSource:
    architecture = load_architecture(path, image_size=space.image_size if space else _AUTHORS_IMAGE_SIZE)
    notes: tuple[str, ...] = ()
    document = load_json_file(path)
    if isinstance(document, dict) and "format" not in document:  # the authors' form: it carries no image size
        ours = path.with_name(RUN_FILE)
        beside = Architecture.load(ours) if ours.is_file() else None
        if beside is not None and beside.to_model_config() == architecture.to_model_config():
            architecture = beside
        elif space is None:
            notes = (_no_size(path.name),)
    return _of_file(path, architecture, notes)


def _of_file(path: Path, architecture: NetworkArchitecture, notes: tuple[str, ...]) -> ArchitectureSource:
    summary = read_summary(path.parent)
    if summary.get("architecture") != architecture.to_text():
        return ArchitectureSource(architecture=architecture, kind="architecture file", notes=notes)
    return ArchitectureSource(
        architecture=architecture,
        kind="result of a finished run",
        finished_run=path.parent,
        **_recorded(summary),
        notes=(*notes, *_measured(summary), *_picked(summary)),
    )


def _read_checkpoint(path: Path, space: SearchSpace | None) -> ArchitectureSource:
    document = load_plain(path)
    if isinstance(document, dict) and document.get("format") == checkpoint_format(SEARCH_KIND):
        return _from_state(load_checkpoint(path, SEARCH_KIND), path, ())
    if isinstance(document, dict) and document.get("format") == checkpoint_format(EVOLVE_KIND):
        return _from_population(load_checkpoint(path, EVOLVE_KIND), path, ())
    authors = AuthorsSearch.from_document(document, str(path))
    named = "" if space else f"assumed to be of space {_AUTHORS_SPACE}; override with --space"
    return ArchitectureSource(
        architecture=authors.choice(space or load_space(_AUTHORS_SPACE)).derived(),
        kind="search checkpoint of the TF-NAS authors' program",
        notes=(named,) if named else (),
    )


def _from_state(state: State, path: Path, problems: Sequence[str]) -> ArchitectureSource:
    note = (
        f"this is not the end of a search: {path.name} contains the preferred architecture after {state['epoch']} "
        f"epochs and {state['step']} steps, not yet fitted to the target; --resume ends an interrupted run"
    )
    return ArchitectureSource(
        architecture=saved_choice(state).derived(),
        kind=UNFINISHED,
        **_recorded(state),
        notes=(*problems, note),
    )


def _from_population(state: State, path: Path, problems: Sequence[str]) -> ArchitectureSource:
    note = (
        f"this is not the end of a search: {path.name} contains the best network that was found until then; --resume "
        "ends an interrupted run"
    )
    return ArchitectureSource(architecture=parse_architecture(state[BEST]), kind=UNFINISHED, notes=(*problems, note))


def _recorded(fields: Mapping[str, Any]) -> dict[str, Any]:
    """Target and latency table, as a summary and a checkpoint both name them. Without a cost, it is milliseconds."""
    cost = fields.get("cost", "ms")
    if cost not in COSTS:
        raise InputError(f"the cost of its target must be one of {', '.join(COSTS)}, got {cost!r}")
    names = ("lookup_path", "table_fingerprint")
    return {"cost": cost, "target": fields.get(COSTS[cost].target_key), **{name: fields.get(name) for name in names}}


def _measured(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What `tfnas latency close` has measured: its target is of the whole network, not of the table's sum."""
    measured_ms, verdict = summary.get("measured_ms"), summary.get("verdict")
    if not isinstance(measured_ms, float):
        return ()
    words = {"inside": "within epsilon of the target", "outside": "not within epsilon of the target"}
    where = words.get(str(verdict), "undecided whether within epsilon of the target")
    return (f"measured as a whole: {measured_ms:.4g} ms, {where}; its table was only used for fitting",)


def _picked(summary: Mapping[str, Any]) -> tuple[str, ...]:
    """What `tfnas rerank --pick rank` has put in the place of the search's own result."""
    if not isinstance(summary.get(DERIVED), dict):
        return ()
    return ("picked by re-ranking, in place of the derived architecture; undo with --pick derived",)


def read_summary(folder: Path) -> dict[str, Any]:
    """The summary of a run directory; empty where there is none. Raises InputError when it is damaged."""
    path = folder / SUMMARY_FILE
    try:
        document = load_json_file(path)
    except FileNotFoundError:
        return {}
    if not isinstance(document, dict):
        raise InputError(f"{path} must contain a JSON object, this is a {type(document).__name__}")
    return document
