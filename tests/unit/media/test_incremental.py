"""Containers whose bytes come piece by piece: the same frames as from the whole file, each as soon as it can be."""

from __future__ import annotations

import io
import threading

import av
import numpy as np
import pytest

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError, MediaLimitError
from flashsd_ray.media.incremental import ChunkSource, frames_as_they_arrive
from tests.media_files import make_audio, make_picture, make_video, shown_numbers
from tests.unit.media.damaged_inputs import LIMITS, damaged_inputs

FRAGMENTS = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}

STREAMS = {
    "mp4 with its index in front": {"container_options": {"moov_size": "20000"}},
    "fragmented mp4": {"container_options": FRAGMENTS},
    "fragmented mp4, B-frames": {"container_options": FRAGMENTS, "codec_options": {"bf": "2", "g": "10"}},
    "matroska": {"container": "matroska"},
    "live matroska": {"container": "matroska", "container_options": {"live": "1"}},
    "webm": {"codec": "libvpx-vp9", "container": "webm", "codec_options": {"cpu-used": "8", "deadline": "realtime"}},
    "transport stream": {"container": "mpegts"},
    "flash video": {"container": "flv"},
    "motion jpeg in avi": {"codec": "mjpeg", "container": "avi", "pixel_format": "yuvj420p"},
    "raw h264": {"container": "h264"},
}


class Pushed:
    """Reads a source that is fed in step: the next chunk comes when the one before is used up."""

    def __init__(self, data: bytes, chunk_bytes: int, config: MediaConfig, *, every: int = 1) -> None:
        self.frames: list[np.ndarray] = []
        self.times_s: list[float] = []
        self.bytes_fed = 0
        self.fed_at_first_frame: int | None = None
        self._data, self._chunk_bytes = data, chunk_bytes
        self.source = ChunkSource("upload", self._feed, config)
        self._number = -1
        self._feed()
        for time_s, pixels in frames_as_they_arrive(self.source, config, lambda time_s: self._counts(every)):
            self.fed_at_first_frame = self.fed_at_first_frame or self.bytes_fed
            self.times_s.append(time_s)
            self.frames.append(pixels)

    def _counts(self, every: int) -> bool:
        self._number += 1
        return self._number % every == 0

    def _feed(self) -> None:
        chunk = self._data[self.bytes_fed : self.bytes_fed + self._chunk_bytes]
        self.bytes_fed += len(chunk)
        self.source.feed(chunk, is_last=self.bytes_fed == len(self._data))


@pytest.mark.parametrize("chunk_bytes", [997, 10**7])
@pytest.mark.parametrize("name", STREAMS)
def test_every_frame_comes_in_order_and_in_time(config: MediaConfig, name: str, chunk_bytes: int) -> None:
    pushed = Pushed(make_video(num_frames=40, fps=25, **STREAMS[name]), chunk_bytes, config)  # type: ignore[arg-type]
    assert shown_numbers(np.stack(pushed.frames)) == list(range(40))
    assert pushed.times_s == pytest.approx([number / 25 for number in range(40)], abs=0.001)


def test_frames_come_before_the_file_is_whole(config: MediaConfig) -> None:
    data = make_video(num_frames=200, fps=20, container="matroska", frames=_noise(200), codec_options={"g": "10"})
    pushed = Pushed(data, 2000, config)
    assert len(pushed.frames) == 200
    assert pushed.fed_at_first_frame is not None
    assert pushed.fed_at_first_frame < len(data) / 2


def test_only_wanted_frames_are_given(config: MediaConfig) -> None:
    pushed = Pushed(make_video(num_frames=20, container="matroska"), 5000, config, every=5)
    assert shown_numbers(np.stack(pushed.frames)) == [0, 5, 10, 15]


def test_the_memory_of_a_source_does_not_grow(config: MediaConfig) -> None:
    data = make_video(num_frames=60, container="mpegts")
    pushed = Pushed(data, 1000, config)
    assert len(pushed.source._waiting) == 0
    assert pushed.source.tell() == len(data)


@pytest.mark.parametrize("codec", ["mpeg4", "libx264"])  # one marks the frame, the other refuses the packet
def test_damage_is_passed_over_until_the_next_key_frame(config: MediaConfig, codec: str) -> None:
    options = {"g": "10", "bf": "0", "sc_threshold": "1000000000" if codec == "mpeg4" else "0"}
    video = bytearray(make_video(codec, "matroska", num_frames=60, codec_options=options))
    start, size = _packets(bytes(video))[13]
    video[start + size // 4 : start + size] = bytes([0xA5]) * (size - size // 4)
    if codec == "libx264":
        video[start : start + size] = bytes([0xA5]) * size
    assert shown_numbers(np.stack(Pushed(bytes(video), 5000, config).frames)) == [*range(13), *range(20, 60)]


def test_a_stream_may_begin_between_key_frames(config: MediaConfig) -> None:
    options = {"g": "10", "bf": "0", "sc_threshold": "0"}
    video = make_video(num_frames=60, container="mpegts", codec_options=options)
    start, _ = _packets(video)[14]
    assert shown_numbers(np.stack(Pushed(video[start:], 5000, config).frames)) == list(range(20, 60))


def test_pictures_of_several_sizes_take_the_first_ones(config: MediaConfig) -> None:
    data = make_video(container="h264", num_frames=5) + make_video(container="h264", num_frames=5, size=(160, 96))
    pushed = Pushed(data, 10**6, config)
    assert len({frame.shape for frame in pushed.frames}) == 1


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        (make_video(), "has its index at the end"),
        (make_picture(), "is a picture .PNG.; send it as a frame"),
        (b"#EXTM3U\n", "HLS playlist"),
        (b"hello there, this is text", "is text"),
        (b"", "is empty"),
        (make_audio(container="mp3", codec="mp3"), "no video stream"),
        (bytes(range(1, 255)) * 40, "cannot be read as a video"),
        (make_video(container="matroska")[:300], "upload: "),
    ],
)
def test_what_cannot_be_decoded_as_it_comes_is_refused(config: MediaConfig, data: bytes, problem: str) -> None:
    with pytest.raises(MediaError, match=problem):
        Pushed(data, 100, config)


def test_nothing_that_is_sent_does_more_than_end_in_a_typed_error() -> None:
    messages = []
    for item in damaged_inputs():
        try:
            Pushed(item.content, len(item.content) // 5 + 1, LIMITS)
        except MediaError as error:
            messages.append(str(error))
    assert len(messages) > 50
    assert all(message.startswith("upload: ") for message in messages)


def test_bytes_without_a_frame_are_bounded() -> None:
    video = make_video(container="matroska", num_frames=200, frames=_noise(200), codec_options={"g": "10"})
    limit = MediaConfig(max_bytes=len(video) // 4)
    assert len(Pushed(video, 1000, limit).frames) == 200  # not of a stream as a whole
    silence = b"\xec\x08\x00\x00\x00" + bytes(0x7FFFFFF)  # a Matroska element to be passed over
    with pytest.raises(MediaError, match=r"bytes without a frame; media\.max_bytes allows"):
        Pushed(video[: len(video) // 8] + silence[: len(video)], 1000, limit)


def test_pictures_larger_than_allowed_are_refused() -> None:
    with pytest.raises(MediaLimitError, match=r"media\.max_pixels"):
        Pushed(make_video(container="matroska"), 5000, MediaConfig(max_pixels=1000))


def test_closing_wakes_a_reader_that_waits(config: MediaConfig) -> None:
    hungry = threading.Event()
    source = ChunkSource("upload", hungry.set, config)
    found: list[object] = []

    def read() -> None:
        try:
            found.extend(frames_as_they_arrive(source, config, lambda time_s: True))
        except MediaError as error:
            found.append(error)

    thread = threading.Thread(target=read)
    thread.start()
    assert hungry.wait(10)
    source.close()
    thread.join(10)
    assert not thread.is_alive()
    assert isinstance(found[0], MediaError)


def _noise(num_frames: int) -> np.ndarray:  # [F, H, W, 3] uint8
    return np.random.default_rng(0).integers(0, 255, (num_frames, 48, 80, 3), np.uint8)


def _packets(video: bytes) -> list[tuple[int, int]]:
    """Where each packet stands in a file, and its size; in Matroska the position is that of its block's header."""
    with av.open(io.BytesIO(video)) as container:
        found = [packet for packet in container.demux(video=0) if packet.size]
    if container.format.name == "mpegts":
        return [(packet.pos or 0, packet.size) for packet in found]
    return [(video.index(bytes(packet), packet.pos or 0), packet.size) for packet in found]
