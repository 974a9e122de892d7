"""Scores of networks that have not been trained, one file each; `registry.py` lists them, `scoring.py` measures them.

`tfnas.score` is the public function.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.zeroshot.options import ScoreOptions
from tfnas.zeroshot.registry import find_score, score_names
from tfnas.zeroshot.score import Score, ScoreFailed

if TYPE_CHECKING:
    from tfnas.zeroshot.entropy import effectiveness

__all__ = ["Score", "ScoreFailed", "ScoreOptions", "effectiveness", "find_score", "score_names"]

__getattr__ = lazy_names("tfnas.zeroshot", {"effectiveness": "tfnas.zeroshot.entropy"})
