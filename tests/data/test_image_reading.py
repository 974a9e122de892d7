"""Images are read as a person sees them; expected pixels are written down by hand."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, JpegImagePlugin

from tfnas.core.errors import InputError
from tfnas.data.image_reading import read_rgb, read_view
from tfnas.data.image_sets import View

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def pixels(path: Path) -> np.ndarray:
    image = read_rgb(path, "here")
    assert image.mode == "RGB"
    return np.asarray(image)


def upright() -> np.ndarray:
    """2 rows x 3 columns, every pixel another colour."""
    return np.arange(18, dtype=np.uint8).reshape(2, 3, 3) * 14


# EXIF 2.3, tag 0x0112: where row 0 and column 0 of the stored image are seen; what to store so that upright() is seen.
STORED = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: a[::-1, ::-1],
    4: lambda a: a[::-1],
    5: lambda a: a.swapaxes(0, 1),
    6: lambda a: np.rot90(a),
    7: lambda a: a[::-1, ::-1].swapaxes(0, 1),
    8: lambda a: np.rot90(a, -1),
}


@pytest.mark.parametrize("suffix", [".png", ".tiff"])
@pytest.mark.parametrize("orientation", STORED)
def test_exif_orientation_is_undone(tmp_path: Path, orientation: int, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright()))).save(path, exif=exif)
    np.testing.assert_array_equal(pixels(path), upright())


def test_a_phone_photo_is_turned(tmp_path: Path) -> None:
    """A JPEG stored lying on its side (orientation 6: row 0 is the right-hand side): red on top as seen."""
    stored = Image.new("RGB", (32, 16), BLUE)
    stored.paste(RED, (0, 0, 16, 16))
    exif = Image.Exif()
    exif[0x0112] = 6
    stored.save(tmp_path / "photo.jpg", exif=exif, quality=95)
    seen = pixels(tmp_path / "photo.jpg").astype(int)
    assert seen.shape == (32, 16, 3)
    assert abs(seen[4, 8] - RED).max() < 10
    assert abs(seen[28, 8] - BLUE).max() < 10


@pytest.mark.parametrize("suffix", [".jpg", ".webp"])
def test_damaged_exif_around_sound_pixels_is_ignored(tmp_path: Path, suffix: str) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    path = tmp_path / f"photo{suffix}"
    Image.new("RGB", (32, 16), RED).save(path, exif=exif)
    assert pixels(path).shape == (32, 16, 3)
    blob = path.read_bytes()
    assert blob.count(b"MM\0*") == 1
    path.write_bytes(blob.replace(b"MM\0*", b"????"))
    assert pixels(path).shape == (16, 32, 3)
    assert abs(pixels(path)[8, 8].astype(int) - RED).max() < 10


def test_grey_becomes_three_equal_channels(tmp_path: Path) -> None:
    grey = np.array([[0, 100, 255]], dtype=np.uint8)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(pixels(tmp_path / "grey.png"), np.repeat(grey[..., None], 3, axis=2))


def test_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[False, True]])).save(tmp_path / "bits.png")
    np.testing.assert_array_equal(pixels(tmp_path / "bits.png"), [[(0, 0, 0), WHITE]])


@pytest.mark.parametrize("suffix", [".png", ".tiff", ".pgm"])
def test_sixteen_bit_grey_is_scaled_not_clipped(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"deep{suffix}"
    Image.fromarray(np.array([[0, 257, 100 * 257, 65535]], dtype=np.uint16)).save(path)
    np.testing.assert_array_equal(pixels(path)[0, :, 0], [0, 1, 100, 255])


def test_transparency_is_put_on_white(tmp_path: Path) -> None:
    half_black, clear, solid = (0, 0, 0, 128), (0, 0, 0, 0), (*RED, 255)
    Image.fromarray(np.array([[half_black, clear, solid]], dtype=np.uint8)).save(tmp_path / "rgba.png")
    np.testing.assert_array_equal(pixels(tmp_path / "rgba.png"), [[(127, 127, 127), WHITE, RED]])


def test_grey_with_alpha_is_put_on_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[(0, 0), (40, 255)]], dtype=np.uint8)).save(tmp_path / "la.png")
    np.testing.assert_array_equal(pixels(tmp_path / "la.png"), [[WHITE, (40, 40, 40)]])


def test_palette_with_a_transparent_entry(tmp_path: Path) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([*GREEN, *BLUE])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "plain.gif")
    np.testing.assert_array_equal(pixels(tmp_path / "plain.gif"), [[GREEN, BLUE]])
    image.save(tmp_path / "clear.png", transparency=0)
    np.testing.assert_array_equal(pixels(tmp_path / "clear.png"), [[WHITE, BLUE]])


@pytest.mark.parametrize("suffix", [".tiff", ".jpg"])
def test_cmyk_ink_becomes_colour(tmp_path: Path, suffix: str) -> None:
    """No cyan, full magenta and yellow ink on white paper is red; no ink is white."""
    image = Image.new("CMYK", (32, 16), (0, 255, 255, 0))
    image.paste((0, 0, 0, 0), (16, 0, 32, 16))
    image.save(tmp_path / f"ink{suffix}")
    seen = pixels(tmp_path / f"ink{suffix}").astype(int)
    assert abs(seen[8, 4] - RED).max() < 12
    assert abs(seen[8, 28] - WHITE).max() < 12


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".bmp", ".webp", ".tiff"])
def test_a_truncated_image_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"cut{suffix}"
    noise = np.random.default_rng(0).integers(0, 256, (40, 40, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=rf"train\.txt:7: cannot read the image .*cut\{suffix}"):
        read_rgb(path, "train.txt:7")


def test_what_is_no_image_is_refused(tmp_path: Path) -> None:
    (tmp_path / "text.jpg").write_text("not an image")
    with pytest.raises(InputError, match=r"text\.jpg"):
        read_rgb(tmp_path / "text.jpg", "here")
    with pytest.raises(InputError, match=r"gone\.jpg"):
        read_rgb(tmp_path / "gone.jpg", "here")


def test_pixels_without_a_known_white_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.ones((2, 2), dtype=np.float32)).save(tmp_path / "float.tiff")
    Image.fromarray(np.full((2, 2), 70000, dtype=np.int32)).save(tmp_path / "wide.tiff")
    for name in ("float.tiff", "wide.tiff"):
        with pytest.raises(InputError, match=r"the white level of .* is unknown; convert it"):
            read_rgb(tmp_path / name, "here")


# --- views ----------------------------------------------------------------------------------------------------------


def seen_through(path: Path, view: View) -> tuple[np.ndarray, tuple[int, int]]:
    """What is read through a view, and the size that the view was chosen by."""
    told = []

    def choose(width: int, height: int) -> View:
        told.append((width, height))
        return view

    image = read_view(path, "here", choose)
    assert (image.dtype, image.shape) == (torch.uint8, (3, view.side, view.side))
    assert len(told) == 1
    return image.permute(1, 2, 0).int().numpy(), told[0]


@pytest.mark.parametrize(
    ("box", "side", "reduction"),
    [
        ((0, 0, 500, 375), 224, 1),
        ((0, 0, 448, 448), 224, 2),
        ((0, 0, 447, 448), 224, 1),
        ((100, 100, 900, 700), 100, 4),
        ((0, 0, 4000, 3000), 224, 8),
        ((0, 0, 9, 9), 224, 1),
    ],
)
def test_a_picture_is_reduced_as_far_as_no_pixel_is_missed(box: tuple, side: int, reduction: int) -> None:
    assert View(box, side).reduction() == reduction


@pytest.mark.parametrize("suffix", [".png", ".jpg"])
@pytest.mark.parametrize("orientation", STORED)
def test_a_view_is_of_the_upright_picture(tmp_path: Path, orientation: int, suffix: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (24, 40, 3), dtype=np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"turned{suffix}"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](noise))).save(path, exif=exif)
    seen, told = seen_through(path, View((10, 4, 26, 20), 16))
    assert told == (40, 24)
    np.testing.assert_array_equal(seen, pixels(path)[4:20, 10:26])


@pytest.mark.parametrize("orientation", STORED)
def test_a_large_jpeg_is_decoded_small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, orientation: int) -> None:
    """On a picture without sharp edges, at odd sizes and up to its border, hardly a level is lost."""
    rows, columns = np.mgrid[0:303, 0:501]
    waves = [100 + 80 * np.sin(rows / 30), 120 + 90 * np.cos(columns / 40), 255 * columns / 501]
    upright = np.stack(waves, -1).astype(np.uint8)
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / "large.jpg"
    Image.fromarray(np.ascontiguousarray(STORED[orientation](upright))).save(path, quality=95, exif=exif)
    decoded, load = [], JpegImagePlugin.JpegImageFile.load_prepare

    def spy(image: JpegImagePlugin.JpegImageFile) -> None:
        decoded.append(sorted(image.size))
        load(image)

    monkeypatch.setattr(JpegImagePlugin.JpegImageFile, "load_prepare", spy)
    box = (1, 0, 501, 303) if orientation % 2 else (101, 2, 401, 302)
    seen, told = seen_through(path, View(box, 60))
    assert told == (501, 303)
    assert decoded == [[76, 126]]  # a quarter, rounded up
    whole = Image.fromarray(upright).resize((60, 60), Image.Resampling.BILINEAR, box)
    assert abs(seen - np.asarray(whole)).mean() < 1


@pytest.mark.parametrize("box", [(0, 0, 301, 203), (7, 3, 290, 50), (100, 90, 120, 110)])
def test_a_view_is_scaled_as_pillow_does(tmp_path: Path, box: tuple[int, int, int, int]) -> None:
    """Smaller or larger, by other factors along the two sides; without what lies outside the view."""
    noise = np.random.default_rng(0).integers(0, 256, (203, 301, 3), dtype=np.uint8)
    path = tmp_path / "noise.png"
    Image.fromarray(noise).save(path)
    seen, _ = seen_through(path, View(box, 64))
    expected = Image.fromarray(noise).crop(box).resize((64, 64), Image.Resampling.BILINEAR)
    assert abs(seen - np.asarray(expected).astype(int)).max() <= 1


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".gif"])
def test_a_view_of_any_mode_is_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"grey{suffix}"
    Image.fromarray(np.arange(256, dtype=np.uint8).reshape(16, 16)).save(path)
    seen, _ = seen_through(path, View((2, 3, 10, 11), 8))
    np.testing.assert_array_equal(seen, pixels(path)[3:11, 2:10])


def test_a_view_of_something_transparent_is_on_white(tmp_path: Path) -> None:
    Image.new("RGBA", (8, 8), (0, 0, 0, 128)).save(tmp_path / "rgba.png")
    seen, _ = seen_through(tmp_path / "rgba.png", View((0, 0, 8, 8), 4))
    assert (seen == 127).all()


@pytest.mark.parametrize("side", [10, 200])
def test_a_damaged_picture_has_no_view(tmp_path: Path, side: int) -> None:
    path = tmp_path / "cut.jpg"
    noise = np.random.default_rng(0).integers(0, 256, (200, 200, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match=r"train\.txt:7: cannot read the image .*cut\.jpg"):
        read_view(path, "train.txt:7", lambda *_: View((0, 0, 200, 200), side))
    with pytest.raises(InputError, match=r"gone\.jpg"):
        read_view(tmp_path / "gone.jpg", "here", lambda *_: View((0, 0, 1, 1), side))
