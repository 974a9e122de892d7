"""Files to ship: ONNX and torch.export, checked and timed after they are written.

    report = tfnas.export_model(tfnas.ExportConfig(model_path="runs/train-20260131-120000"))

`OnnxModel.load("model.onnx")` reads such a file back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.export.config import ExportConfig

if TYPE_CHECKING:
    from tfnas.export.exporting import export_model
    from tfnas.export.printing import print_export
    from tfnas.export.reading import OnnxModel
    from tfnas.export.report import ExportReport

__all__ = ["ExportConfig", "ExportReport", "OnnxModel", "export_model", "print_export"]

__getattr__ = lazy_names(
    "tfnas.export",
    {
        "ExportReport": "tfnas.export.report",
        "OnnxModel": "tfnas.export.reading",
        "export_model": "tfnas.export.exporting",
        "print_export": "tfnas.export.printing",
    },
)
