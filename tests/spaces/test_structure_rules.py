"""Structure spaces in YAML: read, extended, refused with file and field; and the same children in every process."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from dataclasses import MISSING, fields
from pathlib import Path

import numpy as np
import pytest
import yaml

from tfnas import InputError
from tfnas.core.units import PLAIN
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_rules import StructureRules, structure_rules
from tfnas.spaces.zen.structure_spaces import structure_space
from tfnas.spaces.zen.zen_family import StructureArchitecture, ZenFamily
from tfnas.spaces.zen.zoo_networks import facts, names, zoo_architecture

OWN = """
name: own
notation: zennas
initial: i3x24_n7:SuperConvK3BNRELU(3,16,2,1)SuperResK3K3(16,32,2,16,2)SuperResK1K5K1(32,32,1,16,1)
change: field
types: [[SuperResK3K3, SuperResK5K5], [SuperResK1K5K1]]
width_scales: [2, 1/2]
layer_steps: [-1, 1]
bottleneck_range: [1/4, 1]
max_channels: 64
stem_channels: [8, 24]
max_block_layers: 3
"""


def file(tmp_path, text):
    path = tmp_path / "mine.yaml"
    path.write_text(text if isinstance(text, str) else yaml.safe_dump(text))
    return str(path)


def test_a_space_of_ones_own(tmp_path):
    family = structure_space(file(tmp_path, OWN))
    assert (family.initial.image_size, family.initial.num_classes) == (24, 7)
    generator, seen, architecture = np.random.default_rng(0), set(), family.initial
    for _ in range(500):
        architecture = family.mutate(architecture, generator)
        stem, *rest = architecture.structure.blocks
        assert stem.out_channels in (8, 16, 24)
        for block in rest:
            assert block.out_channels <= 64 and block.layers <= 3
            assert block.out_channels / 4 <= block.bottleneck <= block.out_channels
            seen.add((block.block_type, block.kernel))
    assert seen == {("kxkx", 3), ("kxkx", 5), ("k1kxk1", 5)}


def test_layers_of_zennas_are_counted_as_its_program_does(tmp_path):
    family = structure_space(file(tmp_path, OWN), max_layers=5)
    generator, architecture, most = np.random.default_rng(0), family.initial, 0
    for _ in range(300):
        architecture = family.mutate(architecture, generator)
        most = max(most, sum(block.layers for block in architecture.structure.blocks))
    assert most == 5


def test_a_space_extends_another(tmp_path):
    path = file(tmp_path, {"extends": "tinynas-k1kxk1", "max_channels": 512, "program": {"max_growth": 2}})
    own, known = structure_rules(path), structure_rules("tinynas-k1kxk1")
    assert (own.name, own.max_channels, own.kernels) == ("mine", 512, known.kernels)
    program = structure_rules(path, "program")
    assert (program.max_growth, program.max_channels, program.monotone) == (2, 2048, True)
    assert structure_rules(path, "program", {"max_channels": 1024}).max_channels == 1024
    assert structure_rules("zen-xxbl").split_layers == 6
    assert structure_rules("zen-xxbl", overrides={"split_layers": None}).split_layers is None


@pytest.mark.parametrize(("change", "message"), [
    ({"notation": "zenas"}, "notation must be zennas or tinynas, got 'zenas'"),
    ({"change": "fields"}, "change must be block or field, got 'fields'"),
    ({"types": [["SuperResK4K4"]]}, "types: no super-block has this name"),
    ({"types": [["SuperConvK3BNRELU"]]}, "types: SuperConvK3BNRELU is no residual block"),
    ({"types": []}, "types must not be empty"),
    ({"types": ["SuperResK3K3"]}, r"types\[0\] must be a list, got 'SuperResK3K3'"),
    ({"width_scales": [2, 0]}, r"width_scales\[1\] must be above 0"),
    ({"width_scales": [2, "1/0"]}, r"width_scales\[1\] must be a number such as 0.5 or 2/3"),
    ({"width_scales": [2, "half"]}, r"width_scales\[1\] must be a number"),
    ({"width_scales": 2}, "width_scales must be a list, got 2"),
    ({"layer_steps": [1.5]}, r"layer_steps\[0\] must be a whole number, got 1.5"),
    ({"max_channels": 100}, "max_channels must be a multiple of 8, got 100"),
    ({"max_channels": 10**9}, "max_channels must be 8 to 65536"),
    ({"stem_channels": [32, 16]}, "stem_channels must be the least and the largest, got 32 and 16"),
    ({"stem_channels": [16]}, "stem_channels must be 2 numbers, got 1"),
    ({"max_chanels": 64}, "unknown field max_chanels"),
    ({"kernels": [3, 5]}, "kernels is for notation tinynas"),
    ({"split_layers": 6}, "split_layers has a meaning with change: block only, and change is field"),
    ({"bottleneck_ratios": [2]}, "bottleneck_range and bottleneck_ratios exclude each other"),
    ({"bottleneck_range": None}, "bottleneck_range or bottleneck_ratios must be given"),
    ({"monotone": 1}, "monotone must be true or false, got 1"),
    ({"initial": "R50-likely"}, "space own: initial: expected a block such as|space own: initial: .*R50-likely"),
    ({"initial": "deepmad-R18"}, "the structure is of notation tinynas, those of space own of zennas"),
    ({"initial": "init_IDW_imagenet"}, r"block 2 of 6 \(idw\) has no place in space own, whose blocks are"),
    ({"program": {"max_channels": "x"}}, "program.max_channels must be a whole number, got 'x'"),
    ({"program": {"extra": 1}}, "unknown field program.extra"),
    ({"program": 3}, "program must be a mapping, got 3"),
])  # fmt: skip
def test_a_wrong_space_names_file_and_field(tmp_path, change, message):
    path = file(tmp_path, {**yaml.safe_load(OWN), **change})
    with pytest.raises(InputError, match=message) as raised:
        structure_space(path)
    assert path in str(raised.value) or "space own" in str(raised.value)


@pytest.mark.parametrize(("change", "message"), [
    ({"kernels": [3, [1, 3]]}, r"kernels must be all of images \(3\) or all of videos"),
    ({"kernels": [4]}, r"kernels\[0\] must be odd, got 4"),
    ({"change": "block", "kernels": [3]}, "has a meaning with change: field only|change: block is for notation zennas"),
    ({"bits": [0]}, r"bits\[0\] must be 1 to 64, got 0"),
])  # fmt: skip
def test_a_wrong_space_of_tinynas(tmp_path, change, message):
    with pytest.raises(InputError, match=message):
        structure_space(file(tmp_path, {"extends": "tinynas-k1kxk1", **change}))


def test_what_is_no_space(tmp_path):
    with pytest.raises(InputError, match=r"no space 'zen-xxb': give one of tinynas-3d-k1dwk1, .* or a YAML file"):
        structure_space("zen-xxb")
    with pytest.raises(InputError, match="variant must be default or program, got 'paper'"):
        structure_space("zen-xxbl", variant="paper")
    with pytest.raises(InputError, match="there is no variant program of it"):
        structure_space(file(tmp_path, OWN), variant="program")
    with pytest.raises(
        InputError, match=r"block 1 of 7 \(conv\) needs bits of 1 weights and inputs in space tinynas-quant-k1dwk1"
    ):
        structure_space("tinynas-quant-k1dwk1", initial=zoo_architecture("init:classification/MBV2_FLOPs"))
    (tmp_path / "broken.yaml").write_text("a: [")
    with pytest.raises(InputError, match=r"broken\.yaml is not YAML"):
        structure_space(str(tmp_path / "broken.yaml"))


def test_every_structure_of_the_zoo_has_a_space():
    for name in names():
        rules = ZenFamily(zoo_architecture(name)).mutation.rules
        assert rules.is_video == facts(name).structure.is_video and rules.notation == facts(name).structure.notation
        assert {block.block_type for block in facts(name).structure.blocks} <= {PLAIN, *rules.block_types}
    mixed = "SuperConvK3BNRELU(3,8,1,1)SuperResK3K3(8,16,1,8,1)SuperResIDWE1K3(16,16,1,8,1)"
    with pytest.raises(
        InputError, match="no structure space has blocks of the types idw, kxkx together: give the space"
    ):
        ZenFamily(StructureArchitecture(Structure.parse(mixed))).sample(np.random.default_rng(0))


def test_a_structure_of_another_space_is_not_mutated():
    with pytest.raises(InputError, match="the structure is of notation tinynas, those of space zen-xxbl of zennas"):
        ZenFamily().mutate(zoo_architecture("R18-like"), np.random.default_rng(0))
    with pytest.raises(InputError, match=r"block 2 of 6 \(idw\) has no place in space zen-xxbl"):
        ZenFamily().mutate(zoo_architecture("init_IDW_imagenet"), np.random.default_rng(0))


def test_groups_that_widths_cannot_be_divided_into_are_not_drawn():
    blocks = [
        {"class": "ConvKXBNRELU", "in": 3, "k": 3, "out": 32, "s": 2},
        {"class": "SuperResK1KXK1", "in": 32, "k": 3, "out": 96, "s": 2, "L": 1, "btn": 48, "g": 16},
        {"class": "SuperResK1KXK1", "in": 96, "k": 3, "out": 96, "s": 1, "L": 1, "btn": 48, "g": 3},
    ]
    for variant in ("default", "program"):
        family = structure_space(
            "tinynas-k1kxk1", variant=variant, initial=StructureArchitecture(Structure.from_tinynas(blocks))
        )
        generator, architecture, widths = np.random.default_rng(0), family.initial, set()
        for _ in range(300):
            architecture = family.mutate(architecture, generator)
            assert Structure.parse(architecture.structure.to_text()) == architecture.structure
            widths.add(architecture.structure.blocks[1].out_channels)
        assert len(widths) > 1 and not any(width % 48 for width in widths)


def test_children_are_the_same_in_every_process():
    """Whatever the order is in which it keeps sets of texts, and whatever it has drawn before."""
    code = (
        "import sys, hashlib, numpy\n"
        "from tfnas.spaces.zen.structure_spaces import structure_space_names, structure_space\n"
        "names = structure_space_names() if sys.argv[1] == '1' else structure_space_names()[::-1]\n"
        "for name in names:\n"
        "    for variant in ('default', 'program'):\n"
        "        family = structure_space(name, variant=variant, max_layers=60)\n"
        "        generator, found = numpy.random.default_rng(5), family.initial\n"
        "        for _ in range(40):\n"
        "            found = family.mutate(found, generator)\n"
        "        text = found.to_text() + family.sample(generator).to_text()\n"
        "        print(name, variant, hashlib.sha256(text.encode()).hexdigest())\n"
    )
    outputs = []
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code, seed], env=environment, capture_output=True, text=True, check=True
        )
        outputs.append(done.stdout)
    assert sorted(outputs[0].splitlines()) == sorted(outputs[1].splitlines()) and outputs[0] != outputs[1]
    assert outputs[0].count("\n") == 18


def test_the_documentation_has_every_field(tmp_path):
    page = (Path(__file__).parents[2] / "docs" / "spaces.md").read_text(encoding="utf-8")
    blocks = re.findall(r"```yaml\n(.*?)```", page.partition("## Structure spaces")[2], re.DOTALL)
    short, complete = (yaml.safe_load(block) for block in blocks)
    assert {*complete, "bottleneck_ratios"} == {item.name for item in fields(StructureRules)} | {"program"}
    required = {item.name for item in fields(StructureRules) if item.default is MISSING}
    assert {line.partition(":")[0] for line in blocks[1].partition("changes:")[0].splitlines()} == required
    of_blocks = ("type_weights", "split_layers", "max_splits")
    rules = structure_rules(file(tmp_path, {key: value for key, value in complete.items() if key not in of_blocks}))
    assert rules.bottleneck_range == (1 / 16, 1) and rules.block_channels == (None, (64, 128))
    rules = structure_rules(file(tmp_path, {**short, "initial": "R18-like"}))
    assert (rules.max_channels, rules.monotone) == (512, True)
