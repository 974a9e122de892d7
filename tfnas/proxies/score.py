"""What a zero-shot score is, and how one fails.

The scores that there are. A score's module is imported when the score is asked for.

`tfnas.score`: the number that an untrained network gets.

tfnas.score("zen", architecture)
tfnas.score("entropy", "SuperConvK3BNRELU(3,16,2,1)SuperResIDWE1K7(16,40,2,40,1)...", image_size=224)
"""

from __future__ import annotations

import difflib
import math
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import TYPE_CHECKING, Any, Literal

from tfnas.core.errors import InputError, RunFailed, TfnasError
from tfnas.proxies.score_options import ScoreOptions
from tfnas.proxies.scored_network import ScoredNetwork

if TYPE_CHECKING:
    from torch import nn

    from tfnas.core.family import NetworkArchitecture
    from tfnas.proxies.score_options import ScoreOptions
    from tfnas.proxies.scored_network import ScoredNetwork
    from tfnas.spaces.zen.structure import Structure

Cost = Literal["analytic", "forward", "gradient"]


@dataclass(frozen=True)
class Score:
    """A number that an untrained network gets. Each stands in a file of its own; `registry.py` lists them."""

    name: str
    """What it is asked for by."""
    higher_is_better: bool
    """Whether a higher number stands for a better network."""
    cost: Cost
    """`analytic`: closed form, no network is built; `forward`: passes forward; `gradient`: passes backward too."""
    needs: frozenset[str]
    """Of `images`, `labels`, `gradient`: what it computes with. Noise takes the place of data that is not given."""
    summary: str
    """One line: what it measures, and its source."""
    variants: tuple[str, ...]
    """Definitions that it has: the first is the default, the others are what a published program computes."""
    measure: Callable[[ScoredNetwork, ScoreOptions], float]
    """The number of a subject; raises InputError where the network cannot support the score."""
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
    """A score came out not finite, or could not be computed. `architecture` is the text of the network."""

    def __init__(self, message: str, architecture: str) -> None:
        super().__init__(message)
        self.architecture = architecture

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (str(self), self.architecture)  # so that it arrives whole from another process


_HOMES = {
    "zen": "tfnas.proxies.zen",
    "naswot": "tfnas.proxies.naswot",
    "synflow": "tfnas.proxies.synflow",
    "grad_norm": "tfnas.proxies.grad_norm",
    "te_nas": "tfnas.proxies.te_nas",
    "flops": "tfnas.proxies.flops",
    "params": "tfnas.proxies.params",
    "random": "tfnas.proxies.random_number",
    "entropy": "tfnas.proxies.entropy",
    "multiscale_entropy": "tfnas.proxies.multiscale_entropy",
    "quantized_entropy": "tfnas.proxies.quantized_entropy",
    "spatiotemporal_entropy": "tfnas.proxies.spatiotemporal_entropy",
    "incorporated": "tfnas.proxies.incorporated",
}


def score_names() -> tuple[str, ...]:
    """Names of all scores."""
    return tuple(_HOMES)


def find_score(name: str) -> Score:
    """The score of that name. Raises InputError that lists the known ones."""
    if name not in _HOMES:
        near = difflib.get_close_matches(name, _HOMES, 1)
        hint = f" Did you mean {near[0]}?" if near else ""
        raise InputError(f"no score {name!r}: give one of {', '.join(_HOMES)}.{hint}")
    found = import_module(_HOMES[name]).SCORE
    assert isinstance(found, Score)
    return found


def score(name: str, subject: NetworkArchitecture | Structure | str | nn.Module, **options: Any) -> float:
    """The score `name` of a network that has not been trained; `score_names()` lists the scores.

    `subject` is an architecture of any family, a structure, the text of either, a name of the zoo, or a module, which
    stays exactly as it is. `options` are the fields of `ScoreOptions`: `image_size`, `batch_size`, `num_classes`,
    `seed`, `variant`, `device`, ...

    Raises InputError for an unknown score or setting and for a network that cannot support the score, and ScoreFailed
    where the number is not finite or its computation fails.
    """
    found = find_score(name)
    settings = ScoreOptions.of(options)
    found.chosen_variant(settings.variant)
    return measure(found, ScoredNetwork.of(subject), settings)


def measure(found: Score, subject: ScoredNetwork, settings: ScoreOptions) -> float:
    """The number of a subject; raises as `score` does."""
    try:
        if found.cost == "analytic":
            value = float(found.measure(subject, settings))
        else:
            from tfnas.proxies.scored_network import preserve_state

            with preserve_state(settings):
                value = float(found.measure(subject, settings))
    except TfnasError:
        raise
    except Exception as error:  # whatever a module of the user's may raise
        reason = str(error) or type(error).__name__
        message = f"score {found.name} cannot be computed for {subject.text}: {reason}"
        raise ScoreFailed(message, subject.text) from error
    if not math.isfinite(value):
        raise ScoreFailed(f"score {found.name} of {subject.text} is not finite: {value}", subject.text)
    return value
