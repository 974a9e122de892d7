"""Scores of untrained networks: what a score is, those that there are, and `tfnas.score`.

    tfnas.score("zen", architecture)
    tfnas.score("entropy", "SuperConvK3BNRELU(3,16,2,1)SuperResIDWE1K7(16,40,2,40,1)...", image_size=224)

A score is a function of a ScoredNetwork and a `Score` that describes it, in one file. Those of this package are next to
this module and imported when they are asked for. One from outside joins by `register_score`, or under the entry
point group `tfnas.scores`, which command lines see too.
"""

from __future__ import annotations

import difflib
import math
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Any, Literal

from tfnas.core.entry_points import register_entry_point
from tfnas.core.errors import InputError, RunFailed, TfnasError
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork

if TYPE_CHECKING:
    from torch import nn

    from tfnas.core.family import NetworkArchitecture
    from tfnas.spaces.zen.structure import Structure

ENTRY_POINTS = "tfnas.scores"
Cost = Literal["analytic", "forward", "gradient"]


@dataclass(frozen=True, kw_only=True)
class Score:
    """A number that an untrained network gets."""

    name: str
    """Its name in `tfnas.score` and on command lines."""
    higher_is_better: bool
    """Whether a higher number stands for a better network."""
    cost: Cost
    """`analytic`: closed form, no network is built; `forward`: forward passes; `gradient`: backward passes too."""
    summary: str
    """One line: what it measures, and its source."""
    measure: Callable[[ScoredNetwork, ScoreOptions], float]
    """The number of a network; raises InputError if the network cannot support the score."""
    needs: frozenset[str] = frozenset()
    """Of `images`, `labels`, `gradient`: what it computes with. Noise replaces data that is not given."""
    needs_data: bool = False
    """Whether noise cannot replace images and labels: those of the options must be given."""
    variants: tuple[str, ...] = ("default",)
    """Its definitions: the first is the default, the others are what a published program computes."""
    is_control: bool = False
    """Whether it says nothing of a network, and is there to be beaten: nothing may be ranked by it."""

    def __post_init__(self) -> None:
        unknown = self.needs - {"images", "labels", "gradient"}
        if unknown or not self.variants:
            raise ValueError(f"score {self.name}: needs {sorted(unknown)} unknown, or no variant")

    def chosen_variant(self, variant: str | None) -> str:
        """The variant of that name, the default for None. Raises InputError that lists the known ones."""
        if variant is None:
            return self.variants[0]
        if variant not in self.variants:
            raise InputError(f"score {self.name} has no variant {variant!r}: give one of {', '.join(self.variants)}")
        return variant


class ScoreFailed(RunFailed):
    """A score is not finite or could not be computed. `architecture` is the text of the network."""

    def __init__(self, message: str, architecture: str) -> None:
        super().__init__(message)
        self.architecture = architecture

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.architecture)  # so that it can be pickled


_MODULES = {
    **{name: name for name in ("zen", "naswot", "synflow", "grad_norm", "te_nas", "zico")},
    **dict.fromkeys(("az_expressivity", "az_progressivity", "az_trainability"), "az_nas"),
    **dict.fromkeys(("az_complexity", "flops", "params", "random"), "baselines"),
    "entropy": "entropy",
    **dict.fromkeys(("multiscale_entropy", "quantized_entropy", "spatiotemporal_entropy"), "multiscale_entropies"),
    "incorporated": "incorporated",
}
"""Modules of this package's own scores."""
_registered: dict[str, Score] = {}


def register_score(found: Score) -> None:
    """Add a score; all that takes names of scores knows it from then on.

    Raises ValueError if there is one of its name.
    """
    if found.name in _MODULES or _registered.setdefault(found.name, found) is not found:
        raise ValueError(f"there is a score {found.name!r} already")


def score_names() -> tuple[str, ...]:
    """Names of all scores, those of installed packages included."""
    return (*dict.fromkeys((*_MODULES, *_registered, *(entry.name for entry in entry_points(group=ENTRY_POINTS)))),)


def find_score(name: str) -> Score:
    """The score of that name. Raises InputError that lists the known ones."""
    if name in _MODULES:
        module = import_module(f"tfnas.proxies.{_MODULES[name]}")
        return next(item for item in vars(module).values() if isinstance(item, Score) and item.name == name)
    if name not in _registered:
        for entry in entry_points(group=ENTRY_POINTS, name=name):
            register_entry_point(entry, Score, register_score)
    if name not in _registered:
        names = score_names()
        near = difflib.get_close_matches(name, names, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"no score {name!r}: give one of {', '.join(names)}.{hint}")
    return _registered[name]


def score(name: str, subject: NetworkArchitecture | Structure | str | nn.Module, **options: Any) -> float:
    """The score `name` of a network that has not been trained; `score_names()` lists the scores.

    `subject` is an architecture of any family, a structure, the text of either, a name of the zoo, or a module, which
    stays exactly as it is. `options` are the fields of `ScoreOptions`: `image_size`, `batch_size`, `num_classes`,
    `seed`, `variant`, `device`, ...

    Raises InputError for an unknown score or setting and for a network that cannot support the score, and ScoreFailed
    if the number is not finite or its computation fails.
    """
    found = find_score(name)
    settings = ScoreOptions.of(options)
    found.chosen_variant(settings.variant)
    return measure(found, ScoredNetwork.of(subject), settings)


def measure(found: Score, scored: ScoredNetwork, settings: ScoreOptions) -> float:
    """The score of a network; raises as `score` does."""
    try:
        if found.cost == "analytic":
            value = float(found.measure(scored, settings))
        else:
            from tfnas.proxies.network_preparation import preserve_state

            with preserve_state(settings.device, settings.seed):
                value = float(found.measure(scored, settings))
    except TfnasError:
        raise
    except Exception as error:  # whatever a module of the user's may raise
        reason = str(error) or type(error).__name__
        message = f"score {found.name}{_place(found, error)} cannot be computed for {scored.text}: {reason}"
        raise ScoreFailed(message, scored.text) from error
    if not math.isfinite(value):
        raise ScoreFailed(f"score {found.name}{_place(found)} of {scored.text} is not finite: {value}", scored.text)
    return value


def _place(found: Score, error: Exception | None = None) -> str:
    """Of a score from outside the file that computes it, and the line in it that an error comes from."""
    code = getattr(found.measure, "__code__", None)
    if found.name in _MODULES or code is None:
        return ""
    frames = () if error is None else traceback.walk_tb(error.__traceback__)
    lines = [line for frame, line in frames if frame.f_code.co_filename == code.co_filename]
    return f" ({code.co_filename}{f', line {lines[-1]}' if lines else ''})"
