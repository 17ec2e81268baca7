"""The kind of an input is told from its content."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError
from flashsd_ray.media import load_visual, load_visual_bytes
from flashsd_ray.media.sniffing import picture_format, refusal
from tests.media_files import make_animation, make_picture, make_video

PICTURE_FORMATS = ["PNG", "JPEG", "WEBP", "BMP", "TIFF", "GIF", "PPM", "JPEG2000", "AVIF", "ICO", "QOI"]


@pytest.mark.parametrize("name", PICTURE_FORMATS)
def test_every_picture_format_is_recognised(name: str) -> None:
    assert picture_format(make_picture(name)[:4096]) == name


@pytest.mark.parametrize("name", ["GIF", "WEBP", "PNG", "AVIF"])
def test_animations_are_recognised(name: str) -> None:
    assert picture_format(make_animation(name, num_frames=2)[:4096]) == name


@pytest.mark.parametrize(
    ("header", "problem"),
    [
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "HLS playlist"),
        (b"\n  #EXTM3U\n", "HLS playlist"),
        (b"ffconcat version 1.0\nfile x.mp4\n", "list of other files"),
        (b"v=0\r\no=- 0 0 IN IP4 127.0.0.1\r\n", "network session"),
        (b'<?xml version="1.0"?><MPD/>', "markup"),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>", "markup"),
        (b"\x00\x00\x00\x18ftypheic\x00\x00\x00\x00", "HEIF"),
        (b"%PDF-1.7\n", "PDF"),
        (b"PK\x03\x04\x14\x00", "ZIP"),
        (b"\x00" * 4096, "only zero bytes"),
        (b"What happens in this clip?\n", "is text"),
        ("\ufeffÜber Käse".encode(), "is text"),
        (b"file 'clip.mp4'\n", "is text"),
    ],
)
def test_what_is_no_picture_or_video_is_named(header: bytes, problem: str) -> None:
    assert picture_format(header) is None
    assert problem in str(refusal(header))


def test_videos_are_left_to_ffmpeg() -> None:
    for content in (make_video(), make_video("rawvideo", "yuv4mpegpipe"), make_video("mpeg4", "avi")):
        assert picture_format(content[:4096]) is None
        assert refusal(content[:4096]) is None


@pytest.mark.parametrize("suffix", [".mp4", ".txt", ".png", ".m3u8", ".sdp", ""])
def test_the_name_of_a_file_says_nothing(tmp_path: Path, suffix: str, config: MediaConfig) -> None:
    path = tmp_path / f"input{suffix}"
    path.write_bytes(make_video(num_frames=4))
    assert load_visual(path, config).kind == "video"
    path.write_bytes(make_picture("JPEG"))
    assert load_visual(path, config).kind == "image"


def test_a_text_that_begins_like_a_bitmap_is_text(config: MediaConfig) -> None:
    with pytest.raises(MediaError, match=r"^notes: is text"):
        load_visual_bytes(b"BMW is a maker of cars, and this is a sentence about it.", "notes", config)
