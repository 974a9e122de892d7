"""Pairs of digits: every image holds two originals of its part, and its class is the one that is read first."""

from __future__ import annotations

from collections import Counter

import numpy as np
import pytest
import torch

from tfnas.core.errors import InputError
from tfnas.data.bundled_digits import NUM_IMAGES, digit_pairs_parts, digits_parts
from tfnas.data.data_config import DataConfig, RetrainDataConfig, default_space
from tfnas.data.image_sets import Draw
from tfnas.data.opened_data import open_data, open_parts
from tfnas.data.preprocessing import NORMALISATIONS
from tfnas.data.retrain_data import open_retrain_data

PARTS = ("weights", "architecture", "test")


@pytest.fixture(scope="module")
def parts():
    return digit_pairs_parts(16)


@pytest.mark.parametrize("part", PARTS)
def test_every_class_has_as_many_images_of_the_size_asked_for(parts, part) -> None:
    source = getattr(parts, part)
    assert source.images.shape == (NUM_IMAGES[part], 3, 16, 16)
    assert source.images.dtype == torch.uint8
    assert Counter(source.labels) == dict.fromkeys(range(10), NUM_IMAGES[part] // 10)
    assert parts.class_names == tuple("0123456789")


def found_digits(image, originals):
    """The two originals in an image, each as (mean squared distance, index, top, left): the nearest at any place, and
    the nearest that lies apart from it.
    """
    side = originals.shape[1]
    ink = originals.reshape(len(originals), -1).astype(np.float64)
    windows = np.lib.stride_tricks.sliding_window_view(image.astype(np.float64), (side, side))
    rows, columns = windows.shape[:2]
    flat = windows.reshape(rows * columns, -1)
    distances = ((flat**2).sum(1)[:, None] - 2 * flat @ ink.T + (ink**2).sum(1)) / side**2
    nearest = distances.argmin(1)
    found = [
        (distances[place, index], int(index), place // columns, place % columns) for place, index in enumerate(nearest)
    ]
    found.sort()
    first = found[0]
    return first, next(one for one in found if abs(one[2] - first[2]) >= side or abs(one[3] - first[3]) >= side)


FARTHEST = 400  # the noise alone makes at most 163 on average; another digit is thousands away


def read_first(one, other):
    """Of two digits (distance, index, top, left), 7 pixels wide."""
    if abs(one[2] - other[2]) >= 7:
        return min(one, other, key=lambda digit: digit[2])
    return min(one, other, key=lambda digit: digit[3])


@pytest.mark.parametrize("part", PARTS)
def test_the_class_is_the_digit_of_the_part_that_is_read_first(parts, part) -> None:
    source, digits = getattr(parts, part), getattr(digits_parts(7), part)
    ink, labels = digits.images[:, 0].numpy(), digits.labels
    for number in range(0, 120, 3):
        found = found_digits(source.images[number, 0].numpy(), ink)
        assert all(distance < FARTHEST for distance, *_ in found)
        assert source.labels[number] == labels[read_first(*found)[1]]


def test_all_ways_to_stand_and_all_orders_occur(parts) -> None:
    """Beside, above, and above to the right, where left and first are not the same; any of two may be the larger."""
    digits = digits_parts(7).weights
    ink, labels = digits.images[:, 0].numpy(), digits.labels
    seen = Counter()
    for number in range(100):
        pair = found_digits(parts.weights.images[number, 0].numpy(), ink)
        first = read_first(*pair)
        second = pair[1] if first is pair[0] else pair[0]
        seen["beside" if abs(first[2] - second[2]) < 7 else "above"] += 1
        seen["above to the right"] += second[2] - first[2] >= 7 and first[3] > second[3]
        seen[f"{np.sign(labels[first[1]] - labels[second[1]]):+.0f}"] += 1
    assert min(seen["beside"], seen["above"], seen["above to the right"], seen["+1"], seen["-1"]) >= 3


def test_it_is_the_same_in_every_run(parts) -> None:
    again = digit_pairs_parts(16)
    for part in PARTS:
        assert getattr(again, part).identity() == getattr(parts, part).identity()
        assert getattr(again, part).labels == getattr(parts, part).labels


def test_larger_images_hold_larger_digits() -> None:
    images = digit_pairs_parts(21).weights.images
    assert images.shape[2:] == (21, 21)
    found = found_digits(images[0, 0].numpy(), digits_parts(9).weights.images[:, 0].numpy())
    assert all(distance < FARTHEST for distance, *_ in found)
    with pytest.raises(InputError, match="16 pixels or more, not --image_size 15"):
        digit_pairs_parts(15)


def test_it_is_opened_by_its_name_and_normalised(parts) -> None:
    config = DataConfig(data="digit_pairs")
    assert default_space(config) == "digits"
    data = open_data(config, image_size=16, seed=0)
    assert (data.num_classes, data.workers) == (10, 0)
    assert data.test is not None
    image, label = data.test[Draw(0, 5)]
    norm = NORMALISATIONS["digit_pairs"]
    expected = (parts.test.images[5].double() / 255 - norm.mean[0]) / norm.std[0]
    torch.testing.assert_close(image.double(), expected, atol=1e-5, rtol=0)
    assert label == parts.test.labels[5]
    pixels = parts.weights.images[:, 0].double() / 255
    assert float(pixels.mean()) == pytest.approx(norm.mean[0], abs=1e-4)
    assert float(pixels.std()) == pytest.approx(norm.std[0], abs=1e-4)


def test_retraining_has_both_parts_of_the_search_and_judges_by_the_test_part(parts) -> None:
    data = open_retrain_data(RetrainDataConfig(data="digit_pairs"), image_size=16, seed=0)
    assert data.train.labels == [*parts.weights.labels, *parts.architecture.labels]
    assert data.validation is not None
    assert data.validation.labels == list(parts.test.labels)


def test_it_reads_no_files() -> None:
    with pytest.raises(InputError, match="--data digit_pairs is bundled and reads no --img_root"):
        DataConfig(data="digit_pairs", img_root="here")
    with pytest.raises(InputError, match="--data digit_pairs reads no --train_root"):
        RetrainDataConfig(data="digit_pairs", train_root="here")
    with pytest.raises(InputError, match="10 classes here, but --num_classes is 11"):
        open_parts(DataConfig(data="digit_pairs", num_classes=11), 16)
