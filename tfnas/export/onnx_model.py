"""Running an exported ONNX file on the CPU: for predictions, tests and distillation, and for the checks of an export.

Whether an 8-bit file gives the same outputs on every processor depends on its weights. x86 processors without VNNI
multiply unsigned 8-bit activations by signed 8-bit weights two at a time and add the two products in a signed 16-bit
number, which saturates at 32,767. With activations up to 255 and weights of at most 64 in size the sum is
2 * 255 * 64 = 32,640 at most: such a file needs no particular processor.
"""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnx
import onnxruntime  # type: ignore[import-untyped]
import torch
from google.protobuf.message import DecodeError, Message  # type: ignore[import-untyped]
from onnx.external_data_helper import uses_external_data
from torch import Tensor

from tfnas.core.errors import InputError
from tfnas.core.json_yaml import load_json
from tfnas.core.space import IMAGE_CHANNELS
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.exported_files import verify_checksum
from tfnas.utils.devices import has_exact_byte_products, processor_name

LARGEST_SAFE_WEIGHT = 64
"""The largest size of 8-bit weights at which two products of them fit into 16 bits."""


class SaturationWarning(UserWarning):
    """A file's 8-bit sums may saturate on this processor, so that its outputs differ from those where it was made."""


def largest_weight(model: onnx.ModelProto) -> int:
    """The largest size of the signed 8-bit weights in a file; 0 where it has none."""
    sizes = [0]
    for tensor in stored_tensors(model):
        if tensor.data_type == onnx.TensorProto.INT8:
            values = onnx.numpy_helper.to_array(tensor).astype(np.int64)
            sizes.append(int(np.abs(values).max(initial=0)))
    return max(sizes)


def may_saturate(model: onnx.ModelProto) -> bool:
    """Whether sums of the file may saturate on processors that add products of bytes in 16 bits."""
    return largest_weight(model) > LARGEST_SAFE_WEIGHT


def saturation_text(file: str) -> str:
    """The warning for running `file`, which may saturate, on this processor, which has no exact sums."""
    return (
        f"{file} has 8-bit weights of full range, and this processor ({processor_name()}) has no VNNI: it adds their "
        "products in 16 bits, where large sums saturate, so its outputs may be wrong on this machine. Run the file on "
        "x86 with VNNI or on Arm, or export the network again with --quantize int8, which is correct on every processor"
    )


def stored_tensors(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in a model: of graphs in graphs, of nodes and of functions. onnx has no public walk."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for part in value if field.is_repeated else (value,):
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from stored_tensors(part)


_FLOATS = {
    onnx.TensorProto.FLOAT: "float32",
    onnx.TensorProto.FLOAT16: "float16",
    onnx.TensorProto.BFLOAT16: "bfloat16",
    onnx.TensorProto.DOUBLE: "float64",
}
_WEIGHTS_OF_8_BITS = (onnx.TensorProto.INT8, onnx.TensorProto.UINT8)
_QUANTISING = {
    "QuantizeLinear",
    "DynamicQuantizeLinear",
    "QLinearConv",
    "QLinearMatMul",
    "ConvInteger",
    "MatMulInteger",
}


def number_type(model: onnx.ModelProto) -> str:
    """`float32`, `float16` and so on: the type of most weights; `int8` if activations are quantised too.

    A file that only stores its weights in 8 bits computes in the type of its other numbers.
    """
    counts: Counter[int] = Counter()
    for tensor in stored_tensors(model):
        counts[tensor.data_type] += math.prod(tensor.dims)
    floats = {kind: counts[kind] for kind in _FLOATS if counts[kind]}
    widest = max(floats, key=lambda kind: floats[kind], default=onnx.TensorProto.FLOAT)
    of_8_bits = sum(counts[kind] for kind in _WEIGHTS_OF_8_BITS)
    quantises = any(node.op_type in _QUANTISING for node in model.graph.node)
    return "int8" if quantises and of_8_bits > sum(floats.values()) else _FLOATS[widest]


_ERRORS_ONLY = 3
_NOT_OURS = "it was not written by tfnas export"


@dataclass(frozen=True, eq=False)
class OnnxModel:
    """An exported network, ready to run on the CPU; class number i is called `class_names[i]`.

    `preprocessing` is how an image is cut; its normalisation is inside the file and must not be repeated.
    """

    session: onnxruntime.InferenceSession
    class_names: tuple[str, ...]
    preprocessing: Preprocessing
    architecture: str
    """The architecture's text form."""
    kind: str
    """The number type that it computes in, such as int8."""
    data: str | None
    """The kind of data that it was trained on; None if the file does not record it."""
    batch_size: int | None
    """Images per call, None for any number; `logits` takes any number all the same."""
    warning: str | None
    """That this processor may compute it wrongly; None where it does not."""

    @classmethod
    def load(cls, path: str | os.PathLike[str], *, threads: int | None = None) -> OnnxModel:
        """Read a file that `tfnas export` wrote. `threads` is how many CPU threads it runs on (default: all cores).

        Raises InputError when there is none, or when it is damaged or something else. Nothing in it is run as code,
        and no other file is read on its behalf. Warns (SaturationWarning) of 8-bit weights that this processor may
        compute wrongly with.
        """
        file = Path(path)
        try:
            data = file.read_bytes()
        except OSError as error:
            raise InputError(f"{file} cannot be read: {error.strerror}; check the path") from error
        return cls.from_bytes(data, str(file), threads=threads)

    @classmethod
    def from_bytes(cls, data: bytes, file: str, *, threads: int | None = None, optimized: bool = True) -> OnnxModel:
        """The same from the bytes of a file; `file` is what messages call it.

        Not `optimized`, the nodes are computed one by one: an 8-bit file then without 8-bit arithmetic, in float32 on
        the quantised numbers, which is slow, the same on every processor, and what the file means.
        """
        model = _checked(data, file)
        properties = _properties(model)
        warning = saturation_text(file) if not has_exact_byte_products() and may_saturate(model) else None
        if optimized and warning is not None:
            warnings.warn(warning, SaturationWarning, stacklevel=3)
        names, preprocessing = _metadata(properties, file)
        session = _open_session(data, file, threads, optimized)
        batch_size = _check_signature(session, len(names), preprocessing.image_size, file)
        kind, trained_on = properties.get("kind", "float32"), properties.get("data")
        return cls(session, names, preprocessing, properties["architecture"], kind, trained_on, batch_size, warning)

    def logits(self, images: Tensor) -> Tensor:
        """Float32 logits N x classes of RGB images N x 3 x S x S with values in 0..1, not normalised.

        Raises InputError for images of another shape or size.
        """
        size = self.preprocessing.image_size
        if images.dim() != 4 or tuple(images.shape[1:]) != (3, size, size):
            raise InputError(f"the file takes images N x 3 x {size} x {size}, got {' x '.join(map(str, images.shape))}")
        return in_batches(self._run, images.detach().cpu().float(), self.batch_size)

    def _run(self, images: Tensor) -> Tensor:
        (name,) = (entry.name for entry in self.session.get_inputs())
        (logits,) = self.session.run(None, {name: np.ascontiguousarray(images.numpy())})
        return torch.from_numpy(logits)


def in_batches(call: Callable[[Tensor], Tensor], images: Tensor, batch_size: int | None) -> Tensor:
    """What `call` gives for images, where it takes `batch_size` images at once only: the last are filled up."""
    if batch_size is None or len(images) == 0:
        return call(images)
    rows = []
    for start in range(0, len(images), batch_size):
        part = images[start : start + batch_size]
        filling = part.new_zeros(batch_size - len(part), *part.shape[1:])
        rows.append(call(torch.cat([part, filling]))[: len(part)])
    return torch.cat(rows)


def _open_session(data: bytes, file: str, threads: int | None, optimized: bool) -> onnxruntime.InferenceSession:
    """The bytes of an ONNX file, ready to run on the CPU. Raises InputError when onnxruntime refuses them."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level = _ERRORS_ONLY
    if not optimized:
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    if threads is not None:
        options.intra_op_num_threads = threads
        options.inter_op_num_threads = 1
    try:
        return onnxruntime.InferenceSession(data, options, providers=["CPUExecutionProvider"])
    except Exception as error:  # onnxruntime's errors have no common base
        raise InputError(f"{file} cannot be run by onnxruntime: {' '.join(str(error).split())[:300]}") from error


def _checked(data: bytes, file: str) -> onnx.ModelProto:
    """A file's model. Raises InputError when it is not ONNX, refers to other files, or differs from its checksum."""
    if not data:
        raise InputError(f"{file} is empty: it was not written completely; write or copy it again")
    try:
        model = onnx.load_model_from_string(data)
    except DecodeError as error:
        raise InputError(f"{file} is not an ONNX file, or damaged") from error
    if any(uses_external_data(tensor) for tensor in stored_tensors(model)):
        raise InputError(f"{file} stores weights in external files, which are not read: {_NOT_OURS}")
    properties = _properties(model)
    if not all(isinstance(text, str) for pair in properties.items() for text in pair):  # bytes that are not UTF-8
        raise InputError(f"{file} has damaged metadata: it is not text; copy it again")
    verify_checksum(data, properties, file)
    return model


def _metadata(properties: dict[str, str], file: str) -> tuple[tuple[str, ...], Preprocessing]:
    """Class names and preprocessing. Raises InputError if what every export records is missing or wrong."""
    try:
        names = load_json(properties["class_names"].encode())
        fields = load_json(properties["preprocessing"].encode())
        preprocessing = Preprocessing.from_json(fields if isinstance(fields, dict) else {})
        properties["architecture"]
    except KeyError as error:
        raise InputError(f"{file} has no {error.args[0]} in its metadata: {_NOT_OURS}") from error
    except ValueError as error:
        raise InputError(f"{file} has damaged metadata: {error}") from error
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise InputError(f"{file} has damaged metadata: class_names is not a list of texts")
    return tuple(names), preprocessing


def _check_signature(session: onnxruntime.InferenceSession, num_classes: int, size: int, file: str) -> int | None:
    """The images per call, None for any number. Raises InputError where input or output are not those of an export."""
    inputs, outputs = session.get_inputs(), session.get_outputs()
    if len(inputs) != 1 or len(outputs) != 1 or outputs[0].shape[1:] != [num_classes]:
        raise InputError(f"{file} does not give logits of {num_classes} classes for images: {_NOT_OURS}")
    if inputs[0].shape[1:] != [IMAGE_CHANNELS, size, size] or inputs[0].type != "tensor(float)":
        found = f"{inputs[0].type} of {' x '.join(map(str, inputs[0].shape))}"
        raise InputError(f"{file} takes {found}, but its metadata says images of {size} x {size}: {_NOT_OURS}")
    batch = inputs[0].shape[0]
    return batch if isinstance(batch, int) else None


def _properties(model: onnx.ModelProto) -> dict[str, str]:
    return {entry.key: entry.value for entry in model.metadata_props}
