"""Structures read and written in both notations, and what is refused."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tfnas import InputError, zoo
from tfnas.spaces.zen.structure import Structure
from tfnas.spaces.zen.structure_counts import real_counts, reference_counts
from tfnas.spaces.zen.super_block import BLOCK_TYPES, SuperBlock

PLAIN = "SuperConvK3BNRELU(3,8,2,1)SuperResK5K5(8,16,1,8,2)SuperResK1K3K1(16,24,2,16,1)SuperResIDWE6K7(24,8,1,24,3)"
STEM = {"class": "ConvKXBNRELU", "in": 3, "out": 8, "s": 2, "k": 3}
BLOCK = {"class": "SuperResK1KXK1", "in": 8, "out": 16, "s": 2, "k": 5, "L": 2, "btn": 4}


def test_a_plain_string_says_every_block():
    conv, basic, bottleneck, inverted = Structure.parse(PLAIN).blocks
    assert conv == SuperBlock(block_type="conv", kernel=3, in_channels=3, out_channels=8, stride=2)
    assert basic == SuperBlock(block_type="kxkx", kernel=5, in_channels=8, out_channels=16, layers=2, bottleneck=8)
    assert bottleneck == SuperBlock(
        block_type="k1kxk1", kernel=3, in_channels=16, out_channels=24, stride=2, bottleneck=16
    )
    assert inverted == SuperBlock(
        block_type="idw", kernel=7, in_channels=24, out_channels=8, layers=3, bottleneck=24, expansion=6
    )


def test_a_literal_says_every_block():
    quantized = {"class": "SuperQuantResK1DWK1", "in": 8, "out": 8, "k": 3, "L": 1, "btn": 12}
    quantized |= {"nbitsA": [8, 7, 6], "nbitsW": [5, 4, 3]}
    stem, block = Structure.parse(str({"best_structures": [[{**STEM, "act": "swish"}, quantized], []]})).blocks
    assert stem == SuperBlock(block_type="conv", kernel=3, in_channels=3, out_channels=8, stride=2, activation="silu")
    assert block == SuperBlock(
        block_type="k1dwk1",
        kernel=3,
        in_channels=8,
        out_channels=8,
        bottleneck=12,
        activation_bits=(8, 7, 6),
        weight_bits=(5, 4, 3),
    )


@pytest.mark.parametrize("name", zoo.names())
def test_writing_and_reading_again_is_lossless(name):
    structure = zoo.facts(name).structure
    assert Structure.parse(structure.to_text()) == structure


def test_a_plain_string_comes_back_as_it_was():
    labelled = PLAIN.replace("(8,", "(stage one|8,", 1)
    assert Structure.parse(f"  {labelled}\n").to_text() == labelled
    assert Structure.parse(labelled) == Structure.parse(PLAIN)


def test_what_it_writes_is_what_tinynas_reads():
    structure = zoo.facts("E3D_S").structure
    text = structure.to_text()
    assert text.startswith(
        "{'best_structures': [[{'class': 'Conv3DKXBNRELU', 'in': 3, 'out': 24, 's': 2, 'k': 3, 'kt': 1}"
    )
    assert text.endswith("'space_arch': 'Cnn3DNet'}")
    assert "'inner_class': 'Res3DK1DWK1'" in text
    assert "'inner_class': 'ResK1DWK1', 'nbitsA': [5," in zoo.facts("mixed7d0G").structure.to_text()


def test_a_file_of_either_notation(tmp_path):
    (tmp_path / "plain.txt").write_text(f"{PLAIN}\n")
    (tmp_path / "literal.txt").write_text(repr([STEM, BLOCK]))
    assert Structure.load(tmp_path / "plain.txt").to_text() == PLAIN
    assert Structure.load(tmp_path / "literal.txt") == Structure.from_tinynas([STEM, BLOCK])
    (tmp_path / "broken.txt").write_text(f"{PLAIN}?")
    with pytest.raises(InputError, match=rf"broken\.txt: character {len(PLAIN) + 1}: expected a block"):
        Structure.load(tmp_path / "broken.txt")
    with pytest.raises(InputError, match=r"none\.txt cannot be read"):
        Structure.load(tmp_path / "none.txt")


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "empty text"),
        ("SuperConvK3BNRELU(3,8,2,1)Super", r"character 27: expected a block .*got 'Super'"),
        ("SuperConvK3BNRELU(3,8,2,1) SuperResK3K3", "character 28: expected a block .*got 'SuperResK3K3'"),
        ("SuperConvK3BNRELU(3,8,2,1),SuperResK3K3(8,8,1,8,1)", "character 27: expected a block .*got ',Super"),
        ("SuperConvK3BNRELU(3,8,2,1) # stem", "character 28: expected a block .*got '# stem'"),
        ("SuperConvK3BNRELU(3,8,2,1)\nSuperResK3K3(8,8,1,8,1)\n  and more", "line 3, character 3: expected a block"),
        ("# one\nSuperConvK3BNRELU(3,8,2,1)\n\nSuperResK3K9(8,8,1,8,1)", "line 4, character 1, block 2: .*no super"),
        ("SuperConvK3BNRELU(stage\none|3,8,2,1)", "a label must be text on one line"),
        ("# nothing\n#but comments", "an empty text is not a structure"),
        ("SuperConvK3BNRELU(3,65537,2,1)", "out_channels must be 65536 at most, got 65537"),
        ("SuperConvK3BNRELU(3,8,999999999,1)", "stride must be 255 at most, got 999999999"),
        ("SuperConvK2BNRELU(3,8,2,1)", "character 1, block 1: .*no super-block has this name"),
        ("SuperResK3K5(3,8,2,8,1)", "no super-block has this name"),
        ("Sequential(ConvKX(3,8,3,1))", "character 1: expected a block"),
        ("SuperConvK3BNRELU(3,8,2)", r"expected 4 numbers \(in, out, stride, layers\), got 3"),
        ("SuperResK3K3(3,8,2,1)", "expected 5 numbers .*got 4"),
        ("SuperConvK3BNRELU(3,8,2,1.5)", "expected whole numbers with commas between them, got '1.5'"),
        ("SuperConvK3BNRELU(3,-8,2,1)", "got '-8'"),
        ("SuperConvK3BNRELU(3,0,2,1)", "character 1, block 1: .*out_channels must be a whole number from 1 on, got 0"),
        ("SuperConvK3BNRELU(3,8,2,99999999)", "layers must be 1000 at most"),
        ("SuperConvK3BNRELU(3,99999999999999999999,2,1)", "expected whole numbers"),
        ("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(9,8,1,8,1)", r"block 2 of 2 \(kxkx\): channels do not match: .*9.*8"),
        ("SuperConvK3BNRELU(3,८,2,1)", "expected whole numbers"),
        ("x" * 1_000_001, "1000001 characters"),
    ],
)  # fmt: skip
def test_malformed_strings_are_refused_with_place_and_reason(text, message):
    with pytest.raises(InputError, match=message):
        Structure.parse(text)


def changed(**changes):
    return [STEM, {key: value for key, value in {**BLOCK, **changes}.items() if value is not ...}]


@pytest.mark.parametrize(
    ("document", "message"),
    [
        ({}, "no 'best_structures', only nothing"),
        ({"best_structures": 3}, "expected a list of blocks, got a int"),
        ([], "needs one block"),
        ([STEM, 3], "block 2 of 2: expected a dict, got 3"),
        (changed(**{"class": "SuperResK9"}), "block 2 of 2: no class 'SuperResK9'; known are ConvKXBNRELU"),
        (changed(**{"class": []}), r"no class \[\]"),
        (changed(btn=...), "SuperResK1KXK1 needs 'btn'"),
        (changed(L=True), "L must be a whole number, got True"),
        (changed(k=4), "kernel must be odd, got 4"),
        (changed(s=3), "stride must be 1 or 2, got 3"),
        (changed(width=4), "has no field 'width'"),
        (changed(p=1), r"p \(padding\) must be 2"),
        (changed(kt=3), "is for images and has no kt"),
        (changed(act="relu"), "activation can be chosen for plain convolutions only"),
        (changed(g=3), "8 channels cannot be split into 3 groups"),
        (changed(inner_class="ResKXKX"), "inner_class of SuperResK1KXK1 is ResK1KXK1, got 'ResKXKX'"),
        (changed(nbitsA=[4] * 6, nbitsW=[0] * 6), "bits must be a whole number from 1 on, got 0"),
        (changed(nbitsA=[2**63], nbitsW=8), "bits must be 64 at most, got 9223372036854775808"),
        (changed(out=2**63), r"block 2 of 2 \(SuperResK1KXK1\): out_channels must be 65536 at most"),
        (changed(k=2**63 - 1), "kernel must be 255 at most"),
        (
            changed(**{"class": "SuperResConvK1KX"}, inner_class="ResK1KX"),
            "inner_class of SuperResConvK1KX is ResConvK1KX",
        ),
        ([[STEM], STEM], r"structure 1 \(from 0\): expected a list of blocks, got {'class'"),
        (changed(**{"class": "SuperQuantResK1DWK1"}), "needs nbitsA and nbitsW"),
        (
            changed(**{"class": "SuperQuantResK1DWK1"}, nbitsA=[4] * 6, nbitsW=[4] * 5),
            "block 2 of 2 .*need 6 numbers each, one per convolution, got 6 and 5",
        ),
        (changed(**{"class": "SuperQuantResK1DWK1"}, nbitsA=[4] * 6, nbitsW=[4.5] * 6), "bits must be a whole number"),
        (changed(**{"class": "SuperRes3DK1DWK1"}, kt=3), "images and blocks for videos cannot be in one network"),
        (changed(**{"in": 9}), "block 2 of 2 .*channels do not match: it expects 9, the previous block outputs 8"),
    ],
)
def test_malformed_documents_are_refused_with_place_and_reason(document, message):
    with pytest.raises(InputError, match=message):
        Structure.from_tinynas(document)
    with pytest.raises(InputError, match=message):
        Structure.parse(repr(document) if document else json.dumps(document))


LINES = """\ufeff# found in April

    # the stem
SuperConvK3BNRELU( 3, 8,\t2, 1)   SuperResK5K5(8,16,1,8, 2)
\u00a0SuperResK1K3K1(16,24,2,16,1)\r
#SuperResK3K3(8,8,1,8,1)
SuperResIDWE6K7(
    24, 8, 1, 24, 3)

"""


def test_a_text_over_several_lines_is_read_whole(tmp_path):
    assert Structure.parse(LINES).to_text() == PLAIN
    (tmp_path / "structure.txt").write_text(LINES, encoding="utf-8")
    assert Structure.load(tmp_path / "structure.txt").to_text() == PLAIN
    for ends in ("\r", "\r\n"):
        assert Structure.parse(LINES.replace("\r", "").replace("\n", ends)).to_text() == PLAIN
    text = zoo.facts("zennet_imagenet1k_flops400M_res224").structure.to_text()
    over_lines = Structure.parse(text.replace(")", ")\n"))
    assert over_lines == Structure.parse(text)
    assert reference_counts(over_lines, 224) == reference_counts(Structure.parse(text), 224)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.lists(st.text(" \t\n\r\u00a0\u2003", max_size=5), min_size=5, max_size=5))
def test_white_space_between_blocks_means_nothing(spaces):
    names = [part + ")" for part in PLAIN.split(")")[:-1]]
    text = "".join(space + name for space, name in zip(spaces, names, strict=False)) + spaces[-1]
    assert Structure.parse(text).to_text() == PLAIN


@pytest.mark.parametrize("cut", range(len(PLAIN)))
def test_a_text_that_is_cut_is_refused_or_ends_at_a_block(cut):
    try:
        found = Structure.parse(PLAIN[:cut])
    except InputError:
        return
    assert PLAIN[:cut].endswith(")") and found.to_text() == PLAIN[:cut]


def test_a_literal_may_have_comments_blank_lines_and_a_byte_order_mark():
    text = f"\ufeff\n# from a search\n\n   [{STEM},\n   # its only block\n {BLOCK}]  # and its end\n\n"
    assert Structure.parse(text) == Structure.from_tinynas([STEM, BLOCK])
    with pytest.raises(InputError, match="line 4, character 5: "):
        Structure.parse(text.replace("[{", "[}{", 1))
    with pytest.raises(InputError, match="line 2, character 10: duplicate key 'in' in one dict"):
        Structure.parse(f"[{STEM},\n{{'in': 3,'in': 4}}]")


# ---- files with several structures --------------------------------------------------------------------------------


@pytest.mark.parametrize("named", [True, False])
def test_of_several_structures_one_must_be_named(tmp_path, named):
    several = [[STEM, BLOCK], [], [STEM]]
    document = {"best_structures": several, "space_arch": "CnnNet"} if named else several
    (tmp_path / "best_structure.txt").write_text(repr(document))
    for read in (
        lambda index: Structure.load(tmp_path / "best_structure.txt", index),
        lambda index: Structure.parse(repr(document), index),
        lambda index: Structure.from_tinynas(document, index),
    ):
        assert read(0) == Structure.from_tinynas([STEM, BLOCK])
        assert read(2) == Structure.from_tinynas([STEM])
        message = (
            r"it contains 2 structures, best first: select one with index=0 to 2, "
            r"as in Structure\.parse\(text, index=0\)$"
        )
        with pytest.raises(InputError, match=message):
            read(None)
        for index in (-1, 3):
            with pytest.raises(InputError, match=f"index is {index}, but it contains 3 structures"):
                read(index)
        with pytest.raises(InputError, match="needs one block"):
            read(1)


def test_one_structure_needs_no_index():
    assert Structure.from_tinynas({"best_structures": [[STEM]]}, 0) == Structure.from_tinynas([STEM])
    assert Structure.parse(PLAIN, 0) == Structure.parse(PLAIN)
    with pytest.raises(InputError, match="index is 1, but a text of notation zennas contains one structure"):
        Structure.parse(PLAIN, 1)


# ---- files of DAMO-YOLO and of TinyNAS's first version -------------------------------------------------------------


def first_version(name, layers, bits, **fields):
    """A block as those files write it: names of the first version, and bits in a network of floats."""
    fields = {"in": 24, "out": 64, "btn": 24, "s": 2, "k": 3, **fields}
    fields = {"nbitsA": [8] * bits, "nbitsW": [8] * bits, **fields}
    return {"class": f"Super{name}", "inner_class": name, "L": layers, **fields}


BITS_STEM = {"class": "ConvKXBNRELU", "in": 3, "k": 3, "nbitsA": 8, "nbitsW": 8, "out": 24, "s": 1}


@pytest.mark.parametrize(("name", "convs"), [("K1KX", 2), ("KXKX", 2), ("K1KXK1", 3)])
@pytest.mark.parametrize("surplus", [-2, 0, 2])
def test_blocks_of_the_first_version_are_those_of_the_present_one(name, convs, surplus):
    """Their files hold too few bits, and too many: facts, which mean something where each convolution has its own."""
    block = first_version(f"ResConv{name}", 2, 2 * convs + surplus)
    found = Structure.from_tinynas([BITS_STEM, block])
    plain = Structure.from_tinynas(
        [
            {key: value for key, value in BITS_STEM.items() if "nbits" not in key},
            {"class": f"SuperRes{name}", **{key: block[key] for key in ("in", "out", "btn", "s", "k", "L")}},
        ]
    )
    assert found.blocks[1] == dataclasses.replace(
        plain.blocks[1], weight_bits=(8,) * (2 * convs + surplus), activation_bits=(8,) * (2 * convs + surplus)
    )
    assert found.blocks[1].block_type == name.lower()
    assert reference_counts(found, 64) == reference_counts(plain, 64)  # 8 bits count as floats do
    assert real_counts(found, 64) == real_counts(plain, 64)
    text = found.to_text()
    assert f"'class': 'SuperRes{name}'" in text and f"'nbitsA': {[8] * (2 * convs + surplus)}" in text
    assert Structure.parse(text) == found and Structure.parse(text).to_text() == text


# Backbones of DAMO-YOLO: class and stem width, then L, btn, out, stride and how many bits, of each block.
# Their names are the most layers that they were allowed.
DAMO_YOLO = {
    "L20": "K1KX 24 | 2 24 64 2 4 | 2 64 96 2 4 | 2 96 192 2 4 | 2 152 192 1 4 | 1 192 384 2 2",
    "L25": "K1KX 32 | 1 24 128 2 2 | 5 88 128 2 10 | 3 128 256 2 6 | 2 120 256 1 4 | 1 144 512 2 2",
    "L35": "KXKX 32 | 2 64 128 2 4 | 4 64 128 2 8 | 4 256 256 2 8 | 4 256 256 1 8 | 3 256 512 2 6",
    "L45": "KXKX 32 | 3 96 128 2 4 | 5 96 128 2 8 | 5 384 256 2 8 | 5 384 256 1 8 | 4 384 512 2 6",
}


@pytest.mark.parametrize("name", DAMO_YOLO)
def test_the_backbones_of_damo_yolo_are_read(name):
    stem, *rows = (part.split() for part in DAMO_YOLO[name].split("|"))
    blocks, channels = [{**BITS_STEM, "out": int(stem[1])}], int(stem[1])
    for row in rows:
        layers, bottleneck, out, stride, bits = map(int, row)
        fields = {"in": channels, "btn": bottleneck, "out": out, "s": stride}
        blocks.append(first_version(f"ResConv{stem[0]}", layers, bits, **fields))
        channels = out
    found = Structure.parse("  [ " + ",\n    ".join(map(repr, blocks)) + "\n]\n")
    assert int(name[1:]) - 1 <= reference_counts(found, 640).layers <= int(name[1:])
    assert [len(block.weight_bits) for block in found.blocks] == [1, *(int(row[-1]) for row in rows)]
    assert Structure.parse(found.to_text()) == found


def test_bits_of_a_float_block_count_where_each_convolution_has_its_own():
    """By hand: weights times bits / 8, multiplications times both / 64; the shortcut has the first convolution's."""
    block = first_version("ResConvK1KX", 1, 2, nbitsA=[4, 2], nbitsW=[6, 3])
    found = Structure.from_tinynas([{"class": "ConvKXBNRELU", "in": 3, "out": 24, "k": 1}, block])
    weights = 24 * 24, 24 * 64 * 9, 24 * 64
    params = 3 * 24 + 2 * 24 + weights[0] * 6 / 8 + 48 + weights[1] * 3 / 8 + 128 + weights[2] * 6 / 8 + 128
    assert reference_counts(found, 8).params == params
    per_pixel = (weights[0] * 24 / 64 + 48 + 24) + (weights[1] * 6 / 64 + 128 + 64) / 4
    per_pixel += 24 + (weights[2] * 24 / 64 + 128 + 64) / 4
    assert reference_counts(found, 8).macs == pytest.approx(64 * (3 * 24 + 48 + 24 + per_pixel), rel=1e-12)
    one_short = dataclasses.replace(found.blocks[1], weight_bits=(6,))
    floats = dataclasses.replace(found.blocks[1], weight_bits=(), activation_bits=())
    counts = [reference_counts(Structure((found.blocks[0], b), "tinynas"), 8) for b in (one_short, floats)]
    assert counts[0] == counts[1]


def test_a_quantised_file_of_the_first_version_is_the_present_ones():
    present = Structure.parse(zoo.facts("mixed7d0G").structure.to_text())
    assert Structure.parse(present.to_text().replace("SuperQuantRes", "SuperRes")) == present


def test_bits_may_be_one_number_or_stand_alone():
    for fields in ({"nbitsA": 8}, {"nbitsW": [8]}, {"nbitsA": 8, "nbitsW": [4, 4]}):
        found = Structure.from_tinynas([STEM, {**BLOCK, **fields}])
        assert Structure.parse(found.to_text()) == found
        assert reference_counts(found, 64) == reference_counts(Structure.from_tinynas([STEM, BLOCK]), 64)
        stem = Structure.from_tinynas([{**STEM, **fields}])
        assert Structure.parse(stem.to_text()) == stem


# ---- any numbers --------------------------------------------------------------------------------------------------

ANY_NUMBER = st.one_of(
    st.integers(-2, 40), st.sampled_from([255, 256, 257, 1000, 65_535, 65_536, 65_537, 2**63, 10**400])
)


@st.composite
def fields_of_structures(draw, notation):
    """The fields of the blocks of a structure that can stand, of one to three blocks."""
    channels, made = draw(st.integers(1, 40)), []
    bits = st.lists(st.integers(1, 8), max_size=3).map(tuple)
    for _ in range(draw(st.integers(1, 3))):
        block_type = draw(st.sampled_from(sorted(name for known, name in BLOCK_TYPES if known == notation)))
        fields = {"block_type": block_type, "kernel": draw(st.sampled_from([3, 5, 7])), "in_channels": channels}
        fields["out_channels"] = channels = draw(st.integers(1, 40))
        fields |= {"stride": draw(st.sampled_from([1, 2])), "layers": draw(st.integers(1, 4))}
        if block_type != "conv":
            fields["bottleneck"] = draw(st.integers(1, 40))
        if block_type == "idw":
            fields["expansion"] = draw(st.sampled_from([1, 2, 4, 6]))
        if notation == "tinynas":
            fields |= {"weight_bits": draw(bits), "activation_bits": draw(bits)}
            fields["layers"] = 1 if block_type == "conv" else fields["layers"]
        made.append(fields)
    return made


def as_structure(made, notation):
    return Structure(tuple(SuperBlock(**fields) for fields in made), notation)


@settings(max_examples=100, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(["zennas", "tinynas"]))
def test_every_structure_survives_its_text(data, notation):
    structure = as_structure(data.draw(fields_of_structures(notation)), notation)
    assert Structure.parse(structure.to_text()) == structure
    reference_counts(structure, 32)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data(), st.sampled_from(["zennas", "tinynas"]))
def test_whatever_its_numbers_are_a_structure_is_refused_or_survives_its_text(data, notation):
    made = data.draw(fields_of_structures(notation))
    names = ("kernel", "in_channels", "out_channels", "stride", "layers", "bottleneck", "expansion", "temporal_kernel")
    for _ in range(data.draw(st.integers(1, 2))):
        fields, name = data.draw(st.sampled_from(made)), data.draw(st.sampled_from([*names, "groups", "weight_bits"]))
        number = data.draw(ANY_NUMBER)
        fields[name] = (number,) if name == "weight_bits" else number
    try:
        structure = as_structure(made, notation)
    except InputError:
        return
    again = Structure.parse(structure.to_text())
    assert again.to_text() == structure.to_text()
    assert reference_counts(again, 32) == reference_counts(structure, 32)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{'class': ", "line 1, character"),
        ("[{'class': 'ConvKXBNRELU',\n 'in': 3,, }]", "line 2, character"),
        ("[print('run')]", "only lists, dicts, text and numbers"),
        ("[__import__('os').system('true')]", "only lists, dicts, text and numbers"),
        ("[" * 100_000, "line 1|nested too deeply"),
    ],
)
def test_what_is_no_literal_is_refused_and_not_run(text, message, capsys):
    with pytest.raises(InputError, match=message):
        Structure.parse(text)
    assert not capsys.readouterr().out


def test_what_has_no_name_in_a_notation_cannot_stand_in_it():
    first, second, *_ = Structure.parse(PLAIN).blocks
    for block, message in [
        (dataclasses.replace(second, kernel=9), "no super-block has this name"),
        (dataclasses.replace(second, groups=2), "neither time, bits, groups"),
        (dataclasses.replace(second, block_type="k1kx"), "no such block type in notation zennas, which has conv, kxkx"),
    ]:
        with pytest.raises(InputError, match=message):
            Structure((first, block), "zennas")
    video = dataclasses.replace(second, block_type="k1kx", temporal_kernel=3)
    with pytest.raises(InputError, match="no class of TinyNAS is a k1kx of this kind"):
        Structure((dataclasses.replace(first, temporal_kernel=1), video), "tinynas")


def test_a_hash_is_that_of_equal_structures_in_every_process():
    """Its cached value is in pickles, so that it may not depend on the process: texts and None stay out of it."""
    code = (
        "import pickle, sys; from tfnas import zoo\n"
        "structures = [zoo.facts(name).structure for name in ('init_IDW_imagenet', 'mixed7d0G', 'E3D_S')]\n"
        "given = sys.stdin.buffer.read()\n"
        "assert not given or {*pickle.loads(given)} == {*structures}\n"
        "assert [hash(structure.blocks[1]) for structure in structures]\n"
        "sys.stdout.buffer.write(pickle.dumps(structures))"
    )
    pickled = b""
    for seed in ("1", "2"):
        environment = {**os.environ, "PYTHONHASHSEED": seed}
        done = subprocess.run(
            [sys.executable, "-c", code], input=pickled, env=environment, capture_output=True, check=True
        )
        pickled = done.stdout
    known = zoo.facts("mixed7d0G").structure
    assert hash(known) == hash(Structure.parse(known.to_text())) != hash(zoo.facts("mixed19d2G").structure)
