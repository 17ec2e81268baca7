"""Pictures of every form that callers have, told apart and sent without loss."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as PillowImage

from flashsd_ray.client import Image, Video
from flashsd_ray.client.pictures import Pictures, Visual
from flashsd_ray.errors import ConfigError, InvalidRequestError, MediaError, MediaLimitError
from tests.media_files import corner_frame, make_animation, make_picture, make_video

FRAMES = np.arange(2 * 4 * 6 * 3, dtype=np.uint8).reshape(2, 4, 6, 3)


@pytest.mark.parametrize("image_format", ["PNG", "JPEG", "WEBP", "BMP", "GIF", "TIFF"])
@pytest.mark.parametrize("is_file", [True, False], ids=["path", "bytes"])
def test_a_picture_file_is_sent_as_it_is(image_format: str, is_file: bool, tmp_path: Path) -> None:
    content = make_picture(image_format)
    (tmp_path / "clip.mp4").write_bytes(content)
    part = Pictures().part(tmp_path / "clip.mp4" if is_file else content)
    assert part.image.encoded == content


@pytest.mark.parametrize(
    "content",
    [make_video(num_frames=2), make_video("libvpx-vp9", "webm", num_frames=2), make_animation("GIF", 3), b"whatever"],
    ids=["mp4", "webm", "animation", "left to the server"],
)
def test_everything_else_is_sent_as_a_video(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "picture.png").write_bytes(content)
    for given in (str(tmp_path / "picture.png"), content, bytearray(content), memoryview(content)):
        assert Pictures().part(given).video.encoded == content


def test_frames_arrive_as_they_were() -> None:
    part = Pictures().part(FRAMES[0])
    assert (part.image.raw.width, part.image.raw.height) == (6, 4)
    assert np.frombuffer(part.image.raw.rgb, np.uint8).reshape(4, 6, 3).tolist() == FRAMES[0].tolist()
    part = Pictures().part(FRAMES[:, ::-1])
    assert [one.raw.rgb for one in part.video.frames.frames] == [one.tobytes() for one in FRAMES[:, ::-1]]


def test_frames_are_small_as_jpeg() -> None:
    pixels = corner_frame()
    encoded = Pictures(jpeg_quality=90).image(pixels).encoded
    assert encoded.startswith(b"\xff\xd8\xff")
    shown = np.asarray(PillowImage.open(io.BytesIO(encoded)))
    assert np.abs(shown.astype(int) - pixels)[:20, :30].max() < 16
    assert Pictures(jpeg_quality=90).image(make_picture("PNG")).encoded == make_picture("PNG"), "files stay as they are"


def test_a_video_says_which_frames_are_meant() -> None:
    part = Pictures().part(Video(b"x", num_frames=4, start_s=1.0, end_s=2.0))
    assert (part.video.num_frames, part.video.start_s, part.video.end_s) == (4, 1.0, 2.0)
    assert not Pictures().part(Video(b"x")).video.HasField("start_s")
    part = Pictures().part(Video(FRAMES, timestamps_s=(0.0, 0.5)))
    assert list(part.video.frames.timestamps_s) == [0.0, 0.5]


@pytest.mark.parametrize(
    ("address", "kind"),
    [
        ("https://example.org/a.JPG", "image"),
        ("http://example.org/a.png?size=2", "image"),
        ("data:image/png;base64,AAAA", "image"),
        ("https://example.org/a.mp4#t=3", "video"),
        ("data:video/mp4;base64,AAAA", "video"),
        ("data:image/gif;base64,AAAA", "video"),
        ("file:///srv/clip.webm", "video"),
    ],
)
def test_addresses_are_left_to_the_server(address: str, kind: str) -> None:
    part = Pictures().part(address)
    assert part.WhichOneof("part") == kind
    assert getattr(part, kind).url == address


def test_an_address_that_does_not_say_what_it_is() -> None:
    with pytest.raises(InvalidRequestError, match=r"with Image\(...\) or Video\(...\)"):
        Pictures().part("https://example.org/watch?v=1.png")
    assert Pictures().part(Image("https://example.org/x")).image.url == "https://example.org/x"
    assert Pictures().part(Video("https://example.org/x")).video.url == "https://example.org/x"


@pytest.mark.parametrize(
    ("visual", "message"),
    [
        (np.zeros((4, 6, 3)), "an image is .* got .*float64"),
        (np.zeros((4, 6, 4), np.uint8), "an image is"),
        (np.zeros((0, 6, 3), np.uint8), "not empty"),
        (np.zeros((4, 6), np.uint8), r"got ndarray \(4, 6\) uint8"),
        (Video(np.zeros((4, 6, 3), np.uint8)), "a video is"),
        (Image(np.zeros((1, 4, 6, 3), np.uint8)), "an image is"),
        (Video(FRAMES, timestamps_s=(0.0,)), "2 frames need as many timestamps, got 1"),
        (3, "got int"),
        (None, "got NoneType"),
    ],
)
def test_what_is_no_picture(visual: Visual, message: str) -> None:
    with pytest.raises(InvalidRequestError, match=message):
        Pictures().part(visual)


def test_files_that_cannot_be_sent(tmp_path: Path) -> None:
    with pytest.raises(MediaError, match=r"missing.mp4: does not exist"):
        Pictures().part(tmp_path / "missing.mp4")
    with pytest.raises(MediaError, match="is not a regular file"):
        Pictures().part(tmp_path)
    with pytest.raises(MediaError, match="is not a regular file"):
        Pictures().part("/dev/zero")
    with pytest.raises(MediaError, match=r"cannot be read|does not exist"):
        Pictures().part("a\0b")
    (tmp_path / "large").write_bytes(bytes(11))
    with pytest.raises(MediaLimitError, match=r"has 11 bytes; the server accepts 10 \(serving.max_body_bytes\)"):
        Pictures(max_bytes=10).part(tmp_path / "large")


@pytest.mark.parametrize("quality", [0, 101])
def test_a_quality_that_does_not_exist(quality: int) -> None:
    with pytest.raises(ConfigError, match="jpeg_quality"):
        Pictures(jpeg_quality=quality)
