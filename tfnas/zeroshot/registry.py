"""The scores that there are. A score's module is imported when the score is asked for."""

from __future__ import annotations

import difflib
from importlib import import_module

from tfnas.errors import InputError
from tfnas.zeroshot.score import Score

_HOMES = {
    "zen": "tfnas.zeroshot.zen",
    "naswot": "tfnas.zeroshot.naswot",
    "synflow": "tfnas.zeroshot.synflow",
    "grad_norm": "tfnas.zeroshot.grad_norm",
    "te_nas": "tfnas.zeroshot.te_nas",
    "flops": "tfnas.zeroshot.flops",
    "params": "tfnas.zeroshot.params",
    "random": "tfnas.zeroshot.random_number",
    "entropy": "tfnas.zeroshot.entropy",
    "multiscale_entropy": "tfnas.zeroshot.multiscale_entropy",
    "quantized_entropy": "tfnas.zeroshot.quantized_entropy",
    "spatiotemporal_entropy": "tfnas.zeroshot.spatiotemporal_entropy",
    "incorporated": "tfnas.zeroshot.incorporated",
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
