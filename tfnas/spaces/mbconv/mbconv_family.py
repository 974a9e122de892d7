"""The family of networks of MBConv blocks: drawn from a search space, taken apart into units, counted, built."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate
from typing import TYPE_CHECKING

from tfnas.core.architecture import Architecture
from tfnas.core.errors import InputError
from tfnas.core.mbconv_blocks import Block, Conv, output_size
from tfnas.core.space import SearchSpace
from tfnas.core.units import (
    PLAIN,
    ConvShape,
    CostPart,
    Counts,
    Shortcut,
    SqueezeExciteShape,
    Unit,
    classifier_counts,
    unit_counts,
)
from tfnas.spaces.mbconv.space_file import space as load_space
from tfnas.spaces.mbconv.table_keys import classifier_key, latency_key, stem_keys

if TYPE_CHECKING:
    import numpy as np
    from torch import nn

DEFAULT_SPACE = "imagenet"
MODEL_CONFIG_FILE = "model.config"
_HEAD = re.compile(r"\s*i\d+x\d+_n\d+:", re.ASCII)


@dataclass(frozen=True)
class Genes:
    """What is chosen of a space: an operation and a width for every block, of which each stage has the first few."""

    operations: tuple[int, ...]
    depths: tuple[int, ...]
    widths: tuple[int, ...]


@dataclass(frozen=True)
class MBConvFamily:
    """Architectures of a search space, by default `imagenet`; they are drawn with `num_classes` classes.

    Reading, counting and building do not ask which space an architecture is of.
    """

    search_space: SearchSpace | None = None
    num_classes: int = 1000
    name: str = "mbconv"

    @cached_property
    def space(self) -> SearchSpace:
        """The space that architectures are drawn from."""
        return self.search_space or load_space(DEFAULT_SPACE)

    # ---- drawing ----------------------------------------------------------------------------------------------

    def sample(self, generator: np.random.Generator) -> Architecture:
        """Uniform over the operations of every block, the depths of every stage, and the widths of the operation."""
        operations = [int(generator.integers(len(self.space.operations))) for _ in self.space.blocks]
        depths = [int(generator.choice(choices)) for choices in self.space.depth_choices]
        widths = [self._draw_width(index, operation, generator) for index, operation in enumerate(operations)]
        return self._architecture(Genes(tuple(operations), tuple(depths), tuple(widths)), self.num_classes)

    def mutate(self, architecture: Architecture, generator: np.random.Generator) -> Architecture:
        """Another operation for a block, one block more or fewer in a stage, or another width: each where there is one.

        A new operation keeps its place between narrowest and widest; a new block is drawn. An architecture of a space
        that offers one network only stays as it is. Raises InputError where it is not of the space.
        """
        genes = self.genes(architecture)
        present = [index for index, place in enumerate(self.space.blocks) if place.position < genes.depths[place.stage]]
        changes: list[Callable[[], Genes]] = []
        if len(self.space.operations) > 1 and present:
            changes.append(lambda: self._other_operation(genes, present, generator))
        stages = [stage for stage, choices in enumerate(self.space.depth_choices) if len(choices) > 1]
        if stages:
            changes.append(lambda: self._other_depth(genes, stages, generator))
        elastic = [index for index in present if len(self._widths(index, genes.operations[index])) > 1]
        if elastic:
            changes.append(lambda: self._other_width(genes, elastic, generator))
        if not changes:
            return architecture
        changed = changes[int(generator.integers(len(changes)))]()
        return self._architecture(changed, architecture.num_classes)

    def genes(self, architecture: Architecture) -> Genes:
        """What was chosen of the space; absent blocks have the first operation. Raises InputError for another space."""
        check_of_space(architecture, self.space)
        operations, widths = [0] * len(self.space.blocks), [0] * len(self.space.blocks)
        for index, offered in enumerate(self.space.blocks):
            widths[index] = self.space.initial_width(offered, self.space.operations[0])
        for place in architecture.blocks:
            index = self.space.first_blocks[place.stage] + place.position
            operations[index] = self.space.operation_index(self.space.blocks[index], place.block)
            widths[index] = place.block.mid_channels
        return Genes(tuple(operations), tuple(len(blocks) for blocks in architecture.stages), tuple(widths))

    def _other_operation(self, genes: Genes, present: Sequence[int], generator: np.random.Generator) -> Genes:
        index = int(generator.choice(present))
        old = genes.operations[index]
        new = (old + 1 + int(generator.integers(len(self.space.operations) - 1))) % len(self.space.operations)
        before, after = self._widths(index, old), self._widths(index, new)
        share = before.index(genes.widths[index]) / max(1, len(before) - 1)
        width = after[round(share * (len(after) - 1))]
        return self._with_block(genes, index, new, width)

    def _other_depth(self, genes: Genes, stages: Sequence[int], generator: np.random.Generator) -> Genes:
        stage = int(generator.choice(stages))
        choices, depth = self.space.depth_choices[stage], genes.depths[stage]
        near = [choice for choice in choices if abs(choice - depth) == 1]
        new = int(generator.choice(near))
        depths = tuple(new if number == stage else value for number, value in enumerate(genes.depths))
        genes = dataclasses.replace(genes, depths=depths)
        if new < depth:
            return genes
        index = self.space.first_blocks[stage] + depth
        operation = int(generator.integers(len(self.space.operations)))
        return self._with_block(genes, index, operation, self._draw_width(index, operation, generator))

    def _other_width(self, genes: Genes, elastic: Sequence[int], generator: np.random.Generator) -> Genes:
        index = int(generator.choice(elastic))
        widths = self._widths(index, genes.operations[index])
        here = widths.index(genes.widths[index])
        width = widths[(here + 1 + int(generator.integers(len(widths) - 1))) % len(widths)]
        return self._with_block(genes, index, genes.operations[index], width)

    def _with_block(self, genes: Genes, index: int, operation: int, width: int) -> Genes:
        operations, widths = list(genes.operations), list(genes.widths)
        operations[index], widths[index] = operation, width
        return dataclasses.replace(genes, operations=tuple(operations), widths=tuple(widths))

    def _widths(self, index: int, operation: int) -> range:
        return self.space.widths(self.space.blocks[index], self.space.operations[operation])

    def _draw_width(self, index: int, operation: int, generator: np.random.Generator) -> int:
        widths = self._widths(index, operation)
        return widths[int(generator.integers(len(widths)))]

    def _architecture(self, genes: Genes, num_classes: int) -> Architecture:
        return self.space.architecture(genes.operations, genes.depths, genes.widths, num_classes)

    # ---- costs, network, text ---------------------------------------------------------------------------------

    def cost_parts(self, architecture: Architecture) -> tuple[CostPart, ...]:
        """Stems, blocks, feature mix and classifier, under the keys that latency tables have."""
        stems, mix = stem_keys(architecture), architecture.feature_mix
        blocks = [(f"stage{place.stage + 1}.{place.position}", latency_key(place.block, place.input_size))
                  for place in architecture.blocks]  # fmt: skip
        named = [("first_stem", stems["first_stem"]), ("second_stem", stems["second_stem"]), *blocks]
        named.append(("feature_mix_layer", stems["feature_mix"]))
        parts = []
        for (name, key), unit in zip(named, architecture_units(architecture), strict=True):
            size, width = unit.resolution_in, unit.convs[0].out_channels
            parts.append(CostPart(name, key, width, unit_counts(unit), unit.in_channels, unit.out_channels, size))
        channels, classes, size = mix.out_channels, architecture.num_classes, unit.resolution_out
        counts = classifier_counts(channels, classes, size**2)
        head = CostPart("classifier", classifier_key(architecture), classes, counts, channels, classes, size)
        return (*parts, head)

    def build(
        self,
        architecture: Architecture,
        num_classes: int | None = None,
        *,
        dropout_rate: float = 0.0,
        drop_connect_rate: float = 0.0,
        residuals: bool = True,
    ) -> nn.Module:
        """The Network of the architecture."""
        from tfnas.nn.network import Network

        return Network(
            architecture,
            num_classes=num_classes,
            dropout_rate=dropout_rate,
            drop_connect_rate=drop_connect_rate,
            residuals=residuals,
        )

    def recognizes(self, text: str) -> bool:
        """Whether it begins with images and classes, and no brackets follow."""
        return _HEAD.match(text) is not None and not any(bracket in text for bracket in "([{")

    def parse(self, text: str) -> Architecture:
        """Read the text form. Raises InputError naming the part that does not fit."""
        return Architecture.parse(text)

    def format(self, architecture: Architecture) -> str:
        """The text form."""
        return architecture.to_text()

    def says_images(self, text: str) -> bool:
        """Whether it begins as every text of the family does."""
        return self.recognizes(text)

    def original_form(self, architecture: Architecture) -> tuple[str, str]:
        """`model.config` of the TF-NAS authors."""
        return MODEL_CONFIG_FILE, json.dumps(architecture.to_model_config(), indent=2) + "\n"


def check_of_space(architecture: Architecture, space: SearchSpace) -> None:
    """Raise InputError naming what about an architecture is not in the space."""
    fixed = (
        ("image_size", architecture.image_size, space.image_size),
        ("first stem", architecture.first_stem, space.first_stem),
        ("second stem", architecture.second_stem, space.second_stem),
        ("feature mix", architecture.feature_mix, space.feature_mix),
        ("number of stages", len(architecture.stages), len(space.stages)),
    )
    for name, found, wanted in fixed:
        if found != wanted:
            raise InputError(f"its {name} is {found}, the space's is {wanted}")
    for number, (blocks, depths) in enumerate(zip(architecture.stages, space.depth_choices, strict=True), 1):
        if len(blocks) not in depths:
            raise InputError(f"its stage {number} has {len(blocks)} blocks, the space's {depths}")
    for place in architecture.blocks:
        space.operation_index(space.blocks[space.first_blocks[place.stage] + place.position], place.block)


# ---- units -----------------------------------------------------------------------------------------------------------


def architecture_units(architecture: Architecture) -> tuple[Unit, ...]:
    """Stems, blocks, feature mix. A stage of the architecture is a block of units; the stems and the mix are plain."""
    units = [_conv_unit(architecture.first_stem, 0, 0, architecture.image_size)]
    size, second = units[-1].resolution_out, architecture.second_stem
    stage = int(second.stride > 1)
    units.append(block_unit(second, size, (1, stage, 0), PLAIN))
    for place in architecture.blocks:
        stage += place.block.stride > 1
        units.append(block_unit(place.block, place.input_size, (2 + place.stage, stage, place.position)))
    mix = architecture.feature_mix
    stage += mix.stride > 1
    units.append(_conv_unit(mix, 2 + len(architecture.stages), stage, architecture.feature_mix_size))
    return tuple(units)


def block_unit(
    block: Block, input_size: int, place: tuple[int, int, int] = (0, 0, 0), block_type: str = "mbconv"
) -> Unit:
    """The unit of an MBConv block that receives `input_size` x `input_size` pixels.

    `place` is its block, stage and position in the network.
    """
    mid, out_size = block.mid_channels, output_size(input_size, block.stride)
    convs = [
        ConvShape(mid, mid, block.kernel_size, block.stride, mid, input_size, out_size),
        ConvShape(mid, block.out_channels, 1, 1, 1, out_size, out_size),
    ]
    if block.expands:
        convs.insert(0, ConvShape(block.in_channels, mid, 1, 1, 1, input_size, input_size))
    squeeze = SqueezeExciteShape(len(convs) - 2, mid, block.se_channels, bias=True) if block.se_channels else None
    shortcut = Shortcut(pools=False, projection=None) if block.has_residual else None
    return Unit(*place, block_type, block.activation, tuple(convs), squeeze, shortcut, ends_in_activation=False)


def block_counts(block: Block, input_size: int) -> Counts:
    """Counts of an MBConv block that receives `input_size` x `input_size` pixels."""
    return unit_counts(block_unit(block, input_size))


def _conv_unit(conv: Conv, block: int, stage: int, size: int) -> Unit:
    out_size = output_size(size, conv.stride)
    layer = ConvShape(conv.in_channels, conv.out_channels, conv.kernel_size, conv.stride, 1, size, out_size)
    return Unit(block, stage, 0, PLAIN, conv.activation, (layer,), None, None)


# ---- counts of a space -----------------------------------------------------------------------------------------------


def count_range(space: SearchSpace, num_classes: int) -> tuple[Counts, Counts]:
    """Smallest and largest parameters and MACs over all operations, widths and depths (each by itself)."""
    parts = MBConvFamily(space).cost_parts(space.shallowest(num_classes))
    fixed = [part.counts for part in parts if not part.name.startswith("stage")]
    ends = []
    for end, best in ((0, min), (1, max)):
        blocks = [
            [
                block_counts(space.block(place, operation, space.width_range(place, operation)[end]), place.input_size)
                for operation in space.operations
            ]
            for place in space.blocks
        ]
        params = _best_total(space, [[counts.params for counts in row] for row in blocks], best)
        macs = _best_total(space, [[counts.macs for counts in row] for row in blocks], best)
        ends.append(
            Counts(params + sum(counts.params for counts in fixed), macs + sum(counts.macs for counts in fixed))
        )
    return ends[0], ends[1]


def _best_total(space: SearchSpace, values: list[list[int]], best: Callable[[Iterable[int]], int]) -> int:
    """The best choice of operations (of each block's row) and depths when every block counts by itself."""
    total = 0
    for stage, first, depths in zip(space.stages, space.first_blocks, space.depth_choices, strict=True):
        reached = list(accumulate((best(row) for row in values[first : first + stage.blocks]), initial=0))
        total += best(reached[depth] for depth in depths)
    return total
