"""The stand-alone network of an architecture, and its feature maps for detectors and segmenters.

State names are those of the TF-NAS authors, without `module.`.

    features = FeatureNetwork(Network(architecture))       # or tfnas.load(path, features_only=True)
    neck = torchvision.ops.FeaturePyramidNetwork(list(features.channels), 256)
"""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor, nn

from tfnas.core.architecture import Architecture
from tfnas.core.mbconv_blocks import Block, Conv
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


LEFT_OUT = ("feature_mix_layer.", "classifier.")  # how the names begin that only the whole network's state has


class FeatureNetwork(nn.Module):
    """Stems and stages of a network, without feature mix and classifier: images to feature maps, finest first.

    There is one map for each stride, the output of the last block that has it (as timm's `features_only` takes from
    EfficientNets); map i has `channels[i]` channels, one pixel of it stands for `strides[i]` pixels a side. The modules
    are the network's own, under their own names, so that they share its weights.
    """

    def __init__(self, network: Network) -> None:
        super().__init__()
        self.architecture = network.architecture
        self.first_stem, self.second_stem = network.first_stem, network.second_stem
        for name in network.stage_names:
            self.add_module(name, network.get_submodule(name))
        last = _last_of_each_stride(network.architecture)
        self.strides = tuple(last)
        self.channels = tuple(part.out_channels for _, part in last.values())
        self._names = tuple(name for name, _ in _parts(network.architecture))
        self._map_names = frozenset(name for name, _ in last.values())
        self.training = network.training

    def forward(self, images: Tensor) -> list[Tensor]:
        """Maps (N, channels[i], ceil(H / strides[i]), ceil(W / strides[i])) of images (N, 3, H, W) of any size."""
        features, maps = images, []
        for name in self._names:
            features = self.get_submodule(name)(features)
            if name in self._map_names:
                maps.append(features)
        return maps


def _parts(architecture: Architecture) -> Iterator[tuple[str, Conv | Block]]:
    """Stems and blocks in order, by their names in a Network."""
    yield "first_stem", architecture.first_stem
    yield "second_stem", architecture.second_stem
    for place in architecture.blocks:
        yield f"stage{place.stage + 1}.{place.position}", place.block


def _last_of_each_stride(architecture: Architecture) -> dict[int, tuple[str, Conv | Block]]:
    """The last part, with its name, whose output has a stride, for every stride from the smallest on."""
    stride, last = 1, {}
    for name, part in _parts(architecture):
        stride *= part.stride
        last[stride] = name, part
    return last
