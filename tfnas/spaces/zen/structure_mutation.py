"""Drawing a changed structure under the rules of a structure space.

Nothing is enumerated: a mutation draws a block, what of it changes, and the new value. What may be drawn depends on few
numbers of a block and is computed once for each; blocks are shared between structures, so that whatever is known of a
block is found again by its hash. All draws come from one generator, in a fixed order.
"""

from __future__ import annotations

from typing import NamedTuple

from tfnas.core.errors import InputError
from tfnas.spaces.zen.field_mutation import FieldMutation, Uniform
from tfnas.spaces.zen.structure import Structure, round_to_8
from tfnas.spaces.zen.structure_rules import ResidualType, StructureRules
from tfnas.spaces.zen.super_block import KNOWN_BLOCKS, MOST_LAYERS, SuperBlock

_TRIES = 1000


Values = tuple[ResidualType | None, int, int, int | None]
"""What is drawn of a block at once: its type (None for a convolution, which keeps it), width, layers and bottleneck."""


class BlockChoices(NamedTuple):
    """What may take the place of a block: every combination, as often as its type stands there."""

    types: tuple[ResidualType | None, ...]
    widths: tuple[int, ...]
    layers: tuple[int, ...]
    bottlenecks: tuple[int | None, ...]

    @property
    def num_combinations(self) -> int:
        """How many combinations there are."""
        return len(self.types) * len(self.widths) * len(self.layers) * len(self.bottlenecks)

    def values(self, index: int) -> Values:
        """Combination number `index`; the bottleneck changes fastest, the type slowest."""
        index, bottleneck = divmod(index, len(self.bottlenecks))
        index, layers = divmod(index, len(self.layers))
        number, width = divmod(index, len(self.widths))
        return self.types[number], self.widths[width], self.layers[layers], self.bottlenecks[bottleneck]


class StructureMutation:
    """Mutations under the rules of a space, with `max_layers` in all where that is given.

    Layers are counted as the program of the notation counts them. Changes of whole blocks do not look at them.
    """

    def __init__(self, rules: StructureRules, max_layers: int | None = None) -> None:
        self.rules, self.max_layers = rules, max_layers
        self._fields = FieldMutation(rules, max_layers)
        self._choices: dict[tuple[int, int, int], tuple[BlockChoices, int]] = {}
        self._scaled: dict[int, tuple[int, ...]] = {}
        self._checked: set[tuple[str, ...]] = set()

    def mutate(self, structure: Structure, resolution: int, uniform: Uniform, changes: int | None = None) -> Structure:
        """The structure with `changes` blocks or fields (as many as the rules say, unless given) drawn anew.

        Raises InputError where nothing of it can change, and naming the block that has no place in the space.
        """
        kinds = (structure.notation, *[block.block_type for block in structure.blocks])
        if kinds not in self._checked:
            self.rules.check_blocks(structure.blocks, structure.notation)
            self._checked.add(kinds)
        changes = self.rules.changes if changes is None else changes
        if self.rules.change == "block":
            return Structure.of_valid(self._other_blocks(structure.blocks, changes, uniform), structure.notation)
        while True:
            blocks = list(structure.blocks)
            for _ in range(changes):
                blocks = self._fields.changed(blocks, resolution, uniform)
            # What the first change does the second may undo.
            if not self.rules.always_different or tuple(blocks) != structure.blocks:
                return Structure.of_valid(blocks, structure.notation)

    # ---- whole blocks -----------------------------------------------------------------------------------------

    def _other_blocks(self, old: tuple[SuperBlock, ...], changes: int, uniform: Uniform) -> list[SuperBlock]:
        """The blocks with some replaced, channels chained again, and deep blocks split."""
        drawn = self._drawn_values(old, changes, uniform)
        channels, limit, is_deep = old[0].in_channels, self.rules.split_layers, False
        blocks = []
        for number, block in enumerate(old):
            if number in drawn:
                block = _replaced(block, channels, drawn[number])
            elif block.in_channels != channels:
                block = block.changed(in_channels=channels)
            channels = block.out_channels
            is_deep = is_deep or (limit is not None and block.layers >= limit)
            blocks.append(block)
        return self._split(blocks) if is_deep else blocks

    def _drawn_values(self, old: tuple[SuperBlock, ...], changes: int, uniform: Uniform) -> dict[int, Values]:
        """What is drawn of which blocks; none comes twice."""
        drawn: dict[int, Values] = {}
        different = self.rules.always_different
        for _ in range(_TRIES if different else changes):
            number = int(uniform() * len(old))
            if number in drawn:
                continue
            block = old[number]
            key = (block.out_channels, block.layers, block.bottleneck or -block.kernel)
            choices, combinations = self._choices.get(key) or self._known_choices(block, key)
            values = choices.values(int(uniform() * combinations))
            if different and _is_like(block, values):
                continue
            drawn[number] = values
            if len(drawn) >= changes or len(drawn) == len(old):
                break
        if different and not drawn:
            raise InputError(f"no block of the structure can change under the rules of space {self.rules.name}")
        return drawn

    def _known_choices(self, block: SuperBlock, key: tuple[int, int, int]) -> tuple[BlockChoices, int]:
        if len(self._choices) >= KNOWN_BLOCKS:
            self._choices.clear()
        choices = self.block_choices(block)
        self._choices[key] = found = choices, choices.num_combinations
        return found

    def block_choices(self, block: SuperBlock) -> BlockChoices:
        """What may be drawn in the place of a block, where whole blocks are."""
        widths = self.scaled(block.out_channels)
        if block.bottleneck is None:
            fixed = self.rules.fixed_pointwise and block.kernel == 1
            return BlockChoices((None,), (block.out_channels,) if fixed else widths, (1,), (None,))
        layers = (block.layers + step for step in self.rules.layer_steps)
        possible = tuple(number for number in layers if 0 < number <= MOST_LAYERS)
        return BlockChoices(self.rules.residual_types, widths, possible or (1,), self.scaled(block.bottleneck))

    def scaled(self, width: int) -> tuple[int, ...]:
        """The widths that a width may become, each once."""
        found = self._scaled.get(width)
        if found is None:
            most, scales = self.rules.max_channels, self.rules.width_scales
            found = tuple(dict.fromkeys(round_to_8(min(most, max(8, width * scale))) for scale in scales))
            self._scaled[width] = found
        return found

    def _split(self, blocks: list[SuperBlock]) -> list[SuperBlock]:
        """With residual blocks of many layers divided in two."""
        limit, splits = self.rules.split_layers, 0
        assert limit is not None
        while splits != self.rules.max_splits and any(block.layers >= limit for block in blocks if block.bottleneck):
            found: list[SuperBlock] = []
            for block in blocks:
                found += _halves(block, limit // 2) if block.bottleneck and block.layers >= limit else (block,)
            blocks, splits = found, splits + 1
        return blocks


# ---- blocks ---------------------------------------------------------------------------------------------------------


def _is_like(block: SuperBlock, values: Values) -> bool:
    """Whether a block already is what was drawn."""
    kind, width, layers, bottleneck = values
    return (
        (width, layers, bottleneck) == (block.out_channels, block.layers, block.bottleneck)
        and (kind is None or kind == (block.block_type, block.kernel, block.expansion))
    )  # fmt: skip


def _replaced(block: SuperBlock, in_channels: int, values: Values) -> SuperBlock:
    """What was drawn, in the place of a block, with the block's stride."""
    kind, width, layers, bottleneck = values
    if kind is None:
        return block.changed(in_channels=in_channels, out_channels=width, layers=layers)
    return block.changed(
        block_type=kind.block_type,
        kernel=kind.kernel,
        expansion=kind.expansion,
        in_channels=in_channels,
        out_channels=width,
        layers=layers,
        bottleneck=bottleneck,
    )


def _halves(block: SuperBlock, layers: int) -> tuple[SuperBlock, SuperBlock]:
    """A block in two, the first with so many layers."""
    rest = block.changed(in_channels=block.out_channels, stride=1, layers=block.layers - layers)
    return block.changed(layers=layers), rest
