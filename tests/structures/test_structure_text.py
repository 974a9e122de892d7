"""Structures read and written in both notations, and what is refused."""

from __future__ import annotations

import dataclasses
import json

import pytest

from tfnas import InputError, zoo
from tfnas.structures import Structure, SuperBlock

PLAIN = "SuperConvK3BNRELU(3,8,2,1)SuperResK5K5(8,16,1,8,2)SuperResK1K3K1(16,24,2,16,1)SuperResIDWE6K7(24,8,1,24,3)"
STEM = {"class": "ConvKXBNRELU", "in": 3, "out": 8, "s": 2, "k": 3}
BLOCK = {"class": "SuperResK1KXK1", "in": 8, "out": 16, "s": 2, "k": 5, "L": 2, "btn": 4}


def test_a_plain_string_says_every_block():
    conv, basic, bottleneck, inverted = Structure.parse(PLAIN).blocks
    assert conv == SuperBlock(family="conv", kernel=3, in_channels=3, out_channels=8, stride=2)
    assert basic == SuperBlock(family="kxkx", kernel=5, in_channels=8, out_channels=16, layers=2, bottleneck=8)
    assert bottleneck == SuperBlock(family="k1kxk1", kernel=3, in_channels=16, out_channels=24, stride=2, bottleneck=16)
    assert inverted == SuperBlock(
        family="idw", kernel=7, in_channels=24, out_channels=8, layers=3, bottleneck=24, expansion=6
    )


def test_a_literal_says_every_block():
    quantized = {"class": "SuperQuantResK1DWK1", "in": 8, "out": 8, "k": 3, "L": 1, "btn": 12}
    quantized |= {"nbitsA": [8, 7, 6], "nbitsW": [5, 4, 3]}
    stem, block = Structure.parse(str({"best_structures": [[{**STEM, "act": "swish"}, quantized], []]})).blocks
    assert stem == SuperBlock(family="conv", kernel=3, in_channels=3, out_channels=8, stride=2, activation="silu")
    assert block == SuperBlock(
        family="k1dwk1",
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
    assert Structure.parse(f"  {labelled}\nwhat follows means nothing").to_text() == labelled
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
        ("SuperConvK3BNRELU(3,8,2,1) SuperResK3K3(8,8,1,8,1)", "character 27: expected a block"),
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
        ("SuperConvK3BNRELU(3,8,2,1)SuperResK3K3(9,8,1,8,1)", r"block 2 of 2 \(kxkx\): channels do not chain: .*9.*8"),
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
        (changed(nbitsA=[4] * 6, nbitsW=[4] * 6), "SuperResK1KXK1 cannot have nbitsA and nbitsW"),
        (changed(**{"class": "SuperQuantResK1DWK1"}), "needs nbitsA and nbitsW"),
        (
            changed(**{"class": "SuperQuantResK1DWK1"}, nbitsA=[4] * 6, nbitsW=[4] * 5),
            "block 2 of 2 .*need 6 numbers each, one per convolution, got 6 and 5",
        ),
        (changed(**{"class": "SuperQuantResK1DWK1"}, nbitsA=[4] * 6, nbitsW=[4.5] * 6), "bits must be a whole number"),
        (changed(**{"class": "SuperRes3DK1DWK1"}, kt=3), "images and blocks for videos cannot stand in one network"),
        (changed(**{"in": 9}), "block 2 of 2 .*channels do not chain: it takes 9, the block before it gives 8"),
    ],
)
def test_malformed_documents_are_refused_with_place_and_reason(document, message):
    with pytest.raises(InputError, match=message):
        Structure.from_tinynas(document)
    with pytest.raises(InputError, match=message):
        Structure.parse(repr(document) if document else json.dumps(document))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[{'class': ", "line 1, character"),
        ("[{'class': 'ConvKXBNRELU',\n 'in': 3,, }]", "line 2, character"),
        ("[print('run')]", "lists, dicts, text and numbers only"),
        ("[__import__('os').system('true')]", "lists, dicts, text and numbers only"),
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
        (dataclasses.replace(second, family="k1kx"), "no such family in notation zennas, which has conv, kxkx"),
    ]:
        with pytest.raises(InputError, match=message):
            Structure((first, block), "zennas")
    video = dataclasses.replace(second, family="k1kx", temporal_kernel=3)
    with pytest.raises(InputError, match="no class of TinyNAS is a k1kx of this kind"):
        Structure((dataclasses.replace(first, temporal_kernel=1), video), "tinynas")
