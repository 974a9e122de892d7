from __future__ import annotations

import dataclasses
from fractions import Fraction

import pytest
import yaml
from hypothesis import given, settings
from made_choices import search_spaces
from tiny import SOME_EXPAND

import tfnas
from tfnas import InputError
from tfnas.core.space import Operation
from tfnas.searching.differentiable.search_config import Schedule, space_schedule
from tfnas.spaces.mbconv.space_file import space_from_json, space_names

# Stage table of the paper: in, out, stride, blocks, activation.
IMAGENET_STAGES = [
    (16, 24, 2, 2, "relu"),
    (24, 40, 2, 3, "swish"),
    (40, 80, 2, 4, "swish"),
    (80, 112, 1, 4, "swish"),
    (112, 192, 2, 4, "swish"),
    (192, 320, 1, 1, "swish"),
]


def written(path, document):
    path.write_text(yaml.safe_dump(document))
    return path


def document_of(name):
    return yaml.safe_load(yaml.safe_dump(tfnas.space(name).to_json()))


def test_imagenet_is_the_space_of_the_paper():
    space = tfnas.space("imagenet")
    expected = []
    for stage, (in_channels, channels, stride, blocks, activation) in enumerate(IMAGENET_STAGES):
        for position in range(blocks):
            expected.append((stage, position, in_channels if position == 0 else channels, channels,
                             stride if position == 0 else 1, activation))  # fmt: skip
    assert [place[:6] for place in space.blocks] == expected
    assert len(space.blocks) == 18
    sizes = [112] + [56] * 1 + [56] + [28] * 2 + [28] + [14] * 3 + [14] * 4 + [14] + [7] * 3 + [7]
    assert [place.input_size for place in space.blocks] == sizes
    assert space.depth_choices == ((1, 2), (1, 2, 3), (1, 2, 3, 4), (1, 2, 3, 4), (1, 2, 3, 4), (1,))
    assert space.first_blocks == (0, 2, 5, 9, 13, 17)
    names = ["k3_e3", "k3_e6", "k5_e3", "k5_e6", "k3_e3_se", "k3_e6_se", "k5_e3_se", "k5_e6_se"]
    assert [operation.name for operation in space.operations] == names


def test_imagenet_widths_and_squeeze_widths_are_those_of_the_paper():
    space = tfnas.space("imagenet")
    for place in space.blocks:
        n = place.in_channels
        for operation in space.operations:
            large = operation.expansion == 6
            assert space.initial_width(place, operation) == (6 * n if large else 3 * n)
            assert space.width_range(place, operation) == ((4 * n, 8 * n) if large else (2 * n, 4 * n))
            se = 0 if not operation.se else 2 * n if large else n
            assert space.block(place, operation, 4 * n).se_channels == se


def test_imagenet_initial_blocks_and_shallowest_network():
    """As the paper writes them: stage, expanded width, SE width, kernel."""
    space = tfnas.space("imagenet")
    for place, blocks in zip(space.blocks, space.initial_blocks, strict=True):
        n, found = place.in_channels, [(b.kernel_size, b.mid_channels, b.mid_range, b.se_channels) for b in blocks]
        small, large = (3 * n, (2 * n, 4 * n)), (6 * n, (4 * n, 8 * n))
        assert found[:4] == [(3, *small, 0), (3, *large, 0), (5, *small, 0), (5, *large, 0)]
        assert found[4:] == [(3, *small, n), (3, *large, 2 * n), (5, *small, n), (5, *large, 2 * n)]
        assert {(b.in_channels, b.out_channels, b.stride) for b in blocks} == {place[2:5]}
    shallowest = space.shallowest(10)
    assert [len(stage) for stage in shallowest.stages] == [1] * 6
    assert [stage[0].mid_channels for stage in shallowest.stages] == [48, 72, 120, 240, 336, 576]
    assert shallowest.num_classes == 10


def test_imagenet_schedule_and_stems_are_those_of_the_paper():
    space = tfnas.space("imagenet")
    assert space_schedule(space) == Schedule(
        epochs=90, warmup_epochs=10, batch_size=32, w_lr=0.025, w_mom=0.9, w_wd=1e-5, a_lr=0.01, a_wd=5e-4,
        a_beta1=0.5, a_beta2=0.999, grad_clip=5.0, T=5.0, T_decay=0.96, lambda_lat=0.1,
        shared_weights=False, sampled_depth=False, candidates=1,
    )  # fmt: skip
    stem, second, mix = space.first_stem, space.second_stem, space.feature_mix
    assert (stem.in_channels, stem.out_channels, stem.kernel_size, stem.stride) == (3, 32, 3, 2)
    assert (second.mid_channels, second.se_channels, second.out_channels, second.expands) == (32, 8, 16, False)
    assert (mix.in_channels, mix.out_channels, mix.kernel_size, mix.activation) == (320, 1280, 1, "swish")


@settings(max_examples=60, deadline=None, derandomize=True)
@given(search_spaces())
def test_a_space_survives_yaml(tmp_path_factory, made):
    file = written(tmp_path_factory.getbasetemp() / "space.yaml", made.to_json())
    assert tfnas.space(file) == made
    assert space_from_json(made.to_json()) == made


@pytest.mark.parametrize("name", space_names())
def test_every_built_in_space_is_read(name):
    space = tfnas.space(name)
    assert space.name == name
    assert space_from_json(space.to_json()) == space


def test_a_space_is_read_for_other_images_and_multiples():
    space, plain = tfnas.space("digits", image_size=24, width_multiple=4), tfnas.space("digits")
    assert space == dataclasses.replace(plain, image_size=24, width_multiple=4)
    assert tfnas.space("digits", image_size=24) == dataclasses.replace(plain, image_size=24)
    assert tfnas.space("digits", width_multiple=4) == dataclasses.replace(plain, width_multiple=4)
    with pytest.raises(InputError, match=r"width_multiple 1000: .* no multiple lies there"):
        tfnas.space("digits", width_multiple=1000)


@pytest.mark.parametrize("multiple", [1, 8, 64])
def test_without_an_expansion_the_width_is_the_inputs(tmp_path, multiple):
    """Whatever bounds and multiples say; imagenet's inputs of 24 channels are no multiple of 64."""
    file = tmp_path / "mine.yaml"
    file.write_text(f"extends: imagenet\noperations: [k3_e1, k3_e6, k5_e1_se]\nwidth_multiple: {multiple}\n")
    space = tfnas.space(file)
    assert space_from_json(space.to_json()) == space
    for place in space.blocks:
        n = place.in_channels
        for operation in (Operation(3, 1, False), Operation(5, 1, True)):
            assert list(space.widths(place, operation)) == [space.initial_width(place, operation)] == [n]
            assert space.width_range(place, operation) == (n, n)
            block = space.block(place, operation, n)
            assert not block.expands and block.se_channels == (n // 3 if operation.se else 0)
            assert (block.mid_range, block.mid_step) == ((n, n), 1)
            with pytest.raises(InputError, match=f"mid_channels must lie in its range .{n}, {n}.*got {n + 1}"):
                space.block(place, operation, n + 1)
    assert Operation(3, 1, True).se_channels(2) == 1  # never none


def test_a_block_without_an_expansion_is_found_again_in_every_form(tmp_path):
    space = dataclasses.replace(tfnas.space("cifar"), operations=SOME_EXPAND)
    numbers = [number % 4 for number, _ in enumerate(space.blocks)]
    widths = [space.initial_width(place, SOME_EXPAND[n]) for place, n in zip(space.blocks, numbers, strict=True)]
    made = space.architecture(numbers, [stage.blocks for stage in space.stages], widths, 10)
    first = made.stages[0][0]
    assert first.to_text() == f"mb_k3_s{first.stride}_m{first.in_channels}_c{first.out_channels}_{first.activation}"
    texts = tfnas.Architecture.parse(made.to_text()), tfnas.Architecture.from_json(made.to_json())
    assert texts == (made, made)
    authors = tfnas.Architecture.from_model_config(made.to_model_config(), image_size=32)
    for architecture in (made, authors):
        found = [
            space.operation_index(place, at.block) for place, at in zip(space.blocks, architecture.blocks, strict=True)
        ]
        assert found == numbers


def test_a_search_without_some_operations_is_a_line(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: imagenet\noperations: [k3_e3, k3_e6]\n")
    space, parent = tfnas.space(file), tfnas.space("imagenet")
    assert space == dataclasses.replace(
        parent, name="mine", operations=(Operation(3, 3, False), Operation(3, 6, False))
    )


def test_an_extended_schedule_keeps_what_is_not_said(tmp_path):
    file = written(tmp_path / "mine.yaml", {"extends": "digits", "schedule": {"epochs": 7}})
    parent = tfnas.space("digits")
    assert tfnas.space(file).schedule == {**parent.schedule, "epochs": 7}
    assert space_schedule(tfnas.space(file)) == dataclasses.replace(space_schedule(parent), epochs=7)


def test_a_stage_that_keeps_its_shape_can_be_skipped(tmp_path):
    same = {"channels": 16, "stride": 1, "blocks": 2, "activation": "relu"}
    other = {"channels": 20, "stride": 1, "blocks": 2, "activation": "relu"}
    file = written(tmp_path / "mine.yaml", {"extends": "digits", "stages": [same, other]})
    assert tfnas.space(file).depth_choices == ((0, 1, 2), (1, 2))


@pytest.mark.parametrize(("change", "message"), [
    (lambda d: d.update(colour="red"), "unknown field colour"),
    (lambda d: d.update(stem_chanels=3), r"unknown field stem_chanels \(did you mean stem_channels\?\)"),
    (lambda d: d.pop("feature_mix_channels"), "field feature_mix_channels is missing"),
    (lambda d: d.update(name=5), "name must be text, got 5"),
    (lambda d: d.update(image_size="16"), "image_size must be a whole number, got '16'"),
    (lambda d: d.update(image_size=True), "image_size must be a whole number, got True"),
    (lambda d: d.update(image_size=0), "image_size must be 1 or more, got 0"),
    (lambda d: d.update(second_stem_se_channels=-1), "second_stem_se_channels must be 0"),
    (lambda d: d.update(stem_activation="gelu"), "stem_activation must be one of relu, swish, got 'gelu'"),
    (lambda d: d.update(stages={}), "stages must be a list"),
    (lambda d: d.update(stages=[]), "stages must contain at least one stage"),
    (lambda d: d["stages"].append(3), r"stages\[3\] must be a mapping"),
    (lambda d: d["stages"][1].pop("stride"), r"field stages\[1\]\.stride is missing"),
    (lambda d: d["stages"][1].update(stride=3), r"stages\[1\]\.stride must be 1 or 2, got 3"),
    (lambda d: d["stages"][1].update(blocks=1.5), r"stages\[1\]\.blocks must be a whole number, got 1.5"),
    (lambda d: d["stages"][1].update(blocks=0), r"stages\[1\]\.blocks must be 1 or more"),
    (lambda d: d["stages"][1].update(min_blocks=0), r"stages\[1\]\.min_blocks must be 1 to blocks \(2\)"),
    (lambda d: d["stages"][1].update(activation="tanh"), r"stages\[1\]\.activation must be one of"),
    (lambda d: d.update(operations=[]), "operations must name one"),
    (lambda d: d.update(operations="k3_e3"), "operations must be a list"),
    (lambda d: d.update(operations=["k3_e3", "k3_e3"]), "operations must differ"),
    (lambda d: d.update(operations=["k4_e3"]), "operations: 'k4_e3': the kernel size must be odd"),
    (lambda d: d.update(operations=["k3_e0"]), r"operations: 'k3_e0': the expansion must be 1 \(none\) or more"),
    (lambda d: d.update(operations=["mbconv"]), "operations: 'mbconv' is not an operation"),
    (lambda d: d.update(width_bounds=[1]), "width_bounds must be two numbers"),
    (lambda d: d.update(width_bounds=["a", "b"]), "width_bounds must be two numbers"),
    (lambda d: d.update(width_bounds=["1/0", 2]), "width_bounds must be two numbers"),
    (lambda d: d.update(width_bounds=[1.1, 1.2]), "width_bounds must be 0 < lowest <= 1 <= highest"),
    (lambda d: d.update(width_bounds=["1/3", 1]), r"width_bounds\[0\] is too small: k3_e3 in stage1.block1"),
    (lambda d: d.update(schedule=[1]), "schedule must be a mapping"),
    (lambda d: d["schedule"].update({3: 1}), "a name in schedule must be text, got 3"),
    (lambda d: d["schedule"].update(w_lr=float("nan")), "schedule.w_lr must be a finite number, got nan"),
    (lambda d: d["schedule"].update(w_lr=10**400), "schedule.w_lr must be a finite number"),
    (lambda d: d["schedule"].update(w_lr="fast"), "schedule.w_lr must be a number, got 'fast'"),
])  # fmt: skip
def test_a_wrong_space_says_which_file_and_field(tmp_path, change, message):
    document = document_of("digits")
    change(document)
    file = written(tmp_path / "mine.yaml", document)
    with pytest.raises(InputError, match=message) as refused:
        tfnas.space(file)
    assert str(file) in str(refused.value)


@pytest.mark.parametrize(("text", "message"), [
    ("[1, 2]", "must be a mapping of fields such as `extends: imagenet`, got list"),
    ("", "must be a mapping of fields such as `extends: imagenet`, got NoneType"),
    ("a: [1", "is not YAML"),
    ("!!python/object/apply:os.getcwd []", "is not YAML"),
    ("extends: 3", "extends must name another space, got 3"),
    ("extends: imagnet", r"no space 'imagnet': give one of cifar, digits, imagenet.*did you mean imagenet"),
])  # fmt: skip
def test_a_file_that_is_no_space_is_refused(tmp_path, text, message):
    file = tmp_path / "mine.yaml"
    file.write_text(text)
    with pytest.raises(InputError, match=message):
        tfnas.space(file)


def test_spaces_that_extend_each_other_are_refused(tmp_path):
    first, second = tmp_path / "first.yaml", tmp_path / "second.yaml"
    first.write_text(f"extends: {second}\n")
    second.write_text(f"extends: {first}\n")
    with pytest.raises(InputError, match="extends must name another space"):
        tfnas.space(first)


def test_numbers_in_scientific_notation_without_a_point_are_numbers(tmp_path):
    file = tmp_path / "mine.yaml"
    file.write_text("extends: digits\nschedule: {w_wd: 1e-5}\nwidth_bounds: [2/3, 1.5]\n")
    space = tfnas.space(file)
    assert space.schedule["w_wd"] == 1e-5
    assert space.width_bounds == (Fraction(2, 3), Fraction(3, 2))


def test_the_fingerprint_is_of_what_may_be_chosen():
    space = tfnas.space("digits")
    same = dataclasses.replace(space, name="other", schedule={})
    assert same.fingerprint == space.fingerprint
    others = [space.at(32), dataclasses.replace(space, operations=space.operations[:4])]
    assert len({space.fingerprint, *(other.fingerprint for other in others)}) == 3
