"""Judging a trained network on images, and asking it for the class of some.

report = evaluate(EvaluationConfig(model_path="runs/train-20260131-120000"))
for answer in predict(PredictConfig(model_path="model.pt", images=("cat.jpg",))): ...
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.evaluation.config import EvaluationConfig
from tfnas.evaluation.predict_config import PredictConfig

if TYPE_CHECKING:
    from tfnas.evaluation.metrics import Scores
    from tfnas.evaluation.predicting import Answer, predict
    from tfnas.evaluation.printing import print_evaluation, print_files, progress_line
    from tfnas.evaluation.results import EvaluationReport
    from tfnas.evaluation.testing import evaluate

__all__ = [
    "Answer",
    "EvaluationConfig",
    "EvaluationReport",
    "PredictConfig",
    "Scores",
    "evaluate",
    "predict",
    "print_evaluation",
    "print_files",
    "progress_line",
]

__getattr__ = lazy_names(
    "tfnas.evaluation",
    {
        "Answer": "tfnas.evaluation.predicting",
        "EvaluationReport": "tfnas.evaluation.results",
        "Scores": "tfnas.evaluation.metrics",
        "evaluate": "tfnas.evaluation.testing",
        "predict": "tfnas.evaluation.predicting",
        "print_evaluation": "tfnas.evaluation.printing",
        "print_files": "tfnas.evaluation.printing",
        "progress_line": "tfnas.evaluation.printing",
    },
)
