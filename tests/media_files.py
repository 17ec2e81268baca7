"""Pictures and videos made at test time, whose frames carry their number in their pixels.

The number of a frame is painted as bars, black for 0 and white for 1, wide enough to survive any lossy codec.
"""

from __future__ import annotations

import io
from collections.abc import Iterable, Sequence
from fractions import Fraction
from typing import Any, cast

import av
import numpy as np
from av.audio.stream import AudioStream
from av.packet import Packet
from av.video.stream import VideoStream
from PIL import Image

NUM_BARS = 10
WIDTH, HEIGHT = 80, 48

# How the packets of chosen frames are reached: arguments of ``load_video``.
WAYS: dict[str, dict[str, int | None]] = {
    "kept": {"kept_bytes": 2**30},
    "sought": {"kept_bytes": 0, "seek_packets": 0},
    "passed over": {"kept_bytes": 0, "seek_packets": None},
}

CORNER_COLOURS = {"top left": (250, 0, 0), "top right": (0, 250, 0), "bottom left": (0, 0, 250)}  # bottom right: black


def numbered_frame(number: int, width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:  # [H, W, 3] uint8
    """A picture that shows the number."""
    bits = (number >> np.arange(NUM_BARS)) & 1
    row = bits[np.arange(width) * NUM_BARS // width] * 255
    return np.broadcast_to(row[None, :, None], (height, width, 3)).astype(np.uint8)


def shown_numbers(frames: np.ndarray) -> list[int]:  # [F, H, W, 3] uint8
    """The number that each frame shows."""
    _, height, width, _ = frames.shape
    centres = (np.arange(NUM_BARS) * 2 + 1) * width // (2 * NUM_BARS)
    bars = frames[:, height // 2, centres].mean(axis=2) > 127  # [F, NUM_BARS]
    return [int(number) for number in (bars * (1 << np.arange(NUM_BARS))).sum(axis=1)]


def corner_frame(width: int = WIDTH, height: int = HEIGHT) -> np.ndarray:  # [H, W, 3] uint8
    """A picture whose four quarters differ in colour."""
    frame = np.zeros((height, width, 3), np.uint8)
    frame[: height // 2, : width // 2] = CORNER_COLOURS["top left"]
    frame[: height // 2, width // 2 :] = CORNER_COLOURS["top right"]
    frame[height // 2 :, : width // 2] = CORNER_COLOURS["bottom left"]
    return frame


def make_video(
    codec: str = "libx264",
    container: str = "mp4",
    *,
    num_frames: int = 30,
    fps: int = 30,
    size: tuple[int, int] = (WIDTH, HEIGHT),
    pixel_format: str = "yuv420p",
    codec_options: dict[str, str] | None = None,
    container_options: dict[str, str] | None = None,
    ticks: Sequence[int] | None = None,
    ticks_per_second: int | None = None,
    frames: Iterable[np.ndarray] | None = None,
    rotation: tuple[float, bool, bool] | None = None,
    pixel_aspect: Fraction | None = None,
    audio_codec: str | None = None,
) -> bytes:
    """The bytes of a video of numbered frames.

    Args:
        ticks: when each frame is shown, in ticks; without them frame k is shown at k / fps.
        frames: what to show instead of numbers.
        rotation: degrees counter-clockwise, then whether it is mirrored horizontally and vertically.
    """
    width, height = size
    pictures = frames if frames is not None else (numbered_frame(k, width, height) for k in range(num_frames))
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container, options=container_options or {}) as output:
        stream = cast("VideoStream", output.add_stream(codec, rate=fps, options=codec_options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.time_base = Fraction(1, ticks_per_second or fps)
        stream.thread_count = 1
        if pixel_aspect is not None:
            stream.codec_context.sample_aspect_ratio = pixel_aspect
        if rotation is not None:
            stream.set_display_rotation(*rotation)
        audio = cast("AudioStream", output.add_stream(audio_codec, rate=48000)) if audio_codec else None
        for number, picture in enumerate(pictures):
            frame = av.VideoFrame.from_ndarray(picture, "rgba" if picture.shape[2] == 4 else "rgb24")
            if frame.format.name != pixel_format:
                frame = frame.reformat(format=pixel_format)
            frame.pts = ticks[number] if ticks is not None else number
            frame.time_base = Fraction(1, ticks_per_second or fps)
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if audio is not None:
            output.mux(_silence(audio, seconds=1))
    return buffer.getvalue()


def make_audio(codec: str = "aac", container: str = "mp4") -> bytes:
    """The bytes of one second of silence."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format=container) as output:
        output.mux(_silence(cast("AudioStream", output.add_stream(codec, rate=48000)), seconds=1))
    return buffer.getvalue()


def make_picture(image_format: str = "PNG", frame: np.ndarray | Image.Image | None = None, **options: Any) -> bytes:
    """The bytes of a still picture; of a numbered frame when none is given."""
    image = frame if isinstance(frame, Image.Image) else Image.fromarray(numbered_frame(5) if frame is None else frame)
    buffer = io.BytesIO()
    image.save(buffer, image_format, **options)
    return buffer.getvalue()


def make_animation(
    image_format: str = "GIF", num_frames: int = 10, delay_ms: int | list[int] = 50, **options: Any
) -> bytes:
    """The bytes of an animated picture of numbered frames."""
    first, *rest = (Image.fromarray(numbered_frame(k)) for k in range(num_frames))
    buffer = io.BytesIO()
    settings: dict[str, object] = {"duration": delay_ms, "loop": 0, **options}
    if image_format == "WEBP":
        settings["lossless"] = True
    first.save(buffer, image_format, save_all=True, append_images=rest, **settings)
    return buffer.getvalue()


def with_many_tracks(mp4: bytes, num_tracks: int) -> bytes:
    """The MP4 file with its one track listed so many times (the media data stays where it is)."""
    moov = mp4.index(b"moov") - 4
    moov_bytes = int.from_bytes(mp4[moov : moov + 4], "big")
    track = mp4.index(b"trak", moov) - 4
    track_bytes = int.from_bytes(mp4[track : track + 4], "big")
    copies = mp4[track : track + track_bytes] * (num_tracks - 1)
    size = (moov_bytes + len(copies)).to_bytes(4, "big")
    return mp4[:moov] + size + mp4[moov + 4 : track] + copies + mp4[track:]


def _silence(stream: AudioStream, seconds: int) -> list[Packet[Any]]:
    packets: list[Packet[Any]] = []
    for start in range(0, seconds * 48000, 1024):
        frame = av.AudioFrame.from_ndarray(np.zeros((2, 1024), np.float32), format="fltp", layout="stereo")
        frame.sample_rate, frame.pts, frame.time_base = 48000, start, Fraction(1, 48000)
        packets += stream.encode(frame)
    return packets + stream.encode(None)
