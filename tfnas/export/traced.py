"""The module that is exported: normalisation in front, a network without batch norm, float32 in and out."""

from __future__ import annotations

import copy
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tfnas.core.space import IMAGE_CHANNELS
from tfnas.data.preprocessing import Preprocessing
from tfnas.export.export_config import Dtype
from tfnas.nn.blocks import ConvBN
from tfnas.runs.model_file import TrainedModel

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
