"""ZenNAS's two spaces: what is drawn, how often, and that it is what the program draws where that is asked for.

The second implementation here works on tuples (name, in, out, stride, bottleneck, layers) and lists every candidate, as
the program does.
"""

from __future__ import annotations

import dataclasses
import re
from collections import Counter
from functools import lru_cache

import numpy as np
import pytest
from scipy.stats import chisquare

from tfnas import InputError
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_counts import reference_counts
from tfnas.spaces.zen.structure_spaces import structure_space
from tfnas.spaces.zen.zen_family import StructureArchitecture
from tfnas.spaces.zen.zoo_networks import facts, names

INITIAL = {
    "cifar": ("zen-xxbl", "init_XXBL_cifar"),
    "flops": ("zen-idw", "init_IDW_imagenet"),
    "latency": ("zen-xxbl", "init_XXBL_imagenet"),
}
COUNTS = {  # entries with repetition and distinct ones, of the program's own lists
    "cifar": ((2, 2), (480, 180), (1680, 630), (3024, 1134), (3024, 1134), (9, 9)),
    "flops": ((2, 2), (3738, 504), (16821, 2268), (21627, 2916), (21627, 2916), (1, 1)),
    "latency": ((7, 7), (3024, 1134), (3888, 1458), (3888, 1458), (3888, 1458), (9, 9)),
}
OF_TYPES = {"cifar": (90, 90, 60, 90, 90, 60), "flops": (504, 504, 462, 420, 378, 336, 294, 252, 210, 168, 126, 84)}
TYPES = {
    "zen-xxbl": [f"SuperResK1K{k}K1" for k in (3, 5, 7)] + [f"SuperResK{k}K{k}" for k in (3, 5, 7)],
    "zen-idw": [f"SuperResIDWE{e}K{k}" for k in (3, 5, 7) for e in (1, 2, 4, 6)],
}
WEIGHTS = {"zen-xxbl": (3, 3, 2, 3, 3, 2), "zen-idw": (12, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2)}
MOST = {"zen-xxbl": {"default": 8192, "program": 2048}, "zen-idw": {"default": 2048, "program": 65536}}


# ---- the second implementation --------------------------------------------------------------------------------------


def rnd8(value):
    return max(8, 8 * round(value / 8))


def ch(width, most):
    found = []
    for value in (*(width * factor for factor in (2.5, 2, 1.5, 1.25, 1)), *(width / by for by in (1.25, 1.5, 2, 2.5))):
        rounded = rnd8(min(max(8, value), most))
        found += [] if rounded in found else [rounded]
    return found


def dp(layers):
    return [layers + step for step in (-2, -1, 0, 1, 2) if layers + step > 0]


def tuples(structure):
    found = []
    for name, numbers in re.findall(r"(\w+)\(([\d,]+)\)", structure.to_text()):
        values = [int(number) for number in numbers.split(",")]
        found.append((name, *values[:3], values[3] if len(values) == 5 else None, values[-1]))
    return found


@lru_cache(maxsize=64)
def candidates(space, variant, block):
    """Every candidate in order, as often as it stands in the list."""
    name, inputs, out, stride, bottleneck, _ = block
    most = MOST[space][variant]
    if bottleneck is None:
        fixed = space == "zen-idw" and "K1" in name
        return [(name, inputs, width, stride, None, 1) for width in ([out] if fixed else ch(out, most))]
    weights = WEIGHTS[space] if variant == "program" else (1,) * 12
    return [
        (kind, inputs, width, stride, inside, layers)
        for kind, weight in zip(TYPES[space], weights, strict=False)
        for _ in range(weight)
        for width in ch(out, most)
        for layers in dp(block[5])
        for inside in ch(bottleneck, most)
    ]


def split(blocks):
    found = []
    for name, inputs, out, stride, bottleneck, layers in blocks:
        if bottleneck is not None and layers >= 6:
            found += [(name, inputs, out, stride, bottleneck, 3), (name, out, out, 1, bottleneck, layers - 3)]
        else:
            found.append((name, inputs, out, stride, bottleneck, layers))
    return found


def mutated(space, variant, blocks, changes, draw):
    """One child; `draw(n)` is a whole number below n."""
    blocks, seen, parent = list(blocks), set(), list(blocks)
    while len(seen) < min(changes, len(parent)):
        number = draw(len(parent))
        changes -= variant == "program" and number in seen
        if number in seen:
            continue
        listed = candidates(space, variant, parent[number])
        chosen = listed[draw(len(listed))]
        if variant == "default" and chosen == parent[number]:
            continue
        seen.add(number)
        blocks[number] = chosen
    for number in range(1, len(blocks)):
        blocks[number] = (blocks[number][0], blocks[number - 1][2], *blocks[number][2:])
    if variant == "program":
        return split(split(blocks))
    while split(blocks) != blocks:
        blocks = split(blocks)
    return blocks


def enumerated(family, block):
    """What the package may draw in the place of a block, every entry."""
    choices = family.mutation.block_choices(block)
    found = []
    for kind, width, layers, bottleneck in map(choices.values, range(choices.num_combinations)):
        numbers = {
            "out_channels": width,
            "layers": layers,
            "bottleneck": bottleneck,
            **(kind._asdict() if kind else {}),
        }
        found += tuples(Structure((dataclasses.replace(block, **numbers),), "zennas"))
    return found


# ---- tests ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("preset", INITIAL)
def test_candidates_are_those_of_the_program(preset):
    space, name = INITIAL[preset]
    family = structure_space(space, variant="program")
    blocks = facts(name).structure.blocks
    listed = [enumerated(family, block) for block in blocks]
    assert tuple((len(entries), len(set(entries))) for entries in listed) == COUNTS[preset]
    for block, entries in zip(tuples(facts(name).structure), listed, strict=True):
        assert entries == candidates(space, "program", block)
        assert block in entries
    if preset in OF_TYPES:
        counted = Counter(entry[0] for entry in listed[1])
        assert tuple(counted[kind] for kind in TYPES[space]) == OF_TYPES[preset]


def test_by_default_every_candidate_is_listed_once():
    for preset, (space, name) in INITIAL.items():
        family = structure_space(space)
        for block, counts in zip(facts(name).structure.blocks, COUNTS[preset], strict=True):
            entries = enumerated(family, block)
            assert len(entries) == len(set(entries))
            # Widths that the program has no room for are there too.
            assert len(entries) == counts[1] or (space == "zen-xxbl" and len(entries) > counts[1])


@pytest.mark.parametrize(("width", "widths", "most"), [
    (8, "16 8", 2048),
    (16, "40 32 24 16 8", 2048),
    (24, "64 48 32 24 16 8", 2048),
    (32, "80 64 48 40 32 24 16", 2048),
    (48, "120 96 72 64 48 40 32 24 16", 2048),
    (64, "160 128 96 80 64 48 40 32 24", 2048),
    (96, "240 192 144 120 96 80 64 48 40", 2048),
    (128, "320 256 192 160 128 104 88 64 48", 2048),
    (2048, "2048 1640 1368 1024 816", 2048),
    (2048, "5120 4096 3072 2560 2048 1640 1368 1024 816", 65536),
    (6704, "2048", 2048),
])  # fmt: skip
def test_widths(width, widths, most):
    family = structure_space("zen-xxbl", overrides={"max_channels": most})
    assert family.mutation.scaled(width) == tuple(map(int, widths.split()))


@pytest.mark.parametrize(
    ("layers", "listed"),
    [(1, {1, 2, 3}), (2, {1, 2, 3, 4}), (3, {*range(1, 6)}), (5, {*range(3, 8)}), (10, {8, 9, 10, 11, 12})],
)
def test_layers(layers, listed):
    block = dataclasses.replace(facts("init_XXBL_cifar").structure.blocks[1], layers=layers)
    assert set(structure_space("zen-xxbl").mutation.block_choices(block).layers) == listed


def test_widths_of_every_multiple_of_8():
    family = structure_space("zen-idw", variant="program")
    for width in range(8, 2049, 8):
        assert family.mutation.scaled(width) == tuple(ch(width, 65536))


@pytest.mark.parametrize(("layers", "program", "default"), [
    (5, [5], [5]), (6, [3, 3], [3, 3]), (8, [3, 5], [3, 5]), (13, [3, 3, 7], [3, 3, 3, 4]),
    (16, [3, 3, 10], [3, 3, 3, 3, 4]),
])  # fmt: skip
def test_deep_blocks_are_split(layers, program, default):
    """Every block that is deep, whether it was drawn or not; the stride stays in front."""
    deep = f"SuperConvK3BNRELU(3,8,1,9)SuperResK3K3(8,16,2,24,{layers})"
    initial = StructureArchitecture(Structure.parse(deep), 32, 10)
    for variant, expected in (("program", program), ("default", default)):
        family = structure_space("zen-xxbl", variant=variant, initial=initial)
        of_the_stem = 0
        for seed in range(40):
            stem, *rest = family.mutate(initial, np.random.default_rng(seed), changes=1).structure.blocks
            if rest[0].out_channels == 16 and rest[0].bottleneck == 24 and stem.out_channels != 8:
                of_the_stem += 1
                assert [block.layers for block in rest] == expected
                assert [block.stride for block in rest] == [2] + [1] * (len(expected) - 1)
                assert {block.in_channels for block in rest[1:]} <= {16}
                assert stem.layers == 1  # a convolution that is drawn; it is never split
        assert of_the_stem > 5


@pytest.mark.parametrize("variant", ["program", "default"])
@pytest.mark.parametrize("preset", INITIAL)
def test_draw_by_draw_as_the_second_implementation(preset, variant):
    """Mutations one after the other, from one stream of numbers."""
    space, name = INITIAL[preset]
    family = structure_space(space, variant=variant)
    generator, twin = np.random.default_rng(7), np.random.default_rng(7)
    start = architecture = StructureArchitecture(facts(name).structure, 224, 100)
    for step in range(25 if space == "zen-idw" else 80):
        changes = 1 + step % 3
        expected = mutated(space, variant, tuples(architecture.structure), changes, lambda n: int(twin.random() * n))
        architecture = family.mutate(architecture, generator, changes=changes)
        assert tuples(architecture.structure) == expected
        assert generator.bit_generator.state == twin.bit_generator.state
        if len(architecture.structure.blocks) > 12:  # a search rejects those
            architecture = start


@pytest.mark.parametrize("variant", ["program", "default"])
@pytest.mark.parametrize("space", TYPES)
def test_blocks_and_types_are_drawn_as_often_as_they_are_listed(space, variant):
    """By chi-square, of the draws that change a block."""
    family = structure_space(space, variant=variant)
    generator, initial = np.random.default_rng(11), tuples(family.initial.structure)
    lists = [[entry for entry in candidates(space, variant, block) if entry != block] for block in initial]
    places, types = Counter(), Counter()
    for _ in range(4000):
        drawn = family.mutate(family.initial, generator, changes=1).structure
        rechained = [(new[0], old[1], *new[2:]) for new, old in zip(tuples(drawn), initial, strict=True)]
        for number, (new, old) in enumerate(zip(rechained, initial, strict=True)):
            places[number] += new != old
            if number in (1, 2, 3, 4) and new != old:
                types[new[0]] += 1
    shares = [len(lists[number]) / len(candidates(space, variant, block)) for number, block in enumerate(initial)]
    assert fits([places[number] for number in range(6)], shares)
    kinds = Counter()
    for number in (1, 2, 3, 4):
        for entry in lists[number]:
            kinds[entry[0]] += 1 / len(candidates(space, variant, initial[number]))
    assert fits([types[kind] for kind in TYPES[space]], [kinds[kind] for kind in TYPES[space]])


def fits(observed, shares):
    """Whether counts are likely under shares; what has none does not occur."""
    pairs = [(count, share) for count, share in zip(observed, shares, strict=True) if share or count]
    total, whole = sum(observed), sum(shares)
    return chisquare([count for count, _ in pairs], [share / whole * total for _, share in pairs]).pvalue > 1e-3


def test_initial_structures_count_as_the_program_counts_them():
    for name, size, params, macs in [
        ("init_XXBL_cifar", 32, 101721, 6550784),
        ("init_IDW_imagenet", 224, 970689, 160553576),
        ("init_XXBL_imagenet", 224, 2841313, 378058368),
    ]:
        counts = reference_counts(facts(name).structure, size, 100)
        assert (counts.layers, counts.params, counts.macs) == (6, params, macs)


def test_published_widths_can_be_reached():
    """Widths that lie above the program's maximum, such as 6704 channels, are within steps of the initial ones."""
    family = structure_space("zen-xxbl")
    reached = new = {512, 128, 64}
    while new:
        new = {width for known in new for width in family.mutation.scaled(known)} - reached
        reached = reached | new
    published = {block.out_channels for name in names() if "latency" in name for block in facts(name).structure.blocks}
    assert {6704, 5304, 2496} <= published <= reached


def test_a_structure_that_cannot_change_says_so():
    fixed = StructureArchitecture(Structure.parse("SuperConvK1BNRELU(3,64,1,1)"), 32, 10)
    family = structure_space("zen-idw", initial=fixed)
    with pytest.raises(InputError, match="no block of the structure can change under the rules of space zen-idw"):
        family.mutate(fixed, np.random.default_rng(0))
    program = structure_space("zen-idw", initial=fixed, variant="program")
    assert program.mutate(fixed, np.random.default_rng(0)) == fixed
