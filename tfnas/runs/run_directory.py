"""The run directory: everything a run leaves behind.

`config.yaml`, `log.txt`, `tensorboard/`, `checkpoints/`, `model.config`, `architecture.json`, `summary.json`.

A checkpoint is the saved state of a run: plain tensors and numbers in a file that is written whole, checked when read,
run never. The last two are kept (`checkpoints/<kind>-<epoch>-<step>.pt`), so that a damaged one costs minutes, not the
run. That of a search says what it had learned.
"""

from __future__ import annotations

import dataclasses
import fcntl
import io
import json
import re
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
import yaml
from rich.console import Console, RenderableType

from tfnas.core.architecture import RUN_FILE
from tfnas.core.choice import Choice
from tfnas.core.errors import InputError, NotResumable
from tfnas.core.json_yaml import StandsTwice, load_yaml
from tfnas.core.space import SearchSpace
from tfnas.spaces.families import original_form, to_document
from tfnas.spaces.mbconv.space_file import space_from_json
from tfnas.utils.files import write_error, write_whole
from tfnas.utils.text import say, typed

if TYPE_CHECKING:
    from torch import Tensor

    from tfnas.core.family import NetworkArchitecture

CONFIG_FILE = "config.yaml"
LOG_FILE = "log.txt"
SUMMARY_FILE = "summary.json"
LOCK_FILE = ".lock"
CHECKPOINT_VERSION = 1
CHECKPOINT_FOLDER = "checkpoints"
_DAMAGED = ".damaged"

SEARCH_KIND = "search"
"""Of the run directories and checkpoints of a search."""
EVOLVE_KIND = "evolve"
"""The same of an evolutionary search."""
BEST = "best"
"""In a checkpoint of an evolutionary search: the text of its best network."""

State = dict[str, Any]
"""What a checkpoint holds: plain tensors, numbers and text."""


class UnreadableConfig(InputError):
    """There is no config.yaml in a directory, or it is damaged."""


class RunDirectory:
    """A run's files. Lines said to the console stand in `log.txt` too, with the time."""

    def __init__(self, path: Path, console: Console) -> None:
        self.path = path
        self.console = console

    @classmethod
    def create(
        cls, path: Path, or_another: bool, config: Any, console: Console, resume_flag: str = "--resume"
    ) -> RunDirectory:
        """Make the directory and write the effective configuration (a dataclass) into it.

        Where it exists, `or_another` takes the name with -2, -3, ... Raises InputError when it holds something already
        (files whose names begin with a dot do not count) or cannot be made.
        """
        wanted, number = path, 1
        try:
            while or_another and path.exists():  # two runs may start within a second
                number += 1
                path = wanted.with_name(f"{wanted.name}-{number}")
            path.mkdir(parents=True, exist_ok=not or_another)
            occupied = any(not entry.name.startswith(".") for entry in path.iterdir())
        except OSError as error:
            raise InputError(f"cannot make the run directory {path}: {error.strerror}; choose another") from error
        if occupied:
            raise InputError(
                f"the run directory {path} is not empty: choose another with --run_dir, "
                f"or resume the run in it with {resume_flag} {typed(path)}"
            )
        run = cls(path, console)
        run.write_config(config)
        return run

    @classmethod
    def open(cls, path: Path, console: Console) -> tuple[RunDirectory, dict[str, Any]]:
        """An existing run directory and its configuration. Raises InputError when it is none."""
        return cls(path, console), read_config(path)

    @contextmanager
    def locked(self, exclusive: bool = True) -> Iterator[None]:
        """Keep other processes out for the duration; a killed process keeps nobody out.

        Of processes that work together one takes the lock, for all (`exclusive` False: this one does not).

        Raises InputError when another process is at work in the directory, RunFailed when nothing can be written there.
        """
        if not exclusive:
            yield
            return
        try:
            file = (self.path / LOCK_FILE).open("w")
        except OSError as error:
            raise write_error(self.path / LOCK_FILE, error) from error
        with file:
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise InputError(f"another process is using {self.path}: wait for it, or stop it first") from error
            yield

    def write_config(self, config: Any) -> None:
        """Write the effective configuration (a dataclass), such that --config begins a new run of it."""
        settings = dataclasses.asdict(config)
        if "resume" in settings:
            settings["resume"] = None
        write_whole(self.path / CONFIG_FILE, yaml.safe_dump(settings, sort_keys=False))

    def say(self, message: str = "") -> None:
        """Print a line and append it to the log."""
        say(self.console, message)
        self._log(message)

    def say_all(self, lines: Iterable[str]) -> None:
        """Print lines, and then append them to the log, which a full disk refuses."""
        said = list(lines)
        for line in said:
            say(self.console, line)
        for line in said:
            self._log(line)

    def show(self, renderable: RenderableType) -> None:
        """Print a table or the like and append it to the log as plain text."""
        self.console.print(renderable)
        text = io.StringIO()
        Console(file=text, width=120, force_terminal=False, color_system=None).print(renderable)
        self._log("\n" + text.getvalue().rstrip())

    def _log(self, message: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        try:
            with (self.path / LOG_FILE).open("a", encoding="utf-8") as log:
                log.write(f"{stamp} {message}\n")
        except OSError as error:
            raise write_error(self.path / LOG_FILE, error) from error

    def write_json(self, name: str, document: Mapping[str, Any]) -> None:
        """Write a JSON file of the directory, whole."""
        _write_json(self.path / name, document)

    def write_architecture(self, architecture: NetworkArchitecture) -> None:
        """Write the result in our form, and in that of the program it is known from."""
        write_forms(architecture, self.path / RUN_FILE)


def write_forms(architecture: NetworkArchitecture, ours: Path, original: Path | None = None) -> tuple[Path, ...]:
    """Write our JSON form of an architecture and that of the program it is known from; return where both are.

    The latter goes to `original`, by default beside ours under its own name, where there is such a form. Raises
    RunFailed when one cannot be written.
    """
    _write_json(ours, to_document(architecture))
    form = original_form(architecture)
    if form is None:
        return (ours,)
    original = original or ours.with_name(form[0])
    write_whole(original, form[1])
    return original, ours


def _write_json(path: Path, document: Mapping[str, Any]) -> None:
    write_whole(path, json.dumps(document, indent=2) + "\n")


class Placed(Protocol):
    """What a configuration says about where its run directory goes."""

    @property
    def save(self) -> str:
        """The folder in which it is made."""

    @property
    def note(self) -> str:
        """A word for its name."""

    @property
    def run_dir(self) -> str | None:
        """The directory itself, in place of one made under `save`."""


def run_path(kind: str, config: Placed) -> tuple[Path, bool]:
    """Where the run directory goes, and whether another may be taken where that one exists."""
    if config.run_dir is not None:
        return Path(config.run_dir), False
    stamp = time.strftime("%Y%m%d-%H%M%S")
    name = "-".join(part for part in (kind, config.note.replace("/", "-"), stamp) if part)
    return Path(config.save) / name, True


def read_config(path: Path) -> dict[str, Any]:
    """The effective configuration in a run directory. Raises UnreadableConfig, an InputError, when it is none.

    One that says a setting twice was edited, and is not lost: that is a plain InputError.
    """
    try:
        config = load_yaml((path / CONFIG_FILE).read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise UnreadableConfig(
            f"{path} is not a run directory: there is no {CONFIG_FILE} in it. "
            "Give the directory that a run was started in"
        ) from error
    except StandsTwice as error:
        raise InputError(f"{path / CONFIG_FILE} is {error}") from error
    except (OSError, ValueError) as error:
        raise UnreadableConfig(f"{path} is not a run directory: {CONFIG_FILE} cannot be read ({error})") from error
    if not isinstance(config, dict):
        raise UnreadableConfig(f"{path / CONFIG_FILE} contains no configuration")
    return config


# ---- checkpoints -----------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Checkpoints:
    """The checkpoints in a run directory; `kind` says of what (`search`, `train`)."""

    run_dir: Path
    kind: str

    @property
    def folder(self) -> Path:
        """Where they are."""
        return self.run_dir / CHECKPOINT_FOLDER

    def save(self, state: State, epoch: int, step: int) -> Path:
        """Write the state reached before step `step` of `epoch`, then drop all but the last two files.

        Raises RunFailed when it cannot be written; the files saved before stay.
        """
        import torch  # what only reads a run's files need not wait for it

        buffer = io.BytesIO()
        torch.save(
            {
                "format": checkpoint_format(self.kind),
                "version": CHECKPOINT_VERSION,
                "epoch": epoch,
                "step": step,
                **state,
            },
            buffer,
        )
        path = self.folder / f"{self.kind}-{epoch:04d}-{step:06d}.pt"
        write_whole(path, buffer.getvalue())
        for old in self.saved()[2:]:
            old.unlink()
        return path

    def saved(self) -> list[Path]:
        """Their files, newest first."""
        name = re.compile(rf"{self.kind}-(\d+)-(\d+)\.pt")
        found = [(name.fullmatch(path.name), path) for path in self.folder.glob(f"{self.kind}-*.pt")]
        placed = [((int(match[1]), int(match[2])), path) for match, path in found if match is not None]
        return [path for _, path in sorted(placed, reverse=True)]

    def set_aside(self, good: Path) -> None:
        """Rename those newer than a good one, or they would count among the two that are kept."""
        for path in self.saved():
            if path == good:
                return
            path.rename(path.with_suffix(_DAMAGED))

    def prepare(self) -> bool:
        """Make the folder and clear it of what a killed save left; whether it holds checkpoints."""
        self.folder.mkdir(exist_ok=True)
        for unfinished in self.folder.glob(f".{self.kind}-*"):
            unfinished.unlink()
        return bool(self.saved())

    def load_latest(self) -> tuple[State, Path, list[str]]:
        """The newest readable one, its path, and what is wrong with those passed over.

        Raises InputError when there is none.
        """
        problems: list[str] = []
        for path in self.saved():
            try:
                return load_checkpoint(path, self.kind), path, problems
            except InputError as error:
                problems.append(str(error))
        detail = "; ".join(problems) or "the run was stopped before the first checkpoint"
        raise NotResumable(f"{self.run_dir} contains no readable checkpoint ({detail}): start a new run")


def checkpoint_format(kind: str) -> str:
    """What a checkpoint of this kind says that it is."""
    return f"tfnas-{kind}-checkpoint"


def load_checkpoint(path: Path, kind: str) -> State:
    """Read one checkpoint onto the CPU. Raises InputError when it is missing, damaged or something else."""
    from tfnas.utils.tensor_file import UnreadableFile, load_plain

    try:
        state = load_plain(path)
    except UnreadableFile as error:
        raise InputError(f"{path} is damaged or not a checkpoint of this program: it {error.reason}") from error
    if not isinstance(state, dict) or state.get("format") != checkpoint_format(kind):
        raise InputError(f"{path} is not a {kind} checkpoint of this program")
    if state["version"] != CHECKPOINT_VERSION:
        raise InputError(f"{path} has version {state['version']}, this program reads version {CHECKPOINT_VERSION}")
    return dict(state)


def short_names(names: Sequence[str]) -> str:
    """The first names of classes, and a digest of all: what a checkpoint compares them by."""
    return f"{', '.join(names[:3])}, ... ({sha256(chr(10).join(names).encode()).hexdigest()[:16]})"


# ---- of searches -----------------------------------------------------------------------------------------------------


def choice_from(
    space: SearchSpace, num_classes: int, parameters: Mapping[str, Tensor], widths: Sequence[Sequence[int]]
) -> Choice:
    """The choice in the state of ArchitectureParameters and in the widths (blocks, operations)."""
    betas = [parameters[f"betas.{stage}"].cpu().double() for stage in range(len(space.stages))]
    return Choice(
        space=space,
        num_classes=num_classes,
        log_alphas=parameters["log_alphas"].cpu().double().numpy(),
        log_depths=tuple(values.log_softmax(0).numpy() for values in betas),
        widths=np.array(widths, dtype=np.int64),
    )


def search_checkpoints(run_dir: Path) -> Checkpoints:
    """The checkpoints of a search in its run directory."""
    return Checkpoints(run_dir, SEARCH_KIND)


def evolve_checkpoints(run_dir: Path) -> Checkpoints:
    """The checkpoints of an evolutionary search in its run directory."""
    return Checkpoints(run_dir, EVOLVE_KIND)


def saved_space(state: State) -> SearchSpace:
    """The search space that a checkpoint was made in."""
    return space_from_json(state["space"])


def saved_choice(state: State) -> Choice:
    """What the search had learned when the checkpoint was taken."""
    widths = [[len(index) for index in row] for row in state["active"]]
    return choice_from(saved_space(state), state["num_classes"], state["parameters"], widths)
