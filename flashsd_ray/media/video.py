"""A video file as the frames that a caller wants of it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaError
from flashsd_ray.media.container import check_duration, open_video
from flashsd_ray.media.display import Display
from flashsd_ray.media.frame_reader import SEEK_PACKETS, DamagedFrameError, FrameReader, SeekError
from flashsd_ray.media.packets import KEPT_BYTES, KeptPackets, NoIndexError, PacketIndex, index_packets
from flashsd_ray.media.picture import check_decoded_bytes, check_pixels
from flashsd_ray.media.sampling import Sampling, Timeline
from flashsd_ray.media.sequential import count_frames, pick_frames
from flashsd_ray.media.source import MediaSource
from flashsd_ray.media.truncation import check_complete
from flashsd_ray.types import VisualInput


def load_video(
    source: MediaSource,
    config: MediaConfig,
    sampling: Sampling,
    *,
    kept_bytes: int = KEPT_BYTES,
    seek_packets: int | None = SEEK_PACKETS,
) -> VisualInput:
    """The chosen frames of a video file; which ones they are depends on neither ``kept_bytes`` nor ``seek_packets``.

    Raises:
        MediaError: the file is no video, refers to others, is damaged or truncated, or ends before ``start_s``.
        MediaLimitError: the file is larger or takes longer than a limit of the config allows.
    """
    check_complete(source)
    try:
        with open_video(source, config) as (container, stream):
            kept = KeptPackets(kept_bytes)
            index = index_packets(container, stream, source, config, kept)
            if kept.packets is not None:
                reader = FrameReader(container, stream, index, source, packets=kept.packets)
                return _Wanted.of(index.timeline, source, config, sampling).read(stream, reader)
        return _load_indexed(source, config, sampling, index, seek_packets)
    except NoIndexError:
        return _load_counted(source, config, sampling)


def _load_indexed(
    source: MediaSource, config: MediaConfig, sampling: Sampling, index: PacketIndex, seek_packets: int | None
) -> VisualInput:
    wanted = _Wanted.of(index.timeline, source, config, sampling)
    try:
        with open_video(source, config) as (container, stream):
            reader = FrameReader(container, stream, index, source, seek_packets=seek_packets)
            return wanted.read(stream, reader)
    except SeekError:
        return _load_indexed(source, config, sampling, index, None)


def _load_counted(source: MediaSource, config: MediaConfig, sampling: Sampling) -> VisualInput:
    with open_video(source, config) as (container, stream):
        counted = count_frames(container, stream, source, config)
    wanted = _Wanted.of(counted.timeline, source, config, sampling)
    for row, index in enumerate(wanted.chosen):
        if not counted.is_sound[index]:
            raise wanted.damage(row, "its data is damaged")
    with open_video(source, config) as (container, stream):
        return wanted.collect(stream, pick_frames(container, stream, source, wanted.chosen))


@dataclass(frozen=True, slots=True, kw_only=True)
class _Wanted:
    """The frames chosen of one source, still to be decoded."""

    chosen: list[int]
    timeline: Timeline
    source: MediaSource
    config: MediaConfig

    @classmethod
    def of(cls, timeline: Timeline, source: MediaSource, config: MediaConfig, sampling: Sampling) -> _Wanted:
        check_duration(source, timeline.duration_s, config)
        chosen = sampling.choose(timeline)
        if not chosen:
            raise source.error(f"start_s lies after its end at {timeline.duration_s:.2f} s")
        return cls(chosen=chosen, timeline=timeline, source=source, config=config)

    def read(self, stream: VideoStream, reader: FrameReader) -> VisualInput:
        return self.collect(stream, (reader.frame(int(self.timeline.ticks[index])) for index in self.chosen))

    def collect(self, stream: VideoStream, frames: Iterator[VideoFrame]) -> VisualInput:
        pictures: np.ndarray | None = None
        display: Display | None = None
        for row in range(len(self.chosen)):
            try:
                frame = next(frames, None)
            except DamagedFrameError as error:
                raise self.damage(row, str(error)) from error
            if frame is None:
                raise self.damage(row, "decoding it again gives fewer frames")
            check_pixels(self.source, frame.width, frame.height, self.config)
            if display is None or pictures is None:
                display = Display(stream, frame)
                pictures = self._room(*display.size)
            pictures[row] = display.pixels(frame)
        assert pictures is not None
        return VisualInput(
            kind="video",
            frames=pictures,
            timestamps_s=np.array([self.timeline.time_s(index) for index in self.chosen]),
            source=self.source.label,
            duration_s=self.timeline.duration_s,
        )

    def damage(self, row: int, problem: str) -> MediaError:
        time_s = self.timeline.time_s(self.chosen[row])
        decoded = f"{row} of {len(self.chosen)} frames could be decoded"
        return self.source.error(f"is damaged at {time_s:.2f} s: {problem}; {decoded}")

    def _room(self, width: int, height: int) -> np.ndarray:
        check_pixels(self.source, width, height, self.config)
        shape = (len(self.chosen), height, width, 3)
        check_decoded_bytes(self.source.label, shape, self.config)
        return np.empty(shape, np.uint8)
