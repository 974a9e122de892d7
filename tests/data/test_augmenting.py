"""Random views and colours of photographs: torchvision's numbers and meaning, in one matrix."""

from __future__ import annotations

import colorsys
import itertools

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional

from tfnas.data.augmentation import FlipAndColour, RandomView, colour_matrix, coloured, mean_colour

MILD = (1.1, 0.9, 1.2, 0.0)


@pytest.fixture(scope="module")
def photograph() -> Image.Image:
    return Image.fromarray(load_sample_image("china.jpg"))


def half_tones() -> torch.Tensor:
    """Colours 3 x 8 x 8 that mild changes leave between 0 and 1."""
    return 0.35 + 0.2 * torch.rand(3, 8, 8, generator=torch.Generator().manual_seed(0), dtype=torch.float64)


def by_matrix(pixels: torch.Tensor, matrix: np.ndarray) -> torch.Tensor:
    """A matrix for values between 0 and 255 at work on ones between 0 and 1."""
    found = torch.einsum("ij,jhw->ihw", torch.from_numpy(matrix[:, :3]), pixels)
    return found + torch.from_numpy(matrix[:, 3] / 255)[:, None, None]


@pytest.mark.parametrize("order", [(), (0,), (1,), (2,), *itertools.permutations((0, 1, 2))])
def test_the_matrix_is_torchvisions_functions_one_after_the_other(order: tuple[int, ...]) -> None:
    """But for a luma of three digits in torchvision (0.2989, 0.587, 0.114)."""
    pixels = expected = half_tones()
    for change in order:
        function = (functional.adjust_brightness, functional.adjust_contrast, functional.adjust_saturation)[change]
        expected = function(expected, MILD[change])
    matrix = colour_matrix(order, MILD, 255 * pixels.mean((1, 2)).numpy())
    torch.testing.assert_close(by_matrix(pixels, matrix), expected, atol=2e-4, rtol=0)


def test_hue_turns_colours_as_far_as_in_hsv_and_leaves_grey_alone() -> None:
    mean = np.full(3, 100.0)
    third = colour_matrix([3], (1, 1, 1, 1 / 3), mean)[:, :3]
    np.testing.assert_allclose(third, np.roll(np.eye(3), 1, axis=0), atol=1e-12)  # red to green, green to blue
    for hue, turns in itertools.product(np.linspace(0, 1, 25), (-0.2, -0.07, 0.1, 0.2)):
        matrix = colour_matrix([3], (1, 1, 1, turns), mean)
        np.testing.assert_allclose(matrix @ [9, 9, 9, 1], [9, 9, 9], atol=1e-12)
        colour = matrix[:, :3] @ np.array(colorsys.hsv_to_rgb(hue, 0.2, 0.6))
        seen, _, _ = colorsys.rgb_to_hsv(*colour)
        assert abs((seen - hue - turns + 0.5) % 1 - 0.5) < 0.01  # a circle where HSV has a hexagon


def test_hue_comes_in_its_turn() -> None:
    """Saturation and hue do not commute: 40 % of the way to grey, whose luma hue then changes, or the other way."""
    mean = np.array([200.0, 50.0, 20.0])
    one = colour_matrix([2, 3], (1, 1, 0.6, 0.2), mean)
    other = colour_matrix([3, 2], (1, 1, 0.6, 0.2), mean)
    alone = [colour_matrix([2], (1, 1, 0.6, 0), mean)[:, :3], colour_matrix([3], (1, 1, 1, 0.2), mean)[:, :3]]
    np.testing.assert_allclose(one[:, :3], alone[1] @ alone[0])
    np.testing.assert_allclose(other[:, :3], alone[0] @ alone[1])
    assert abs(one - other).max() > 0.01


def test_the_mean_colour(photograph: Image.Image) -> None:
    expected = np.asarray(photograph).reshape(-1, 3).mean(0)
    np.testing.assert_allclose(mean_colour(functional.pil_to_tensor(photograph)), expected, rtol=1e-12)


def test_colours_are_the_matrix_times_every_pixel_to_the_nearest_level() -> None:
    """Also where that is below 0 or above 255; every result that is no near tie is the one of exact arithmetic."""
    random = np.random.default_rng(0)
    picture = torch.from_numpy(random.integers(0, 256, (3, 40, 30), dtype=np.uint8))
    cut_off = np.zeros(2, dtype=bool)
    for _ in range(10):
        matrix = np.concatenate([np.eye(3) + random.normal(0, 1, (3, 3)), random.normal(0, 80, (3, 1))], 1)
        exact = np.einsum("ij,jhw->ihw", matrix[:, :3], picture.double().numpy()) + matrix[:, 3:, None]
        clear = abs(exact % 1 - 0.5) > 255 * 3 / 65536
        assert clear.mean() > 0.9
        cut_off |= exact.min() < -10, exact.max() > 265
        seen = coloured(picture, matrix)
        assert seen.dtype == torch.uint8
        np.testing.assert_array_equal(seen.numpy()[clear], np.rint(exact).clip(0, 255)[clear])
    assert cut_off.all()


def test_views_are_those_of_torchvision() -> None:
    """A picture whose colours tell rows and columns: the view's corners are those of RandomResizedCrop."""
    choose, crop = RandomView(50), v2.RandomResizedCrop(50)
    rows, columns = np.mgrid[0:200, 0:250]
    picture = Image.fromarray(np.stack([rows, columns, 0 * rows], -1).astype(np.uint8))
    for seed in range(20):
        torch.manual_seed(seed)
        left, upper, right, lower = choose(250, 200).box
        torch.manual_seed(seed)
        seen = np.asarray(crop(picture)).astype(float)
        middle = (upper + lower - 1) / 2, (left + right - 1) / 2
        np.testing.assert_allclose(seen.mean((0, 1))[:2], middle, atol=0.6)
        np.testing.assert_allclose(seen[-1, -1, :2] - seen[0, 0, :2], (lower - upper, right - left), rtol=0.07, atol=2)


def test_flip_and_colours_are_torchvisions_to_a_few_levels(photograph: Image.Image) -> None:
    """For the same random numbers; what is left is cutting off later, and hue (see the module)."""
    picture = photograph.resize((96, 64))
    usual = v2.Compose([v2.RandomHorizontalFlip(), v2.ColorJitter(0.4, 0.4, 0.4, 0.2), v2.PILToTensor()])
    plain, ours = functional.pil_to_tensor(picture).int(), FlipAndColour()
    different, changed, flips = [], [], 0
    for seed in range(40):
        torch.manual_seed(seed)
        expected = usual(picture).int()
        torch.manual_seed(seed)
        seen = ours(functional.pil_to_tensor(picture))
        assert (seen.shape, seen.dtype) == ((3, 64, 96), torch.uint8)
        different.append(float((seen - expected).abs().float().mean()))
        torch.manual_seed(seed)
        flip = bool(torch.rand(1) < 0.5)
        flips += flip
        changed.append(float(((plain.flip(2) if flip else plain) - expected).abs().float().mean()))
    assert 10 < flips < 30
    assert np.mean(different) < 0.3 * np.mean(changed)
    assert np.mean(different) < 9
