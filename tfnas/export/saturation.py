"""Whether an 8-bit file gives the same answers on every processor, told by its weights.

x86 processors without VNNI multiply unsigned 8-bit activations by signed 8-bit weights two at a time and add the two
products in a signed 16-bit number, which stays at 32,767 where the sum is larger. With activations up to 255 and
weights of at most 64 in size the sum is 2 * 255 * 64 = 32,640 at most: such a file needs no particular processor.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import onnx
from google.protobuf.message import Message  # type: ignore[import-untyped]

from tfnas.processor import processor_name

LARGEST_SAFE_WEIGHT = 64
"""The largest size of 8-bit weights at which two products of them fit into 16 bits."""


class SaturationWarning(UserWarning):
    """A file's 8-bit sums may be cut off on this processor, and its answers be others than where it was made."""


def largest_weight(model: onnx.ModelProto) -> int:
    """The largest size of the signed 8-bit weights in a file; 0 where it has none."""
    sizes = [0]
    for tensor in tensors_of(model):
        if tensor.data_type == onnx.TensorProto.INT8:
            values = onnx.numpy_helper.to_array(tensor).astype(np.int64)
            sizes.append(int(np.abs(values).max(initial=0)))
    return max(sizes)


def may_saturate(model: onnx.ModelProto) -> bool:
    """Whether sums of the file are cut off on processors that add products of bytes in 16 bits."""
    return largest_weight(model) > LARGEST_SAFE_WEIGHT


def saturation_text(file: str) -> str:
    """What to say where `file`, which may saturate, is run on this processor, and that has no exact sums."""
    return (
        f"{file} has 8-bit weights of full range, and this processor ({processor_name()}) has no VNNI: it adds their "
        "products in 16 bits, where large sums are cut off, so its answers may be wrong here. Run the file on x86 with "
        "VNNI or on Arm, or export the network again with --quantize int8, which is right on every processor"
    )


def tensors_of(message: Message) -> Iterator[onnx.TensorProto]:
    """Every tensor in a model: of graphs in graphs, of nodes and of functions, wherever the format has a place."""
    for field, value in message.ListFields():
        if field.type != field.TYPE_MESSAGE:
            continue
        for part in value if field.is_repeated else (value,):
            if isinstance(part, onnx.TensorProto):
                yield part
            else:
                yield from tensors_of(part)
