"""Drawing a changed structure under the rules of a structure space.

Nothing is enumerated: a mutation draws a block, what of it changes, and the new value. What may be drawn depends on few
numbers of a block and is computed once for each; blocks are shared between structures, so that whatever is known of a
block is found again by its hash. All draws come from one generator, in a fixed order.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

from tfnas.core.errors import InputError
from tfnas.core.units import PLAIN
from tfnas.spaces.zen.field_mutation import FieldMutation, Uniform
from tfnas.spaces.zen.structure import Structure, round_to_8
from tfnas.spaces.zen.structure_rules import ResidualType, StructureRules
from tfnas.spaces.zen.super_block import KNOWN_BLOCKS, SuperBlock, changed_block, shared_block

_TRIES = 1000


class BlockChoices(NamedTuple):
    """What may take the place of a block: every combination, as often as its type stands there."""

    types: tuple[ResidualType | None, ...]
    """None for a convolution, which keeps its type."""
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    bottlenecks: tuple[int | None, ...]

    @property
    def num_combinations(self) -> int:
        """How many combinations there are."""
        return len(self.types) * len(self.widths) * len(self.layers) * len(self.bottlenecks)

    def block(self, old: SuperBlock, index: int) -> SuperBlock:
        """Combination number `index` in the place of a block, with the block's input channels and stride."""
        index, bottleneck = divmod(index, len(self.bottlenecks))
        index, layers = divmod(index, len(self.layers))
        number, width = divmod(index, len(self.widths))
        kind, inside = self.types[number], self.bottlenecks[bottleneck]
        if kind is None or inside is None:
            return changed_block(old, out_channels=self.widths[width], layers=self.layers[layers])
        return _zennas_block(kind, old.in_channels, self.widths[width], old.stride, inside, self.layers[layers])


class StructureMutation:
    """Mutations under the rules of a space, with `max_layers` in all where that is given.

    Layers are counted as the program of the notation counts them; ZenNAS's rules do not look at them.
    """

    def __init__(self, rules: StructureRules, max_layers: int | None = None) -> None:
        self.rules, self.max_layers = rules, max_layers
        self._fields = FieldMutation(rules, max_layers)
        self._choices: dict[SuperBlock, tuple[BlockChoices, int]] = {}

    def mutate(self, structure: Structure, resolution: int, uniform: Uniform, changes: int | None = None) -> Structure:
        """The structure with `changes` blocks or fields (as many as the rules say, unless given) drawn anew.

        Raises InputError where nothing of it can change.
        """
        changes = self.rules.changes if changes is None else changes
        if self.rules.change == "block":
            return Structure.of_valid(self._split(self._other_blocks(structure, changes, uniform)), structure.notation)
        while True:
            blocks = list(structure.blocks)
            for _ in range(changes):
                blocks = self._fields.changed(blocks, resolution, uniform)
            # What the first change does the second may undo.
            if not self.rules.always_different or tuple(blocks) != structure.blocks:
                return Structure.of_valid(blocks, structure.notation)

    # ---- whole blocks -----------------------------------------------------------------------------------------

    def _other_blocks(self, structure: Structure, changes: int, uniform: Uniform) -> list[SuperBlock]:
        """The blocks with some replaced, and channels chained again."""
        old, blocks, drawn = structure.blocks, list(structure.blocks), 0
        different, changed = self.rules.always_different, [False] * len(blocks)
        for _ in range(_TRIES if different else changes):
            number = int(uniform() * len(old))
            if changed[number]:
                continue
            choices, count = self._choices.get(old[number]) or self._known_choices(old[number])
            block = choices.block(old[number], int(uniform() * count))
            if different and block == old[number]:
                continue
            blocks[number], changed[number], drawn = block, True, drawn + 1
            if drawn >= changes or drawn == len(old):
                break
        if different and not drawn:
            raise InputError(f"no block of the structure can change under the rules of space {self.rules.name}")
        return _chained(blocks)

    def _known_choices(self, block: SuperBlock) -> tuple[BlockChoices, int]:
        if len(self._choices) >= KNOWN_BLOCKS:
            self._choices.clear()
        choices = self.block_choices(block)
        self._choices[block] = found = choices, choices.num_combinations
        return found

    def block_choices(self, block: SuperBlock) -> BlockChoices:
        """What may be drawn in the place of a block, where whole blocks are."""
        if block.block_type == PLAIN:
            fixed = self.rules.fixed_pointwise and block.kernel == 1
            return BlockChoices(
                (None,), (block.out_channels,) if fixed else self.scaled(block.out_channels), (1,), (None,)
            )
        assert block.bottleneck is not None
        layers = tuple(block.layers + step for step in self.rules.layer_steps if block.layers + step > 0)
        return BlockChoices(
            self.rules.residual_types, self.scaled(block.out_channels), layers or (1,), self.scaled(block.bottleneck)
        )

    def scaled(self, width: int) -> tuple[int, ...]:
        """The widths that a width may become, each once."""
        return _scaled(width, self.rules.width_scales, self.rules.max_channels)

    def _split(self, blocks: list[SuperBlock]) -> list[SuperBlock]:
        """With residual blocks of many layers divided in two."""
        limit, splits = self.rules.split_layers, 0
        if limit is None:
            return blocks
        while splits != self.rules.max_splits and any(block.layers >= limit for block in blocks if block.bottleneck):
            found: list[SuperBlock] = []
            for block in blocks:
                found += _halves(block, limit) if block.bottleneck and block.layers >= limit else (block,)
            blocks, splits = found, splits + 1
        return blocks


# ---- blocks ---------------------------------------------------------------------------------------------------------


@lru_cache(KNOWN_BLOCKS)
def _zennas_block(
    kind: ResidualType, in_channels: int, out_channels: int, stride: int, bottleneck: int, layers: int
) -> SuperBlock:
    assert kind.kernel is not None
    block = SuperBlock(
        block_type=kind.block_type,
        kernel=kind.kernel,
        expansion=kind.expansion,
        in_channels=in_channels,
        out_channels=out_channels,
        stride=stride,
        bottleneck=bottleneck,
        layers=layers,
    )
    return shared_block(block)


@lru_cache(KNOWN_BLOCKS)
def _halves(block: SuperBlock, limit: int) -> tuple[SuperBlock, SuperBlock]:
    rest = block.layers - limit // 2
    second = changed_block(block, in_channels=block.out_channels, stride=1, layers=rest)
    return changed_block(block, layers=limit // 2), second


@lru_cache(KNOWN_BLOCKS)
def _scaled(width: int, scales: tuple[float, ...], most: int) -> tuple[int, ...]:
    return tuple(dict.fromkeys(round_to_8(min(most, max(8, width * scale))) for scale in scales))


def _chained(blocks: list[SuperBlock]) -> list[SuperBlock]:
    """Every block with as many input channels as the one before has outputs."""
    channels = blocks[0].in_channels
    for number, block in enumerate(blocks):
        if block.in_channels != channels:
            blocks[number] = changed_block(block, in_channels=channels)
        channels = block.out_channels
    return blocks
