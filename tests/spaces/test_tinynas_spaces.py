"""TinyNAS's seven spaces: variant program against a second implementation, and the sound rules by their properties.

The second implementation works on the dicts of a TinyNAS file, with lists of bits, and draws in the order of the
package: block, field, values.
"""

from __future__ import annotations

import ast
import copy
import dataclasses
import math
from collections import Counter
from itertools import pairwise

import numpy as np
import pytest
from scipy.stats import chisquare

from tfnas import InputError
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_spaces import structure_space, structure_space_names
from tfnas.spaces.zen.zen_family import ZenFamily
from tfnas.spaces.zen.zoo_networks import zoo_architecture

WIDE = (2, 1.5, 1.25, 0.8, 0.6, 0.5)
STEPS = (-2, -1, 1, 2)
RATIOS = (1.5, 2, 2.5, 3, 3.5, 4)
RANGES = (None, None, (64, 128), None, (128, 256), (256, 512))
# Of each space: scales, kernels, ratios of bottlenecks, most channels, least of the stem, layers per unit, blocks that
# the limit on layers is not shared by, most layers of the second block.
SPACES = {
    "tinynas-k1kxk1": ((1.5, 1.25, 0.8, 0.6, 0.5), (3, 5), None, 2048, 8, 3, 2, 3),
    "tinynas-k1kx": (WIDE, None, None, 2048, 8, 2, 2, 2),
    "tinynas-kxkx": (WIDE, None, None, 2048, 8, 2, 2, 2),
    "tinynas-k1dwk1": (WIDE, (3, 5), (*RATIOS, 5, 6), 1280, 8, 3, 3, 3),
    "tinynas-k1dwsek1": (
        tuple(n / 10 for n in range(5, 21)), (3, 5, 7), tuple(n / 10 for n in range(15, 61)), 1280, 16, 3, 3, 3,
    ),
    "tinynas-quant-k1dwk1": (WIDE, (3, 5), RATIOS, 1280, 8, 3, 3, 3),
    "tinynas-3d-k1dwk1": (WIDE, ((1, 3), (1, 5), (3, 3)), RATIOS, 640, 8, 3, 3, 3),
}  # fmt: skip
LIMITS = {"tinynas-k1kxk1": 49, "tinynas-k1kx": 25, "tinynas-kxkx": 20, "tinynas-k1dwk1": 53, "tinynas-k1dwsek1": None}
LIMITS |= {"tinynas-quant-k1dwk1": 47, "tinynas-3d-k1dwk1": 83}
SIZES = {"tinynas-k1kx": 320, "tinynas-kxkx": 320, "tinynas-3d-k1dwk1": 160}
UNCHANGED = {  # of 4000 mutations of the initial structure by the program itself
    "tinynas-k1kxk1": 141, "tinynas-k1dwk1": 131, "tinynas-k1dwsek1": 198, "tinynas-k1kx": 256, "tinynas-kxkx": 265,
    "tinynas-3d-k1dwk1": 161,
}  # fmt: skip


# ---- the second implementation --------------------------------------------------------------------------------------


def rnd8(value):
    return max(8, 8 * round(value / 8))


def dicts(structure):
    return ast.literal_eval(structure.to_text())["best_structures"][0]


class Program:
    """The program's mutation of a list of dicts; `draw(n)` is a whole number below n, `chance()` a number below 1."""

    def __init__(self, name, limit, size, generator):
        self.name, self.limit, self.size, self.generator = name, limit, size, generator
        self.scales, self.kernels, self.ratios, self.most, self.least_stem, self.convs, self.apart, self.second = (
            SPACES[name]
        )

    def draw(self, n):
        return int(self.generator.random() * n)

    def mutate(self, blocks, rounds=2):
        for _ in range(rounds):
            blocks = self.round(blocks)
        return blocks

    def round(self, parent):
        parent = copy.deepcopy(parent)
        for _ in range(len(parent)):
            index = self.draw(len(parent) - 1)
            block = self.mutator(parent, index)
            child = copy.deepcopy(parent)
            child[index] = block
            size = self.size
            for number, entry in enumerate(child):
                if number:
                    entry["in"] = child[number - 1]["out"]
                while entry["k"] > 1 and 1.5 * entry["k"] > size:
                    entry["k"] -= 2
                size = math.ceil(size / entry["s"])
            if (
                self.limit is None
                or sum(self.convs * entry["L"] if "L" in entry else 1 for entry in child) <= self.limit
            ):
                break
        return child

    def mutator(self, parent, index):
        block, following = copy.deepcopy(parent[index]), parent[index + 1]
        if "L" not in block:
            out = min(rnd8(self.scales[self.draw(len(self.scales))] * block["out"]), self.most)
            block["out"] = min(max(self.least_stem, min(32, out)), following["out"])
            return block
        methods = ["out", *(["k"] if self.kernels else []), "btn", "L", *(["nbits"] if "quant" in self.name else [])]
        method = methods[self.draw(len(methods))]
        getattr(self, f"mutate_{method}")(block, following, index, len(parent))
        if self.ratios is None:
            block["btn"] = max(block["btn"], rnd8(block["out"] / 10))
        return block

    def mutate_out(self, block, following, index, count):
        ratio = self.nearest(block) if self.ratios else None
        out = min(rnd8(self.scales[self.draw(len(self.scales))] * block["out"]), self.most)
        if "kx" in self.name and "k1kxk1" not in self.name and RANGES[index]:
            out = min(max(out, RANGES[index][0]), RANGES[index][1])
        if "k1kxk1" in self.name:
            out = min(out, 4 * block["in"])
        out = min(max(out, block["in"]), following["out"])
        if "k1kxk1" in self.name and out < rnd8(following["out"] / 4):
            out = rnd8(following["out"] / 4)
        block["out"] = out
        if ratio:
            block["btn"] = rnd8(out * ratio)
        if self.name in ("tinynas-k1kx", "tinynas-kxkx") and "btn" in following:
            following["btn"] = min(following["btn"], out)

    def nearest(self, block):
        distances = [abs(block["btn"] / block["out"] - ratio) for ratio in self.ratios]
        return self.ratios[distances.index(min(distances))]

    def retried(self, values, present):
        for _ in range(len(values)):
            value = values[self.draw(len(values))]
            if value != present:
                break
        return value

    def mutate_k(self, block, following, index, count):
        if "3d" in self.name:
            block["kt"], block["k"] = self.retried(self.kernels, (block["kt"], block["k"]))
        else:
            block["k"] = self.retried(self.kernels, block["k"])

    def mutate_btn(self, block, following, index, count):
        if self.ratios:
            block["btn"] = rnd8(block["out"] * self.retried(self.ratios, self.nearest(block)))
        else:
            scaled = min(rnd8(self.scales[self.draw(len(self.scales))] * block["btn"]), self.most)
            block["btn"] = min(scaled, block["out"])

    def mutate_L(self, block, following, index, count):
        old = block["L"]
        new = self.retried([max(1, old + step) for step in STEPS], old)
        if index == 1:
            new = min(new, self.second)
        elif self.limit is not None:
            new = min(new, self.limit // self.convs // (count - self.apart))
        block["L"] = new
        for key in ("nbitsA", "nbitsW"):
            if key in block:
                units = [block[key][3 * unit : 3 * unit + 3] for unit in range(old)]
                units = units[:new] + [units[0]] * (new - old)
                block[key] = [bits for unit in units for bits in unit]

    def mutate_nbits(self, block, following, index, count):
        for key in ("nbitsA", "nbitsW"):
            for unit in range(block["L"]):
                if self.generator.random() < 0.9:
                    place = (3, 4, 5, 6).index(block[key][3 * unit]) + (-1, 1)[self.draw(2)]
                    block[key][3 * unit : 3 * unit + 3] = [(3, 4, 5, 6)[min(3, max(0, place))]] * 3


# ---- variant program ------------------------------------------------------------------------------------------------


def opened(name, variant, limit="its own"):
    limit = LIMITS[name] if limit == "its own" else limit
    return structure_space(name, variant=variant, max_layers=limit, image_size=SIZES.get(name, 224))


@pytest.mark.parametrize("tight", [False, True])
@pytest.mark.parametrize("name", SPACES)
def test_program_draw_by_draw_as_the_second_implementation(name, tight):
    """Mutations one after the other from one stream of numbers; `tight` has most tries rejected by the layers."""
    limit = (30 if "kxk1" in name or "dw" in name else 18) if tight else LIMITS[name]
    family = opened(name, "program", limit)
    generator, twin = np.random.default_rng(5), np.random.default_rng(5)
    architecture, program = family.initial, Program(name, limit, family.initial.image_size, twin)
    for step in range(250):
        expected = program.mutate(dicts(architecture.structure))
        architecture = family.mutate(architecture, generator)
        assert architecture.structure == Structure.from_tinynas(expected), step
        assert generator.bit_generator.state == twin.bit_generator.state, step
        if step % 50 == 49:
            architecture = family.initial


@pytest.mark.parametrize("name", UNCHANGED)
def test_program_leaves_as_many_unchanged_as_the_program_itself(name):
    """Within three standard deviations of the difference of two such counts."""
    family, generator = opened(name, "program"), np.random.default_rng(1)
    same = sum(family.mutate(family.initial, generator) == family.initial for _ in range(4000))
    assert abs(same - UNCHANGED[name]) < 3 * math.sqrt(2 * UNCHANGED[name])


def test_a_lowered_bottleneck_outlives_a_rejected_try():
    """Of k1kx: the program lowers the next block's in the parent, whatever becomes of the try."""
    family = opened("tinynas-k1kx", "program", 10)  # the initial structure has 11 layers: every try is rejected
    generator, initial, lowered = np.random.default_rng(3), family.initial.structure.blocks, Counter()
    for _ in range(500):
        found = family.mutate(family.initial, generator, changes=1).structure.blocks
        lowered[
            sum((new.bottleneck or 0) < (old.bottleneck or 0) for new, old in zip(found, initial, strict=True))
        ] += 1
    assert lowered[2] and lowered[3]  # one try lowers one or two


# ---- the sound rules ------------------------------------------------------------------------------------------------


def walk(family, steps, seed=0, restart=40):
    generator, found = np.random.default_rng(seed), [family.initial]
    for step in range(steps):
        found.append(family.mutate(family.initial if step % restart == 0 else found[-1], generator))
    return found


@pytest.mark.parametrize("variant", ["default", "program"])
@pytest.mark.parametrize("name", SPACES)
def test_invariants(name, variant):
    family = opened(name, variant)
    initial, per_unit = family.initial.structure, SPACES[name][5]
    for found in walk(family, 400):
        blocks = found.structure.blocks
        assert Structure.parse(found.structure.to_text()) == found.structure  # checks everything again
        assert dataclasses.replace(found, structure=initial) == family.initial
        assert [block.stride for block in blocks] == [block.stride for block in initial.blocks]
        assert [block.block_type for block in blocks] == [block.block_type for block in initial.blocks]
        assert all(new.in_channels == old.out_channels for old, new in pairwise(blocks))
        assert not any(width % 8 for block in blocks for width in (block.out_channels, block.bottleneck or 8))
        for block in blocks:
            if block.bottleneck is not None:
                assert {len(block.weight_bits), len(block.activation_bits)} == {
                    per_unit * block.layers if "quant" in name else 0
                }
        if variant == "default" and LIMITS[name] is not None:
            assert sum(per_unit * block.layers if block.bottleneck else 1 for block in blocks) <= LIMITS[name]


@pytest.mark.parametrize("name", SPACES)
def test_everything_of_every_block_changes_by_default_and_the_last_one_never_in_the_program(name):
    fields = ("out_channels", "kernel", "temporal_kernel", "bottleneck", "layers", "weight_bits", "activation_bits")
    for variant in ("default", "program"):
        family = structure_space(name, variant=variant, image_size=480)  # 15 pixels at the end: no kernel is too large
        changed = [set() for _ in family.initial.structure.blocks]
        for found in walk(family, 1500, restart=5):
            for seen, new, old in zip(changed, found.structure.blocks, family.initial.structure.blocks, strict=True):
                seen |= {field for field in fields if getattr(new, field) != getattr(old, field)}
        assert changed[0] == {"out_channels"}
        if variant == "program":
            assert changed[-1] <= ({"bottleneck"} if name in ("tinynas-k1kx", "tinynas-kxkx") else set())
            continue
        expected = {"out_channels", "bottleneck", "layers"} | ({"kernel"} if SPACES[name][1] else set())
        expected |= {"temporal_kernel"} if "3d" in name else set()
        bits = {"weight_bits", "activation_bits"} if "quant" in name else set()
        is_conv = family.initial.structure.blocks[-1].bottleneck is None
        assert changed[-1] == ({"out_channels"} if is_conv else expected) | bits
        for seen in changed[1:-1] if is_conv else changed[1:]:
            assert seen == expected | bits


@pytest.mark.parametrize("name", SPACES)
def test_by_default_blocks_and_their_fields_are_drawn_evenly(name):
    """By chi-square: every block as often as every other, and so every field of a block."""
    family = structure_space(name, image_size=480)
    generator, old = np.random.default_rng(2), family.initial.structure.blocks
    drawn, expected = Counter(), {}
    for number, block in enumerate(old):
        fields = ["out", "btn", "L", *(["k"] if SPACES[name][1] else [])] if block.bottleneck else ["out"]
        fields += ["bits"] if "quant" in name and number else []
        expected |= {(number, field): 1 / len(fields) for field in fields}
    for _ in range(3000):
        drawn[changed_field(old, family.mutate(family.initial, generator, changes=1).structure.blocks)] += 1
    assert drawn.keys() == expected.keys()
    shares = np.array([*expected.values()])
    assert chisquare([drawn[pair] for pair in expected], shares / shares.sum() * 3000).pvalue > 1e-3


def changed_field(old, new):
    """The first block that differs, and in what; a new width takes the bottleneck with it, a new length the bits."""
    for number, pair in enumerate(zip(old, new, strict=True)):
        for field, name in (("out", "out_channels"), ("L", "layers"), ("k", "kernel"), ("k", "temporal_kernel"),
                            ("btn", "bottleneck"), ("bits", "weight_bits"), ("bits", "activation_bits")):  # fmt: skip
            if getattr(pair[0], name) != getattr(pair[1], name):
                return number, field
    raise AssertionError("a child that is its parent")


def test_kernels_do_not_outgrow_their_maps():
    """A 7 x 7 kernel needs a map of 11 pixels, a 5 x 5 one of 8; 3 x 3 ones are always there."""
    family = structure_space("tinynas-k1dwsek1", image_size=64)
    for found in walk(family, 300):
        size = 64
        for old, block in zip(family.initial.structure.blocks, found.structure.blocks, strict=True):
            assert block.kernel in (old.kernel, 3) or size >= 1.5 * block.kernel
            size = math.ceil(size / block.stride)


def test_options_of_the_program_apply_to_the_sound_rules_too():
    limits = {"monotone": True, "max_growth": 4, "max_channels": 1024, "stem_channels": [16, 32]}
    family = structure_space("tinynas-k1kxk1", initial=zoo_architecture("R18-like"), overrides=limits)
    for old, found in pairwise(walk(family, 400)):
        widths = [block.out_channels for block in found.structure.blocks]
        assert widths[1:] == sorted(widths[1:]) and max(widths) <= 1024 and 16 <= widths[0] <= 40
        assert found != old


@pytest.mark.parametrize(
    "name",
    ["R18-like", "R50-like", "R152-like", "deepmad-R18", "maedet_s", "maedet_m", "mixed7d0G", "mixed19d2G", "E3D_M"],
)
def test_published_structures_can_be_reached_by_default(name):
    """Every number of every block, in steps that the rules allow, from numbers of the initial structure.

    The program reaches few of them: it never draws the last block, and keeps widths from shrinking.
    """
    target = zoo_architecture(name)
    family = structure_space(ZenFamily(target).mutation.rules.name)
    rules = family.mutation.rules
    assert rules.change_last and rules.change_stem and not rules.monotone and rules.max_growth is None
    widths = {block.out_channels for block in family.initial.structure.blocks} & {16, 24, 32}
    new = set(widths)
    while new:
        new = {rnd8(width * scale) for width in new for scale in rules.width_scales} - widths
        new = {width for width in new if width <= rules.max_channels}
        widths |= new
    for number, block in enumerate(target.structure.blocks):
        assert block.out_channels in widths
        assert number or rules.stem_channels[0] <= block.out_channels <= rules.stem_channels[1]
        assert not number or {*block.weight_bits, *block.activation_bits} <= {*rules.bits}
        if block.bottleneck is None:
            continue
        if rules.bottleneck_ratios:
            assert block.bottleneck in {rnd8(block.out_channels * ratio) for ratio in rules.bottleneck_ratios}
        else:
            least, most = (block.out_channels * share for share in rules.bottleneck_range)
            assert least <= block.bottleneck <= most and block.bottleneck in widths
        assert block.layers <= rules.max_block_layers and (block.temporal_kernel, block.kernel) in rules.kernels


def test_a_published_last_block_is_really_drawn():
    """From the initial structure to 12 layers in the last block, and to fewer channels than the block before has."""
    family, generator = opened("tinynas-k1kxk1", "default", None), np.random.default_rng(0)
    for reached in (
        lambda blocks: blocks[-1].layers >= 12,
        lambda blocks: blocks[-1].out_channels < blocks[-2].out_channels,
    ):
        architecture = family.initial
        for _ in range(5000):
            child = family.mutate(architecture, generator, changes=1)
            if child.structure.blocks[:-1] == architecture.structure.blocks[:-1]:
                architecture = child
            if reached(architecture.structure.blocks):
                break
        assert reached(architecture.structure.blocks)
    quantized = opened("tinynas-quant-k1dwk1", "default")
    bits = {found.structure.blocks[-1].weight_bits for found in walk(quantized, 400)}
    assert bits >= {(3,), (4,), (5,)} and all(
        found.structure.blocks[0].weight_bits == (8,) for found in walk(quantized, 50)
    )


def test_a_limit_on_layers_below_the_initial_structure_says_so():
    with pytest.raises(InputError, match="max_layers must be 1 or more, got 0"):
        structure_space("tinynas-k1kxk1", max_layers=0)
    family = structure_space("tinynas-k1kxk1", max_layers=3)  # it can still change widths
    assert {found.structure.blocks[3].layers for found in walk(family, 100)} == {1}


def test_names():
    assert structure_space_names() == sorted([*SPACES, "zen-idw", "zen-xxbl"])
