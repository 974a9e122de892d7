"""From a float32 ONNX file to one of 8-bit whole numbers: onnxruntime's static quantisation.

Weights are signed, with a scale per channel; activations unsigned, with a scale per tensor from the smallest and
largest value seen on the calibration images. This pairing is the one that x86 processors compute fastest. Weights of
`int8` are of 7 bits, so that no processor cuts off their sums (`saturation.py`); those of `int8_vnni` of 8 bits.
"""

from __future__ import annotations

import contextlib
import io
import logging
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

import numpy as np
import onnx
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]

from tfnas.core.errors import RunFailed
from tfnas.export.export_config import Quantize
from tfnas.export.export_images import SampledImages
from tfnas.export.exported_files import INPUT_NAME, with_properties

WEIGHTS: dict[Quantize, str] = {"int8": "-64 to 64", "int8_vnni": "-127 to 127"}
"""The values that 8-bit weights take."""


class _Feed(CalibrationDataReader):  # type: ignore[misc]
    """Batches of calibration images under the name of the graph's input."""

    def __init__(self, images: SampledImages, batch_size: int) -> None:
        self._batches = self._full(images, batch_size)

    @staticmethod
    def _full(images: SampledImages, batch_size: int) -> Iterator[np.ndarray]:
        for pixels in images.pixels(batch_size):
            values = (pixels.float() / 255).numpy()
            yield np.resize(values, (batch_size, *values.shape[1:]))  # the last is filled up with its own images

    def get_next(self) -> dict[str, np.ndarray] | None:
        images = next(self._batches, None)
        return None if images is None else {INPUT_NAME: images}


def method_text(kind: Quantize) -> str:
    """How a kind of file was quantised, for its report."""
    return f"onnxruntime static, QDQ, int8 weights per channel, {WEIGHTS[kind]}, uint8 activations, min-max"


def quantized_bytes(
    float_file: bytes, kind: Quantize, images: SampledImages, batch_size: int, properties: Mapping[str, str]
) -> bytes:
    """The ONNX file with 8-bit weights and activations, calibrated on the images in batches of `batch_size`.

    Raises RunFailed when onnxruntime cannot quantise it or the temporary files cannot be written.
    """
    try:
        with tempfile.TemporaryDirectory(prefix="tfnas-export-") as folder, _quiet():
            plain, prepared, result = (Path(folder) / f"{name}.onnx" for name in ("plain", "prepared", "result"))
            plain.write_bytes(float_file)
            # Symbolic shape inference would need sympy and finds nothing more in these graphs.
            quant_pre_process(str(plain), str(prepared), skip_symbolic_shape=True)
            quantize_static(
                str(prepared),
                str(result),
                _Feed(images, batch_size),
                quant_format=QuantFormat.QDQ,
                per_channel=True,
                activation_type=QuantType.QUInt8,
                weight_type=QuantType.QInt8,
                reduce_range=kind == "int8",
            )
            return with_properties(onnx.load(str(result)), properties)
    except OSError as error:
        raise RunFailed(f"cannot write temporary files for quantising: {error.strerror or error}") from error


@contextlib.contextmanager
def _quiet() -> Iterator[None]:
    """Without the library's printed lines and its warnings that advise what is done here already."""
    logger = logging.getLogger()
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with contextlib.redirect_stdout(io.StringIO()):
            yield
    finally:
        logger.setLevel(before)
