from __future__ import annotations

import copy
import dataclasses
import json

import oracle
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from made_choices import architectures

import tfnas
from tfnas import Architecture, InputError
from tfnas.core.mbconv_blocks import MOST_CHANNELS, MOST_KERNEL_SIZE, MOST_STRIDE, Block, Conv

TEXT = (
    "i3x15_n10:conv_k3_s1_c16_relu:mb_k3_s1_m16_se4_c16_relu"
    ":mb_k5_s2_m60_w32-64_c24_relu,mb_k3_s1_m96_w96-192_se48_c24_swish:-:conv_k1_s1_c96_swish"
)
MADE = Architecture(
    image_size=15,
    num_classes=10,
    first_stem=Conv(3, 16, 3, 1, "relu"),
    second_stem=Block(16, 16, 4, 16, 3, 1, "relu", (16, 16)),
    stages=(
        (Block(16, 60, 0, 24, 5, 2, "relu", (32, 64)), Block(24, 96, 48, 24, 3, 1, "swish", (96, 192))),
        (),
    ),
    feature_mix=Conv(24, 96, 1, 1, "swish"),
)


def test_the_text_form_is_the_documented_one():
    assert MADE.to_text() == TEXT
    assert Architecture.parse(TEXT) == MADE


@settings(max_examples=60, deadline=None, derandomize=True)
@given(architectures())
def test_every_form_gives_back_an_equal_architecture(made):
    text = made.to_text()
    assert Architecture.parse(text) == made
    assert not set(text) & set(" \n\t\"'")
    assert Architecture.from_json(json.loads(json.dumps(made.to_json()))) == made


@settings(max_examples=60, deadline=None, derandomize=True)
@given(architectures())
def test_a_model_config_survives_reading_and_writing(made):
    document = made.to_model_config()
    read = Architecture.from_model_config(json.loads(json.dumps(document)), image_size=made.image_size)
    assert read.to_model_config() == document
    fixed = [dataclasses.replace(place.block, mid_range=(1, MOST_CHANNELS)) for place in made.blocks]
    assert [dataclasses.replace(place.block, mid_range=(1, MOST_CHANNELS)) for place in read.blocks] == fixed


ANY_NUMBER = st.one_of(
    st.integers(-3, 70),
    st.sampled_from([MOST_STRIDE, MOST_KERNEL_SIZE, MOST_CHANNELS, 2**24, 2**31, 2**63, -(2**63), 10**400]),
    st.integers(),
)


def is_refused_or_the_same_in_every_form(make):
    """An architecture cannot be made, or comes back from its text and both JSON forms, and can be counted with."""
    try:
        made = make()
    except InputError:
        return
    assert Architecture.parse(made.to_text()) == made
    assert Architecture.from_json(json.loads(json.dumps(made.to_json()))) == made
    document = made.to_model_config()
    assert Architecture.from_model_config(json.loads(json.dumps(document)), image_size=made.image_size) is not None
    assert made.feature_mix_size >= 1
    assert all(1 <= width <= MOST_CHANNELS for place in made.blocks for width in place.block.widths[::4096])


@settings(max_examples=300, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_its_numbers_are_an_architecture_is_refused_or_survives_every_form(data):
    part = data.draw(st.sampled_from(["network", "first_stem", "second_stem", "block", "feature_mix"]))
    names = {
        "network": ["image_size", "num_classes"],
        "first_stem": ["in_channels", "kernel_size", "stride"],
        "second_stem": ["kernel_size", "stride", "se_channels", "mid_channels", "mid_step"],
        "block": ["kernel_size", "stride", "se_channels", "mid_channels", "mid_step", "low", "high"],
        "feature_mix": ["out_channels", "kernel_size", "stride"],
    }[part]
    changes = {name: data.draw(ANY_NUMBER) for name in data.draw(st.sets(st.sampled_from(names), min_size=1))}

    def make():
        if part == "network":
            return dataclasses.replace(MADE, **changes)
        old = MADE.stages[0][0] if part == "block" else getattr(MADE, part)
        if part == "block":
            changes["mid_range"] = (changes.pop("low", 32), changes.pop("high", 64))
        new = dataclasses.replace(old, **changes)
        return dataclasses.replace(
            MADE, **({"stages": ((new, MADE.stages[0][1]), ())} if part == "block" else {part: new})
        )

    is_refused_or_the_same_in_every_form(make)


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.data())
def test_whatever_numbers_a_file_holds_it_is_refused_or_survives_every_form(data):
    """Both JSON forms, with any numbers in them."""
    authors = data.draw(st.booleans())
    document = json.loads(json.dumps(MADE.to_model_config() if authors else MADE.to_json()))
    where = data.draw(st.sampled_from(["first_stem", "second_stem", "stage1" if authors else "stages"]))
    fields = document[where] if "stem" in where else document[where][0] if authors else document[where][0][0]
    for name in data.draw(st.sets(st.sampled_from([n for n, v in fields.items() if type(v) is int]), min_size=1)):
        fields[name] = data.draw(ANY_NUMBER)
    if "mid_range" in fields:
        fields["mid_range"] = [data.draw(ANY_NUMBER), data.draw(ANY_NUMBER)]
    read = Architecture.from_model_config if authors else Architecture.from_json
    is_refused_or_the_same_in_every_form(lambda: read(document))


@pytest.mark.parametrize(("change", "message"), [
    ({"stride": 2**63}, "stride must be 255 at most, got 9223372036854775808"),
    ({"stride": 10**400}, "stride must be 255 at most, got a whole number of 1329 bits"),
    ({"kernel_size": 257}, "kernel_size must be 255 at most, got 257"),
    ({"mid_range": (-32, 64)}, "mid_range must be 1 or more, got -32"),
    ({"mid_range": (32, 65_537)}, "mid_range must be 65536 at most, got 65537"),
    ({"out_channels": 65_537}, "out_channels must be 65536 at most"),
    ({"se_channels": 65_537}, "se_channels must be 65536 at most"),
])  # fmt: skip
def test_numbers_that_no_network_has_are_refused(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(MADE.blocks[0].block, **change)


@pytest.mark.parametrize("field", ["k5", "s2", "m60", "w32", "c24", "n10", "i3"])
@pytest.mark.parametrize("digits", ["9" * 5000, "1" + "0" * 9, "-32", "٣", "1.0", ""])
def test_a_text_with_such_numbers_is_refused(field, digits):
    with pytest.raises(InputError):
        Architecture.parse(TEXT.replace(field, field[0] + digits, 1))


def test_what_stands_twice_or_is_unknown_in_a_file_is_refused(tmp_path):
    whole = json.dumps(MADE.to_json())
    for text, message in (
        (whole.replace('"stride": 2', '"stride": 2, "stride": 1'), "duplicate key 'stride'"),
        (whole.replace('"stride": 2', '"stride": 2, "dilation": 2'), "unknown field 'dilation'"),
        (whole[:-1] + ', "extra": []}', "unknown field 'extra'"),
        (json.dumps({**MADE.to_model_config(), "stage²": []}), "unknown keys .*stage²"),
        (json.dumps({**MADE.to_model_config(), "stage01": []}), "unknown keys .*stage01"),
    ):
        (tmp_path / "architecture.json").write_text(text, encoding="utf-8")
        with pytest.raises(InputError, match=message):
            Architecture.load(tmp_path)
    (tmp_path / "architecture.json").write_bytes(b"\xef\xbb\xbf" + whole.encode())
    assert Architecture.load(tmp_path) == MADE


def test_the_authors_documents_are_read_and_written_unchanged(shared_data):
    nets = [net for net in oracle.values(shared_data)["nets"] if net["model_config"] is not None]
    assert nets
    for net in nets:
        before = copy.deepcopy(net["model_config"])
        read = Architecture.from_model_config(net["model_config"])
        assert net["model_config"] == before
        assert read.to_model_config() == before
        assert read == oracle.architecture_of(net)


@pytest.mark.parametrize(("in_channels", "mid", "se", "expected"), [
    (40, 80, 0, (80, 160)),
    (40, 160, 0, (80, 160)),  # both e3 and e6 may have it; without SE the narrow reading is taken
    (40, 161, 0, (160, 320)),
    (40, 160, 80, (160, 320)),
    (40, 160, 40, (80, 160)),
    (40, 321, 0, (321, 321)),  # wider than any operation
])  # fmt: skip
def test_the_width_range_is_inferred_from_a_model_config(in_channels, mid, se, expected):
    block = Block(in_channels, mid, se, in_channels, 3, 1, "relu", (mid, mid))
    stem = Block(16, 16, 4, in_channels, 3, 1, "relu", (16, 16))
    made = dataclasses.replace(
        MADE, second_stem=stem, stages=((block,),), feature_mix=Conv(in_channels, 96, 1, 1, "swish")
    )
    assert Architecture.from_model_config(made.to_model_config()).blocks[0].block.mid_range == expected


def test_places_carry_the_size_that_arrives():
    assert [(place.stage, place.position, place.input_size) for place in MADE.blocks] == [(0, 0, 15), (0, 1, 8)]
    assert MADE.feature_mix_size == 8


def test_widths_are_replaced_where_named():
    changed = MADE.with_widths({(0, 1): 120})
    assert [place.block.mid_channels for place in changed.blocks] == [60, 120]
    assert MADE.blocks[1].block.mid_channels == 96


@pytest.mark.parametrize(("change", "message"), [
    ({"mid_channels": 15}, "mid_channels must be at least in_channels"),
    ({"mid_channels": 65}, r"mid_channels must lie in its range \(32, 64\), got 65"),
    ({"kernel_size": 4}, "kernel_size must be odd, got 4"),
    ({"stride": 0}, "stride must be 1 or more, got 0"),
    ({"se_channels": -1}, "se_channels must be 0"),
    ({"activation": "gelu"}, "activation must be one of relu, swish, got 'gelu'"),
])  # fmt: skip
def test_a_wrong_block_says_which_field(change, message):
    with pytest.raises(InputError, match=message):
        dataclasses.replace(MADE.blocks[0].block, **change)


def test_parts_that_do_not_fit_each_other_are_refused():
    with pytest.raises(InputError, match="feature_mix expects 20 input channels, but gets 24"):
        dataclasses.replace(MADE, feature_mix=Conv(20, 96, 1, 1, "swish"))
    with pytest.raises(InputError, match=r"stage1\.block2 expects 16 input channels, but gets 24"):
        dataclasses.replace(MADE, stages=((MADE.stages[0][0], MADE.stages[0][0]), ()))
    with pytest.raises(InputError, match="num_classes must be 1 or more, got 0"):
        dataclasses.replace(MADE, num_classes=0)


@pytest.mark.parametrize("broken", ["", "hello", TEXT.replace("k5", "q5"), TEXT.replace(":-:", "::"), TEXT[:-1] + "?"])
def test_text_that_is_no_architecture_is_refused(broken):
    with pytest.raises(InputError):
        Architecture.parse(broken)


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d.update(version=2), "version 2"),
    (lambda d: d.pop("stages"), "'stages' is missing"),
    (lambda d: d.update(image_size="15"), "image_size must be a whole number, got '15'"),
    (lambda d: d.update(num_classes=True), "num_classes must be a whole number"),
    (lambda d: d.update(stages=3), "wrong type"),
    (lambda d: d["second_stem"].pop("stride"), "'stride' is missing"),
    (lambda d: d["stages"][0][0].update(mid_range=[32]), "mid_range"),
    (lambda d: d["feature_mix"].update(activation=["swish"]), "activation"),
])  # fmt: skip
def test_our_json_is_checked(change, message, tmp_path):
    document = json.loads(json.dumps(MADE.to_json()))
    change(document)
    file = tmp_path / "architecture.json"
    file.write_text(json.dumps(document))
    with pytest.raises(InputError, match=message) as refused:
        Architecture.load(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d.pop("classifier"), "missing keys .*classifier"),
    (lambda d: d.update(stage4=[]), "without a gap"),
    (lambda d: d["stage1"][0].update(has_shuffle=True), r"stage1\[0\]\.has_shuffle is True"),
    (lambda d: d["stage1"][0].update(mid_channels=1.5), r"stage1\[0\]\.mid_channels must be a whole number"),
    (lambda d: d["first_stem"].update(act_func="gelu"), "first_stem: activation"),
    (lambda d: d["classifier"].update(in_features=5), "classifier.in_features is 5"),
    (lambda d: d.update(stage2=None), "stage2 must be a list"),
    (lambda d: d["stage1"].append(7), r"stage1\[2\] must be an object"),
])  # fmt: skip
def test_a_model_config_that_says_something_else_is_refused(change, message):
    document = copy.deepcopy(MADE.to_model_config())
    change(document)
    with pytest.raises(InputError, match=message):
        Architecture.from_model_config(document)


def test_load_reads_a_file_of_each_form_and_a_run_directory(tmp_path):
    (tmp_path / "architecture.json").write_text(json.dumps(MADE.to_json()))
    (tmp_path / "model.config").write_text(json.dumps(MADE.to_model_config()))
    assert Architecture.load(tmp_path) == MADE
    assert Architecture.load(tmp_path / "architecture.json") == MADE
    read = Architecture.load(tmp_path / "model.config", image_size=15)
    assert read.to_model_config() == MADE.to_model_config()


def test_load_refuses_what_is_not_there_or_not_json(tmp_path):
    with pytest.raises(InputError, match="no architecture at"):
        Architecture.load(tmp_path)
    (tmp_path / "list.json").write_text("[1]")
    with pytest.raises(InputError, match="is a JSON object, this is a list"):
        Architecture.load(tmp_path / "list.json")
    (tmp_path / "cut.json").write_text('{"format"')
    with pytest.raises(InputError, match="cannot be read as JSON"):
        Architecture.load(tmp_path / "cut.json")


def test_an_architecture_of_the_space_ignores_blocks_beyond_its_depth():
    space = tfnas.space("digits")
    widths = [space.initial_width(place, space.operations[2]) for place in space.blocks]
    made = space.architecture([2] * 5, [1, 1, 2], [*widths[:2], -5, *widths[3:]], 10)
    assert [len(stage) for stage in made.stages] == [1, 1, 2]
    assert made.blocks[1].block.kernel_size == 5
