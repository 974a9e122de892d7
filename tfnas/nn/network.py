"""The stand-alone network of an architecture. State names are the authors', without `module.`."""

from __future__ import annotations

from torch import Tensor, nn

from tfnas.architecture import Architecture
from tfnas.nn.blocks import Classifier, ConvBNAct, MBConv, zero_biases


class Network(nn.Module):
    """What an architecture describes, as a module: images (N, 3, H, W) to logits (N, classes).

    Drop-connect grows linearly with a block's place up to `drop_connect_rate` (EfficientNet's rule as TF-NAS uses it:
    the second stem is block 1 of those counted). Without `residuals` no block adds its input to its output: the view of
    a network that some zero-shot scores are defined on, with the same state names.
    """

    def __init__(
        self,
        architecture: Architecture,
        *,
        num_classes: int | None = None,
        dropout_rate: float = 0.0,
        drop_connect_rate: float = 0.0,
        residuals: bool = True,
    ) -> None:
        super().__init__()
        self.architecture = architecture
        self.residuals = residuals
        num_blocks = 1 + len(architecture.blocks)
        self.first_stem = ConvBNAct(architecture.first_stem)
        self.second_stem = MBConv(architecture.second_stem, drop_connect_rate / num_blocks)
        self.stage_names = tuple(f"stage{number}" for number in range(1, len(architecture.stages) + 1))
        block_number = 1
        for name, blocks in zip(self.stage_names, architecture.stages, strict=True):
            modules = []
            for block in blocks:
                block_number += 1
                modules.append(MBConv(block, drop_connect_rate * block_number / num_blocks))
            self.add_module(name, nn.Sequential(*modules))
        self.feature_mix_layer = ConvBNAct(architecture.feature_mix)
        classes = architecture.num_classes if num_classes is None else num_classes
        self.classifier = Classifier(architecture.feature_mix.out_channels, classes, dropout_rate)
        zero_biases(self)
        for module in self.modules():
            if isinstance(module, MBConv):
                module.has_residual = module.has_residual and residuals

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes) of images (N, 3, H, W)."""
        logits: Tensor = self.classifier(self.features(images))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, before the classifier's pool: (N, C, ceil(H / stride), ceil(W / stride))."""
        features = self.second_stem(self.first_stem(images))
        for name in self.stage_names:
            features = self.get_submodule(name)(features)
        output: Tensor = self.feature_mix_layer(features)
        return output
