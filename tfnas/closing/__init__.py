"""From milliseconds in a table to milliseconds of the thing itself: closing the loop, and certifying what ships.

closed = close_run(CloseConfig(model_path="runs/search-20260131-120000"))
report = certify_file(CertifyConfig(file=("model.onnx",)))
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from tfnas._lazy import lazy_names
from tfnas.closing.config import CertifyConfig, CloseConfig

if TYPE_CHECKING:
    from tfnas.closing.certify import FileCertificate, certify_file
    from tfnas.closing.closing import ClosedRun, close_run

__all__ = ["CertifyConfig", "CloseConfig", "ClosedRun", "FileCertificate", "certify_file", "close_run"]

__getattr__ = lazy_names(
    "tfnas.closing",
    {
        "ClosedRun": "tfnas.closing.closing",
        "FileCertificate": "tfnas.closing.certify",
        "certify_file": "tfnas.closing.certify",
        "close_run": "tfnas.closing.closing",
    },
)
