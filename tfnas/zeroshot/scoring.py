"""`tfnas.score`: the number that an untrained network gets.

tfnas.score("zen", architecture)
tfnas.score("entropy", "SuperConvK3BNRELU(3,16,2,1)SuperResIDWE1K7(16,40,2,40,1)...", image_size=224)
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from tfnas.errors import TfnasError
from tfnas.zeroshot.options import ScoreOptions
from tfnas.zeroshot.registry import find_score
from tfnas.zeroshot.score import Score, ScoreFailed
from tfnas.zeroshot.subject import Subject

if TYPE_CHECKING:
    from torch import nn

    from tfnas.architecture import Architecture
    from tfnas.structures.structure import Structure


def score(name: str, subject: Architecture | Structure | str | nn.Module, **options: Any) -> float:
    """The score `name` of a network that has not been trained; `score_names()` lists the scores.

    `subject` is an architecture, a structure, the text of either, or a module, which stays exactly as it is. `options`
    are the fields of `ScoreOptions`: `image_size`, `batch_size`, `num_classes`, `seed`, `variant`, `device`, ...

    Raises InputError for an unknown score or setting and for a network that cannot support the score, and ScoreFailed
    where the number is not finite or its computation fails.
    """
    found = find_score(name)
    settings = ScoreOptions.of(options)
    found.chosen_variant(settings.variant)
    return measure(found, Subject.of(subject), settings)


def measure(found: Score, subject: Subject, settings: ScoreOptions) -> float:
    """The number of a subject; raises as `score` does."""
    try:
        if found.cost == "analytic":
            value = float(found.measure(subject, settings))
        else:
            from tfnas.zeroshot.copies import undisturbed

            with undisturbed(settings):
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
