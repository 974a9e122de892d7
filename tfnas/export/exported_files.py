"""From a trained network to the bytes of a file: traced, as ONNX, also of 8 bits, or as torch.export (.pt2).

The module that is traced normalises by itself, has no batch norm, and takes and gives float32. The metadata of an ONNX
file contain what its user must know. The last of these properties, `sha256`, is a checksum of the file's bytes with 64
zeros in its own place: ONNX has none. torch.export.load falls back on full unpickling, which can run code. So only
files of this process are loaded here, never one that a user names.

8-bit files are onnxruntime's static quantisation. Weights are signed, with a scale per channel; activations unsigned,
with a scale per tensor from the smallest and largest value seen on the calibration images. This pairing is the one that
x86 processors compute fastest. Weights of `int8` are of 7 bits, so that no processor cuts off their sums
(`onnx_model.py`); those of `int8_vnni` of 8 bits.
"""

from __future__ import annotations

import contextlib
import copy
import hashlib
import io
import json
import logging
import tempfile
import warnings
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import torch
from onnxruntime.quantization import (  # type: ignore[import-untyped]
    CalibrationDataReader,
    QuantFormat,
    QuantType,
    quantize_static,
)
from onnxruntime.quantization.shape_inference import quant_pre_process  # type: ignore[import-untyped]
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tfnas.core.errors import InputError, RunFailed
from tfnas.core.space import IMAGE_CHANNELS
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.export_config import Dtype, Quantize
from tfnas.export.export_images import SampledImages
from tfnas.nn.blocks import ConvBN
from tfnas.runs.model_file import TrainedModel
from tfnas.utils.onnx_export import OPSET, converted, exported

DTYPES: dict[Dtype, torch.dtype] = {
    "float32": torch.float32,
    "float16": torch.float16,
    "bfloat16": torch.bfloat16,
}
_EXAMPLE_BATCH = 2  # the tracer takes a batch of 1 for a constant


class Deployed(nn.Module):
    """A trained network as it is shipped, in eval mode: RGB images N x 3 x S x S of float32 in 0..1 to float32 logits.

    Normalisation is computed in float32; the network between it and the logits in `dtype`.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, network: nn.Module, preprocessing: Preprocessing, dtype: Dtype = "float32") -> None:
        super().__init__()
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(-1, 1, 1))
        self.register_buffer("std", torch.tensor(preprocessing.std).view(-1, 1, 1))
        self.dtype = DTYPES[dtype]
        self.network = without_batch_norm(network).to(self.dtype)
        self.eval()

    def forward(self, images: Tensor) -> Tensor:
        """Logits N x classes of images N x 3 x S x S."""
        normalised = (images - self.mean) / self.std
        logits: Tensor = self.network(normalised.to(self.dtype)).float()
        return logits


def without_batch_norm(network: nn.Module) -> nn.Module:
    """A copy of a network in eval mode in which every convolution has taken in the batch norm behind it."""
    folded = copy.deepcopy(network).eval()
    for module in folded.modules():
        if isinstance(module, ConvBN):
            module.conv = fuse_conv_bn_eval(module.conv, module.bn)
            module.register_module("bn", nn.Identity())
        elif isinstance(module, nn.Sequential):
            for (conv_name, conv), (norm_name, norm) in pairwise(list(module.named_children())):
                if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                    module.register_module(conv_name, fuse_conv_bn_eval(conv, norm))
                    module.register_module(norm_name, nn.Identity())
    return folded


def trace(
    model: TrainedModel, preprocessing: Preprocessing, dtype: Dtype, batch: int | None
) -> torch.export.ExportedProgram:
    """The graph of a model, for batches of `batch` images or, with None, of any number.

    Lines of source code, which torch notes at every node together with the paths of this machine, are left out.
    """
    deployed = Deployed(model.network(), preprocessing, dtype).requires_grad_(False)
    size = preprocessing.image_size
    example = torch.zeros(batch or _EXAMPLE_BATCH, IMAGE_CHANNELS, size, size)
    shapes = None if batch else ({0: torch.export.Dim("batch")},)
    with torch.no_grad():
        program = torch.export.export(deployed, (example,), dynamic_shapes=shapes)
    for node in program.graph.nodes:
        node.meta.pop("stack_trace", None)
    return program


INPUT_NAME, OUTPUT_NAME = "images", "logits"
CHECKSUM = "sha256"
PROPERTIES_FILE = "tfnas.json"
_NO_CHECKSUM = b"0" * (2 * hashlib.sha256().digest_size)


def onnx_bytes(program: torch.export.ExportedProgram, properties: Mapping[str, str], opset: int = OPSET) -> bytes:
    """The ONNX file of a traced model, weights inside, with `properties` as its metadata.

    Raises RunFailed when it cannot be written in this opset, or does not pass ONNX's own checker.
    """
    return with_properties(converted(exported(program, (), INPUT_NAME, OUTPUT_NAME), opset), properties)


def with_properties(model: onnx.ModelProto, properties: Mapping[str, str]) -> bytes:
    """A checked model as bytes, with these properties and a checksum in place of all others.

    What exporters note at every node (lines of source code, names of PyTorch's) is taken out.
    """
    graph = model.graph
    for entry in (graph, *graph.node, *graph.input, *graph.output, *graph.initializer, *graph.value_info):
        entry.ClearField("metadata_props")
        entry.ClearField("doc_string")
    onnx.helper.set_model_props(model, {**properties, CHECKSUM: _NO_CHECKSUM.decode()})
    try:
        onnx.checker.check_model(model, full_check=True)
    except onnx.checker.ValidationError as error:
        raise RunFailed(f"the exported graph is not valid ONNX: {error}") from error
    data: bytes = model.SerializeToString(deterministic=True)
    before, _, after = data.rpartition(_NO_CHECKSUM)
    return before + hashlib.sha256(data).hexdigest().encode() + after


def verify_checksum(data: bytes, properties: Mapping[str, str], file: str) -> None:
    """Compare the bytes of a file with the checksum in its properties; files of earlier versions have none.

    Raises InputError where they differ.
    """
    if CHECKSUM not in properties:
        return
    written = properties[CHECKSUM].encode()
    before, found, after = data.rpartition(written) if written else (data, b"", b"")
    if not found or hashlib.sha256(before + _NO_CHECKSUM + after).hexdigest().encode() != written:
        raise InputError(
            f"{file} does not match its checksum: it is damaged or was modified. Copy it again, "
            "or export the network again"
        )


def json_text(value: object) -> str:
    """A value as JSON in one line, as in metadata."""
    return json.dumps(value, ensure_ascii=False)


def torch_export_bytes(program: torch.export.ExportedProgram, properties: Mapping[str, Any]) -> bytes:
    """The .pt2 file of a traced model, weights inside, `properties` in its extra file `tfnas.json`."""
    program.example_inputs = None  # a batch of zeros of the size of the images, which nobody needs
    buffer = io.BytesIO()
    torch.export.save(program, buffer, extra_files={PROPERTIES_FILE: json_text(dict(properties))})
    return buffer.getvalue()


def load_own(path: Path) -> Callable[[Tensor], Tensor]:
    """What runs a .pt2 file that this process has just written. Raises RunFailed when it cannot be read back."""
    try:
        with warnings.catch_warnings():
            # torch 2.11 makes tensors on the bytes it has read, which cannot be written; nobody writes to weights here.
            warnings.filterwarnings("ignore", "The given buffer is not writable", UserWarning)
            program = torch.export.load(io.BytesIO(path.read_bytes()))
        module = program.module()
    except (RuntimeError, KeyError, ValueError, AssertionError, OSError) as error:
        raise RunFailed(f"the file was written, but torch.export cannot load it again: {error}") from error

    def run(images: Tensor) -> Tensor:
        with torch.inference_mode():
            logits: Tensor = module(images)
        return logits

    return run


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
