"""Corpora for measurements: clips of the town, other codecs, and files that are damaged in known ways."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path
from typing import cast

import av
import numpy as np
from av.video.stream import VideoStream

from flashsd_ray.bench.serving.progress import counting
from flashsd_ray.config import MediaConfig
from flashsd_ray.media import load_visual
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.training.town.video import write_video

FIRST_SEED = 940_000  # away from the clips of other measurements
CLIP_PIXELS, CLIP_S = 96, 1.0
CODECS = {  # container and pixel format
    "mpeg4": ("avi", "yuv420p"),
    "mjpeg": ("mov", "yuvj420p"),
    "libvpx-vp9": ("webm", "yuv420p"),
    "libx265": ("mkv", "yuv420p"),
    "libx264": ("ts", "yuv420p"),
    "ffv1": ("mkv", "yuv420p"),
}


def write_clips(directory: Path, num_clips: int, *, seconds: float = CLIP_S, size_px: int = CLIP_PIXELS) -> list[Path]:
    """The directory holds so many small clips; those that are there stay."""
    directory.mkdir(parents=True, exist_ok=True)
    paths = [directory / f"clip-{number:05d}.mp4" for number in range(num_clips)]
    with counting("making clips", num_clips) as made:
        for number, path in enumerate(paths):
            if not path.exists():
                scene = replace(sample_scene(FIRST_SEED + number, "heldout"), duration_s=seconds)
                partial = path.with_suffix(".part.mp4")
                write_video(scene, partial, size_px=size_px)
                partial.rename(path)
            made()
    return paths


def write_codecs(directory: Path, clip: Path) -> list[Path]:
    """The clip in every codec that can be written here."""
    directory.mkdir(parents=True, exist_ok=True)
    frames = load_visual(clip, MediaConfig(), num_frames=16).frames
    written = []
    for codec, (container, pixels) in CODECS.items():
        path = directory / f"codec-{codec}.{container}"
        if codec in av.codecs_available:
            _encode(path, frames, codec, pixels)
            written.append(path)
    return written


def write_damaged(directory: Path, clip: Path, number: int) -> list[Path]:
    """So many files that no reader can read: empty, cut off, not what they say, overwritten."""
    directory.mkdir(parents=True, exist_ok=True)
    content = clip.read_bytes()
    paths = []
    for index, damaged in enumerate(islice(_damaged(content), number)):
        path = directory / f"damaged-{index:03d}.mp4"
        path.write_bytes(damaged)
        paths.append(path)
    return paths


def _damaged(content: bytes) -> Iterator[bytes]:
    source = np.random.default_rng(0)
    while True:
        yield b""
        yield content[: int(source.integers(8, 40))]
        yield source.bytes(int(source.integers(100, 5000)))
        yield b"<html>not a video</html>" * int(source.integers(1, 50))
        yield b"\0" * len(content)


def _encode(path: Path, frames: np.ndarray, codec: str, pixel_format: str) -> None:
    with av.open(str(path), "w") as output:
        stream = cast("VideoStream", output.add_stream(codec, rate=8))
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = pixel_format
        for frame in frames:
            output.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        output.mux(stream.encode(None))
