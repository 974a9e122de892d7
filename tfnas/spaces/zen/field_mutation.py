"""Drawing one field of one block anew, as TinyNAS's mutations do: width, kernel, bottleneck, layers, bits or type.

Where rules are `always_different`, a value is drawn among those within all limits that differ from the present one.
Else one is drawn and then brought within the limits one after the other, in the program's order, even where that leaves
the structure as it is.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Hashable, Sequence
from typing import Any, NamedTuple, TypeVar

from tfnas.core.errors import InputError
from tfnas.core.units import PLAIN
from tfnas.spaces.zen.structure import round_to_8
from tfnas.spaces.zen.structure_rules import StructureRules
from tfnas.spaces.zen.super_block import BLOCK_TYPES, KNOWN_BLOCKS, SuperBlock

T = TypeVar("T")
_TRIES = 1000
Fields = dict[str, Any]
Uniform = Callable[[], float]
"""Draws from [0, 1): the method `random` of a numpy Generator."""


class PlacedBlock(NamedTuple):
    """A block where it stands: its number, the width of the block after it, and the pixels that it receives."""

    block: SuperBlock
    number: int
    num_blocks: int
    after: int | None
    size: int


class FieldMutation:
    """Draws one field of one block under the rules, with `max_layers` convolutions in all where that is given."""

    def __init__(self, rules: StructureRules, max_layers: int | None) -> None:
        self.rules, self.max_layers = rules, max_layers
        self._counted_layers = {
            name: 1 if rules.notation == "zennas" else BLOCK_TYPES[rules.notation, name].num_convs(1)
            for name in (PLAIN, *rules.block_types)
        }
        """What one of a block's layers counts as, in the programs' limits on layers."""
        self._known: dict[Hashable, tuple[Any, ...]] = {}
        self._known_sizes: dict[tuple[int, ...], tuple[int, ...]] = {}
        optional = {"kernel": rules.kernels, "bits": rules.bits, "block_type": len(rules.residual_types) > 1}
        names = ("out_channels", "kernel", "bottleneck", "layers", "bits", "block_type")
        self._residual_fields = tuple(name for name in names if optional.get(name, True))
        self._draws: dict[str, Callable[[PlacedBlock, Uniform], Fields | None]] = {
            "out_channels": self._width,
            "kernel": self._kernel,
            "bottleneck": self._bottleneck,
            "layers": self._layers,
            "bits": self._bits,
            "block_type": self._type,
        }

    def changed(self, blocks: list[SuperBlock], resolution: int, uniform: Uniform) -> list[SuperBlock]:
        """The blocks with one field drawn anew; those given may be changed, too, and are of no use afterwards.

        Raises InputError where none can change.
        """
        rules, different = self.rules, self.rules.always_different
        first = 0 if rules.change_stem else 1
        count = len(blocks) - first - (not rules.change_last)
        found, sizes = None, self._sizes(blocks, resolution)
        for _ in range(_TRIES if different else len(blocks)):
            number = first + int(uniform() * count)
            try:
                drawn = self._tried(blocks, number, sizes, uniform)
            except InputError:  # groups that the drawn channels cannot be divided into
                continue
            found = drawn or found
            if drawn is not None and self._is_within_limit(drawn, drawn[number].layers - blocks[number].layers):
                return drawn
        if different:
            raise InputError(f"no block of the structure can change under the rules of space {rules.name}")
        return found or blocks  # too deep: the limit on layers rejects it

    def _is_within_limit(self, blocks: list[SuperBlock], added: int) -> bool:
        """Whether there are few enough layers, or if rules are `always_different` at least none was `added`."""
        if self.max_layers is None or (added <= 0 and self.rules.always_different):
            return True
        return self._num_layers(blocks) <= self.max_layers

    def _num_layers(self, blocks: list[SuperBlock]) -> int:
        """Layers as the program counts them; TinyNAS's are the convolutions, but for those of shortcuts."""
        counted = self._counted_layers
        return sum([counted[block.block_type] * block.layers for block in blocks])

    def _tried(
        self, blocks: list[SuperBlock], number: int, sizes: tuple[int, ...], uniform: Uniform
    ) -> list[SuperBlock] | None:
        """The blocks with a field of one drawn anew; None where none can be."""
        rules, block = self.rules, blocks[number]
        names = self._field_names(block, number)
        if not names:
            return None if rules.always_different else list(blocks)
        name = names[int(uniform() * len(names))] if len(names) > 1 else names[0]
        after = blocks[number + 1].out_channels if number + 1 < len(blocks) else None
        fields = self._draws[name](PlacedBlock(block, number, len(blocks), after, sizes[number]), uniform)
        if fields is None:
            return None
        if rules.bottleneck_range is not None and block.bottleneck is not None:
            self._keep_range(block, fields)
        found = list(blocks)
        found[number] = block = block.changed(**fields)
        if after is not None and name == "out_channels":
            self._follow(blocks, found, number)
        return found if rules.always_different else self._shrunk(found, sizes)

    def _follow(self, blocks: list[SuperBlock], found: list[SuperBlock], number: int) -> None:
        """Let the block behind one of a new width take as many channels."""
        width, follower = found[number].out_channels, blocks[number + 1]
        if self.rules.lowers_next_bottleneck and number > 0 and (follower.bottleneck or 0) > width:
            follower = follower.changed(bottleneck=width)
            if not self.rules.always_different:  # the program changes the parent, which outlives a try that is too deep
                blocks[number + 1] = follower
        found[number + 1] = follower.changed(in_channels=width)

    def _field_names(self, block: SuperBlock, number: int) -> tuple[str, ...]:
        """What of a block may change."""
        if block.bottleneck is not None:
            return self._residual_fields
        width = () if self.rules.fixed_pointwise and block.kernel == 1 else ("out_channels",)
        return (*width, "bits") if self.rules.bits and number else width

    def _values(self, key: Hashable, present: T, listed: Callable[[], Sequence[T]]) -> tuple[T, ...]:
        """Values to draw from: as listed, or where rules are `always_different` each once, without the present one."""
        found = self._known.get(key)
        if found is None:
            if len(self._known) >= KNOWN_BLOCKS:
                self._known.clear()
            found = tuple(listed())
            if self.rules.always_different:
                found = tuple(value for value in dict.fromkeys(found) if value != present)
            self._known[key] = found
        return found

    def _drawn(self, values: tuple[T, ...], present: T, uniform: Uniform, tries: int = 1) -> T | None:
        """One of the values; in the program's way up to so many times until it is not the present one."""
        if not values:
            return None
        value = values[int(uniform() * len(values))]
        while value == present and tries > 1 and not self.rules.always_different:
            value, tries = values[int(uniform() * len(values))], tries - 1
        return value

    # ---- width ------------------------------------------------------------------------------------------------

    def _width(self, place: PlacedBlock, uniform: Uniform) -> Fields | None:
        block, rules = place.block, self.rules
        neighbours = (block.in_channels, place.after) if rules.monotone or rules.max_growth is not None else None
        number = min(place.number, max(1, len(rules.block_channels)))  # blocks behind those with limits are alike

        def listed() -> list[int]:
            return [self._within_limits(place, round_to_8(block.out_channels * scale)) for scale in rules.width_scales]

        values = self._values(("width", block.out_channels, neighbours, number), block.out_channels, listed)
        width = self._drawn(values, block.out_channels, uniform)
        if width is None:
            return None
        if block.bottleneck is None or not rules.bottleneck_ratios:
            return {"out_channels": width}
        return {"out_channels": width, "bottleneck": round_to_8(width * self._ratio(block))}

    def _within_limits(self, place: PlacedBlock, width: int) -> int:
        """A new width within all limits, which apply in this order."""
        rules, number, after, before = self.rules, place.number, place.after, place.block.in_channels
        width = min(width, rules.max_channels)
        if number == 0:
            width = max(rules.stem_channels[0], min(rules.stem_channels[1], width))
        if number < len(rules.block_channels) and (limits := rules.block_channels[number]) is not None:
            width = max(limits[0], min(limits[1], width))
        if number and rules.max_growth is not None:
            width = min(width, int(before * rules.max_growth))
        if number and rules.monotone:
            width = max(width, before)
        if after is not None and rules.monotone:
            width = min(width, after)
        if number and after is not None and rules.max_growth is not None:
            width = max(width, round_to_8(after / rules.max_growth))
        return width

    # ---- bottleneck -------------------------------------------------------------------------------------------

    def _bottleneck(self, place: PlacedBlock, uniform: Uniform) -> Fields | None:
        block, rules = place.block, self.rules
        assert block.bottleneck is not None
        old, out = block.bottleneck, block.out_channels
        if rules.bottleneck_range is not None:
            low, high = round_to_8(out * rules.bottleneck_range[0]), int(out * rules.bottleneck_range[1])

            def scaled() -> list[int]:
                widths = (min(round_to_8(old * scale), rules.max_channels, high) for scale in rules.width_scales)
                return [max(low, width) for width in widths]

            value = self._drawn(self._values(("bottleneck", old, out), old, scaled), old, uniform)
            return None if value is None else {"bottleneck": value}
        if rules.always_different:
            values = self._values(
                ("bottleneck", old, out), old, lambda: [round_to_8(out * ratio) for ratio in rules.bottleneck_ratios]
            )
            value = self._drawn(values, old, uniform)
            return None if value is None else {"bottleneck": value}
        ratios = rules.bottleneck_ratios
        ratio = self._drawn(ratios, self._ratio(block), uniform, len(ratios))
        assert ratio is not None
        return {"bottleneck": round_to_8(out * ratio)}

    def _ratio(self, block: SuperBlock) -> float:
        """The ratio of the rules that is nearest to the block's."""
        assert block.bottleneck is not None
        present = block.bottleneck / block.out_channels
        return min(self.rules.bottleneck_ratios, key=lambda ratio: abs(ratio - present))

    def _keep_range(self, block: SuperBlock, fields: Fields) -> None:
        """Bring the bottleneck into its range of a new output; the program looks at the lower end only, and always."""
        assert self.rules.bottleneck_range is not None and block.bottleneck is not None
        low, high = self.rules.bottleneck_range
        out, bottleneck = fields.get("out_channels", block.out_channels), fields.get("bottleneck", block.bottleneck)
        if not self.rules.always_different:
            fields["bottleneck"] = max(bottleneck, round_to_8(out * low))
        elif "out_channels" in fields:
            fields["bottleneck"] = max(min(bottleneck, int(out * high)), round_to_8(out * low))

    # ---- kernel, layers, type ---------------------------------------------------------------------------------

    def _kernel(self, place: PlacedBlock, uniform: Uniform) -> Fields | None:
        block, kernels, size = place.block, self.rules.kernels, place.size
        present = (block.temporal_kernel, block.kernel)

        def listed() -> list[tuple[int | None, int]]:
            share, smallest = self.rules.map_per_kernel, min(pixels for _, pixels in kernels)
            fits = share is None or not self.rules.always_different
            return [kernel for kernel in kernels if fits or kernel[1] * (share or 0) <= size or kernel[1] == smallest]

        value = self._drawn(self._values(("kernel", present, size), present, listed), present, uniform, len(kernels))
        return None if value is None else {"temporal_kernel": value[0], "kernel": value[1]}

    def _layers(self, place: PlacedBlock, uniform: Uniform) -> Fields | None:
        block, rules = place.block, self.rules
        old, steps = block.layers, rules.layer_steps
        limits = [rules.max_block_layers] if rules.always_different else []
        if place.number == 1 and rules.second_block_layers is not None:
            limits.append(rules.second_block_layers)
        elif rules.unshared_blocks is not None and self.max_layers is not None:
            convs = self._counted_layers[block.block_type]
            limits.append(max(1, self.max_layers // convs // max(1, place.num_blocks - rules.unshared_blocks)))
        most = min(limits) if limits else None

        def listed() -> list[int]:
            numbers = [max(1, old + step) for step in steps]
            return [min(number, most or number) for number in numbers] if rules.always_different else numbers

        layers = self._drawn(self._values(("layers", old, most), old, listed), old, uniform, len(steps))
        if layers is None:
            return None
        layers = min(layers, most or layers)
        bits = {
            name: _bits_of_layers(block, getattr(block, name), layers) for name in ("weight_bits", "activation_bits")
        }
        return {"layers": layers, **(bits if block.quantized else {})}

    def _type(self, place: PlacedBlock, uniform: Uniform) -> Fields | None:
        block, types = place.block, self.rules.residual_types
        present = next(
            (kind for kind in types if (kind.block_type, kind.kernel or block.kernel, kind.expansion)
             == (block.block_type, block.kernel, block.expansion)), None
        )  # fmt: skip
        kind = self._drawn(self._values(("type", present), present, lambda: types), present, uniform)
        if kind is None:
            return None
        kernel = block.kernel if kind.kernel is None else kind.kernel
        return {"block_type": kind.block_type, "kernel": kernel, "expansion": kind.expansion}

    # ---- bits -------------------------------------------------------------------------------------------------

    def _bits(self, place: PlacedBlock, uniform: Uniform) -> Fields | None:
        """Bits of inputs, then of weights: each unit's a step up or down with a probability.

        Where rules are `always_different`, one unit's change for certain, and always to other bits.
        """
        block, different = place.block, self.rules.always_different
        certain = int(uniform() * 2 * block.layers) if different else None
        found: Fields = {}
        for side, name in enumerate(("activation_bits", "weight_bits")):
            bits = list(getattr(block, name))
            per_layer = len(bits) // block.layers
            for layer in range(block.layers):
                if certain == side * block.layers + layer or uniform() < self.rules.bits_ratio:
                    first = layer * per_layer
                    bits[first : first + per_layer] = [self._step(bits[first], uniform)] * per_layer
            found[name] = tuple(bits)
        return found

    def _step(self, bits: int, uniform: Uniform) -> int:
        """The next or the previous number of bits; at an end the same, or the other if rules are `always_different`."""
        known = self.rules.bits
        index = min(range(len(known)), key=lambda index: abs(known[index] - bits))
        steps = [step for step in (-1, 1) if 0 <= index + step < len(known) or not self.rules.always_different]
        moved = index + steps[int(uniform() * len(steps))] if steps else index
        return known[max(0, min(len(known) - 1, moved))]

    # ---- maps -------------------------------------------------------------------------------------------------

    def _sizes(self, blocks: list[SuperBlock], resolution: int) -> tuple[int, ...]:
        """Pixels a side that every block receives."""
        key = (resolution, *[block.stride for block in blocks])
        found = self._known_sizes.get(key)
        if found is None:
            found = self._known_sizes[key] = tuple(
                -(-resolution // math.prod(key[1 : number + 1])) for number in range(len(blocks))
            )
        return found

    def _shrunk(self, blocks: list[SuperBlock], sizes: tuple[int, ...]) -> list[SuperBlock]:
        """With kernels that their maps are large enough for."""
        share = self.rules.map_per_kernel
        if share is not None:
            for number, (block, size) in enumerate(zip(blocks, sizes, strict=True)):
                kernel = block.kernel
                while kernel > 1 and kernel * share > size:
                    kernel -= 2
                if kernel != block.kernel:
                    blocks[number] = block.changed(kernel=kernel)
        return blocks


def _bits_of_layers(block: SuperBlock, bits: tuple[int, ...], layers: int) -> tuple[int, ...]:
    """Bits for more or fewer layers: those of new ones are those of the first."""
    per_layer = len(bits) // block.layers
    return (bits + bits[:per_layer] * max(0, layers - block.layers))[: per_layer * layers]
