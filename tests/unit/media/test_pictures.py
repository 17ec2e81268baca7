"""Still pictures of every mode come out upright, 8-bit and RGB."""

from __future__ import annotations

import io
from typing import Any

import numpy as np
import pytest
from PIL import Image

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media import load_visual_bytes
from tests.media_files import CORNER_COLOURS, corner_frame, make_picture, numbered_frame, shown_numbers


def pixels_of(data: bytes, config: MediaConfig) -> np.ndarray:  # [H, W, 3] uint8
    visual = load_visual_bytes(data, "picture", config)
    assert visual.kind == "image"
    assert visual.timestamps_s.tolist() == [0.0]
    assert visual.duration_s == 0.0
    return np.asarray(visual.frames[0])


@pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "ICO", "QOI"])
def test_every_format_shows_its_picture(name: str, config: MediaConfig) -> None:
    pixels = pixels_of(make_picture(name, numbered_frame(341)), config)
    assert shown_numbers(pixels[None]) == [341]


@pytest.mark.parametrize("size", [(1, 1), (3, 1), (7, 5), (641, 3)])
def test_any_size_is_kept(size: tuple[int, int], config: MediaConfig) -> None:
    picture = Image.new("RGB", size, (9, 8, 7))
    assert pixels_of(make_picture("PNG", picture), config).tolist() == np.array(picture).tolist()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_exif_orientation_is_applied(name: str, orientation: int, config: MediaConfig) -> None:
    upright = Image.fromarray(corner_frame(64, 32))
    # How a camera that was held so stores the scene: the inverse of what a viewer must do.
    stored = {
        1: lambda image: image,
        2: lambda image: image.transpose(Image.Transpose.FLIP_LEFT_RIGHT),
        3: lambda image: image.transpose(Image.Transpose.ROTATE_180),
        4: lambda image: image.transpose(Image.Transpose.FLIP_TOP_BOTTOM),
        5: lambda image: image.transpose(Image.Transpose.TRANSPOSE),
        6: lambda image: image.transpose(Image.Transpose.ROTATE_90),
        7: lambda image: image.transpose(Image.Transpose.TRANSVERSE),
        8: lambda image: image.transpose(Image.Transpose.ROTATE_270),
    }[orientation](upright)
    exif = Image.Exif()
    exif[0x0112] = orientation
    settings_of: dict[str, dict[str, Any]] = {"JPEG": {"quality": 95}, "WEBP": {"lossless": True}}
    settings = settings_of.get(name, {})
    pixels = pixels_of(make_picture(name, stored, exif=exif, **settings), config)
    assert pixels.shape == (32, 64, 3)
    for place, colour in CORNER_COLOURS.items():
        row, column = 4 if "top" in place else 28, 8 if "left" in place else 56
        assert np.abs(pixels[row, column].astype(int) - colour).max() < 12, place


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_damaged_exif_data_does_not_hide_the_picture(config: MediaConfig) -> None:
    data = make_picture("JPEG", numbered_frame(7), exif=b"Exif\x00\x00MM\x00*\xff\xff\xff\xff nonsense")
    assert shown_numbers(pixels_of(data, config)[None]) == [7]


@pytest.mark.parametrize(
    ("mode", "colour", "shown"),
    [
        ("1", 1, (255, 255, 255)),
        ("L", 90, (90, 90, 90)),
        ("LA", (90, 255), (90, 90, 90)),
        ("LA", (90, 0), (255, 255, 255)),
        ("RGBA", (10, 20, 30, 255), (10, 20, 30)),
        ("RGBA", (10, 20, 30, 0), (255, 255, 255)),
        ("RGBA", (0, 0, 0, 51), (204, 204, 204)),
        ("I;16", 0xABCD, (0xAB, 0xAB, 0xAB)),
    ],
)
def test_modes_of_png(
    mode: str, colour: int | tuple[int, ...], shown: tuple[int, int, int], config: MediaConfig
) -> None:
    pixels = pixels_of(make_picture("PNG", Image.new(mode, (4, 3), colour)), config)
    assert np.unique(pixels.reshape(-1, 3), axis=0).tolist() == [list(shown)]


def test_a_palette_is_looked_up_and_its_transparent_colour_is_white(config: MediaConfig) -> None:
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    assert pixels_of(make_picture("PNG", image), config).tolist() == [[[255, 0, 0], [0, 0, 255]]]
    assert pixels_of(make_picture("PNG", image, transparency=1), config).tolist() == [[[255, 0, 0], [255, 255, 255]]]


def test_a_transparent_colour_without_a_palette_is_white(config: MediaConfig) -> None:
    data = make_picture("PNG", Image.new("RGB", (2, 2), (1, 2, 3)), transparency=(1, 2, 3))
    assert np.unique(pixels_of(data, config)).tolist() == [255]


def test_cmyk_is_converted(config: MediaConfig) -> None:
    pixels = pixels_of(make_picture("JPEG", Image.new("CMYK", (8, 8), (0, 255, 255, 0)), quality=95), config)
    assert (np.abs(pixels.astype(int) - (255, 0, 0)) < 6).all()


def test_sixteen_bits_of_other_formats_keep_their_scale(config: MediaConfig) -> None:
    half = np.full((2, 2), 0x8000, np.uint16)
    assert np.unique(pixels_of(make_picture("TIFF", Image.fromarray(half)), config)).tolist() == [0x80]
    assert np.unique(pixels_of(b"P5 2 2 65535\n" + half.astype(">u2").tobytes(), config)).tolist() == [0x80]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (np.full((2, 2), 0.5, np.float32), "floating-point pixels"),
        (np.full((2, 2), 1 << 20, np.int32), "32-bit pixels"),
    ],
)
def test_numbers_without_a_known_white_are_refused(values: np.ndarray, message: str, config: MediaConfig) -> None:
    with pytest.raises(MediaError, match=f"^picture: has {message}"):
        pixels_of(make_picture("TIFF", Image.fromarray(values)), config)


def test_only_the_first_page_of_a_tiff_is_a_picture(config: MediaConfig) -> None:
    buffer = io.BytesIO()
    pages = [Image.fromarray(numbered_frame(k)) for k in (3, 4)]
    pages[0].save(buffer, "TIFF", save_all=True, append_images=pages[1:])
    assert shown_numbers(pixels_of(buffer.getvalue(), config)[None]) == [3]


def test_sampling_arguments_say_nothing_of_a_still_picture(config: MediaConfig) -> None:
    visual = load_visual_bytes(make_picture(), "picture", config, num_frames=9, start_s=100.0)
    assert visual.frames.shape[0] == 1


class TestLimits:
    """Sizes are read from the header before anything is decoded."""

    @pytest.mark.parametrize("name", ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "AVIF"])
    def test_pixels(self, name: str) -> None:
        with pytest.raises(MediaLimitError, match=r"^picture: has 80x48 pixels; media.max_pixels allows 3839$"):
            load_visual_bytes(make_picture(name), "picture", MediaConfig(max_pixels=80 * 48 - 1))

    def test_bytes_of_a_picture(self) -> None:
        data = make_picture()
        with pytest.raises(
            MediaLimitError, match=f"is a picture of {len(data)} bytes; media.max_image_bytes allows 99"
        ):
            load_visual_bytes(data, "picture", MediaConfig(max_image_bytes=99))

    def test_bytes_of_any_input(self) -> None:
        data = make_picture()
        with pytest.raises(MediaLimitError, match=f"^picture: has {len(data)} bytes; media.max_bytes allows 99$"):
            load_visual_bytes(data, "picture", MediaConfig(max_bytes=99))
