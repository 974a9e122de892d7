"""The network that a structure describes."""

from __future__ import annotations

import os
from collections.abc import Mapping

from torch import Tensor, nn

from tfnas.errors import InputError
from tfnas.structures.families import BATCH_NORM_EPSILON
from tfnas.structures.layers import Maker, ResidualUnit
from tfnas.structures.structure import Structure


class StructureNetwork(nn.Module):
    """A structure as a module: images (N, C, H, W), or videos (N, C, T, H, W), to logits or to a feature map.

    Without `num_classes` there is no classifier, and `forward` returns the last feature map. `use_se` adds
    squeeze-and-excite to notation zennas; in tinynas the classes of its blocks say whether it is there. Without
    `residuals` every shortcut is left out, without `batch_norm` every batch norm. Bits are not simulated: it computes
    in floats. Modules are in the order in which they are computed.

    Source: ZenNAS and TinyNAS; equal to their networks' outputs to double precision.
    """

    def __init__(
        self,
        structure: Structure,
        *,
        num_classes: int | None = None,
        use_se: bool = False,
        residuals: bool = True,
        batch_norm: bool = True,
    ) -> None:
        super().__init__()
        if num_classes is not None and num_classes < 1:
            raise InputError(f"num_classes must be 1 or more, or None for feature maps, got {num_classes}")
        self.structure = structure
        self.use_se, self.residuals, self.batch_norm = use_se, residuals, batch_norm
        maker = Maker(3 if structure.is_video else 2, BATCH_NORM_EPSILON[structure.notation], batch_norm)
        units = structure.units(structure.total_stride, use_se=use_se)  # of any size: layers have none
        self.blocks = nn.ModuleList()
        for number in range(len(structure.blocks)):
            inside = [ResidualUnit(unit, maker, residuals=residuals) for unit in units if unit.block == number]
            self.blocks.append(nn.Sequential(*inside))
        self._last_blocks = tuple(stage.last_block for stage in structure.stages(structure.total_stride))
        self.pool = None if num_classes is None else maker.global_pool()
        self.classifier = None if num_classes is None else nn.Linear(structure.out_channels, num_classes)

    def forward(self, images: Tensor) -> Tensor:
        """Logits (N, classes), or without classes the last feature map."""
        features = self.features(images)
        if self.pool is None or self.classifier is None:
            return features
        logits: Tensor = self.classifier(self.pool(features).flatten(1))
        return logits

    def features(self, images: Tensor) -> Tensor:
        """The last feature map, (N, C, ..., h, w), before pooling."""
        for block in self.blocks:
            images = block(images)
        return images

    def stage_features(self, images: Tensor) -> list[Tensor]:
        """The last feature map of every stage; a stage ends before each block with a stride."""
        maps = []
        for number, block in enumerate(self.blocks):
            images = block(images)
            if number in self._last_blocks:
                maps.append(images)
        return maps

    def load_published(self, source: str | os.PathLike[str] | Mapping[str, Tensor]) -> None:
        """Take the weights that the original program published, from its file or its state dict; see `published`.

        Raises InputError naming the first layer that does not fit, with both shapes; the network is then unchanged.
        """
        from tfnas.structures.published import load_published

        load_published(self, source)
