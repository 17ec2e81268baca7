"""Decoding of chosen frames: every frame asked for is bit-exactly the one that plain decoding from the start gives.

A group of pictures without a chosen frame is never decoded: its packets are passed over, by a seek when there are many.
A seek is only a short cut. Decoding begins when the very key packet that the index names has arrived.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import av
from av.container import InputContainer
from av.packet import Packet
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from flashsd_ray.media.packets import NoIndexError, PacketIndex
from flashsd_ray.media.source import MediaSource
from flashsd_ray.media.translation import reason

# Below this a seek, which makes FFmpeg search the file, costs more than passing packets over.
SEEK_PACKETS = 256

# Longer than the 16 frames that a codec may keep back.
EARLY_S = 1


class DamagedFrameError(Exception):
    """A frame, or one that it is predicted from, cannot be decoded."""


class SeekError(Exception):
    """A seek went past the packet that was looked for."""


class FrameReader:
    """Frames of one container, in ascending order of time."""

    def __init__(
        self,
        container: InputContainer,
        stream: VideoStream,
        index: PacketIndex,
        source: MediaSource,
        *,
        seek_packets: int | None = SEEK_PACKETS,  # None: never seek
        packets: Sequence[Packet[VideoStream]] | None = None,  # all of them; None: the container stands at its start
    ) -> None:
        self._container = container
        self._stream = stream
        self._index = index
        self._source = source
        self._seek_packets = seek_packets if packets is None else None
        self._early_ticks = 0  # how far before a key frame a seek must aim to arrive before it
        self._packets: Iterator[Packet[VideoStream]] = container.demux(stream) if packets is None else iter(packets)
        self._frames = self._decoded(None)
        self._next_position = 0  # of the packet that the decoder gets next
        self._damaged: dict[int, str] = {}  # position of a packet: what is wrong with its frame

    def frame(self, pts: int) -> VideoFrame:
        """The frame that is shown from ``pts`` on.

        Raises:
            DamagedFrameError: the frame is damaged, or one between its key frame and itself.
            SeekError: the container cannot be searched; read it anew without seeking.
            NoIndexError: the decoder does not show a frame at ``pts``, so the index is wrong.
        """
        position = self._index.position(pts)
        assert position is not None
        key_position = int(self._index.key_positions[self._index.group(position, pts)])
        if key_position > self._next_position:
            self._frames = self._decoded(self._pass_over_to(key_position))
        for frame in self._frames:
            if frame.pts is None or frame.pts >= pts:
                self._check_sound(key_position, position)
                if frame.pts != pts:
                    raise NoIndexError
                return frame
        self._check_sound(key_position, position)
        raise NoIndexError

    def _check_sound(self, key_position: int, position: int) -> None:
        problems = [self._damaged[p] for p in sorted(self._damaged) if key_position <= p <= position]
        if problems:
            raise DamagedFrameError(problems[0])

    def _pass_over_to(self, key_position: int) -> Packet[VideoStream]:
        key_pts = int(self._index.key_pts[self._index.key_positions.searchsorted(key_position)])
        distance = key_position - self._next_position
        is_far = self._seek_packets is not None and distance > self._seek_packets
        packet = self._find(key_position, key_pts - self._early_ticks if is_far else None)
        if packet is None and is_far and not self._early_ticks:
            # Some formats are searched by the time of decoding, which comes before the time of showing.
            self._early_ticks = math.ceil(EARLY_S / self._index.timeline.tick_s)
            packet = self._find(key_position, key_pts - self._early_ticks)
        if packet is None:
            raise NoIndexError if self._seek_packets is None else SeekError
        self._next_position = key_position
        return packet

    def _find(self, key_position: int, seek_pts: int | None) -> Packet[VideoStream] | None:
        if seek_pts is not None:
            try:
                self._container.seek(seek_pts, stream=self._stream)
            except av.error.FFmpegError as error:
                raise SeekError from error
            self._packets = self._container.demux(self._stream)
        self._stream.codec_context.flush_buffers()
        for packet in self._packets:
            self._source.check()
            position = self._index.position(packet.pts)
            if position == key_position and packet.is_keyframe:
                return packet
            if position is not None and position > key_position:
                return None
        return None

    def _decoded(self, first: Packet[VideoStream] | None) -> Iterator[VideoFrame]:
        if first is not None:
            yield from self._decode(first)
        for packet in self._packets:
            yield from self._decode(packet)

    def _decode(self, packet: Packet[VideoStream]) -> list[VideoFrame]:
        self._source.check()
        position = self._next_position
        self._next_position += packet.size > 0
        frames: list[VideoFrame] = []
        try:
            frames = packet.decode()
        except av.error.FFmpegError as error:
            self._damaged[position] = reason(error)
        for frame in frames:
            if frame.is_corrupt:
                shown = self._index.position(frame.pts)
                self._damaged[position if shown is None else shown] = "its data is damaged"
        return frames
