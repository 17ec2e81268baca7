"""What the packets of a video say about its frames, read once without decoding anything.

A packet tells when its frame is shown and whether decoding can begin with it. That is enough to choose frames exactly,
whatever the header claims, and to know which packets each of them needs; torchcodec calls this its exact mode.
"""

from __future__ import annotations

from array import array
from dataclasses import dataclass
from fractions import Fraction

import av
import numpy as np
from av.container import InputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaLimitError
from flashsd_ray.media.sampling import Timeline
from flashsd_ray.media.source import MediaSource
from flashsd_ray.media.translation import reason

# Codecs keep at most 16 frames back to reorder them, twice as many fields. Timestamps that jump further are not times.
MAX_REORDERED_PACKETS = 32

# Opening a container costs as much as decoding 20 small frames, so a file with fewer bytes of video is opened once.
KEPT_BYTES = 8 * 2**20


class NoIndexError(Exception):
    """The packets do not tell when their frames are shown, or tell it wrongly."""


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class PacketIndex:
    """Where the packets of a video stand: their *position* counts them in the order of the file, from 0."""

    sorted_pts: np.ndarray  # [P] int64, strictly ascending, in ticks
    positions: np.ndarray  # [P] int64, position of the packet with each sorted pts
    key_positions: np.ndarray  # [G] int64, ascending; decoding can begin here
    key_pts: np.ndarray  # [G] int64
    timeline: Timeline  # of the frames that are shown

    def position(self, pts: int | None) -> int | None:
        """Position of the packet whose frame is shown at ``pts``; None when there is none."""
        if pts is None:
            return None
        place = int(np.searchsorted(self.sorted_pts, pts))
        if place == len(self.sorted_pts) or int(self.sorted_pts[place]) != pts:
            return None
        return int(self.positions[place])

    def group(self, position: int, pts: int) -> int:
        """Which key packet decoding must begin with to get this frame; -1 when there is none."""
        group = int(np.searchsorted(self.key_positions, position, side="right")) - 1
        # A frame that is shown before its key frame but stored after it refers to the group before.
        while group >= 0 and int(self.key_pts[group]) > pts:
            group -= 1
        return group


class KeptPackets:
    """All packets of a video, as long as they are small; of a larger one none."""

    def __init__(self, limit_bytes: int) -> None:
        self.packets: list[Packet[VideoStream]] | None = []  # None: there were too many
        self._left_bytes = limit_bytes

    def add(self, packet: Packet[VideoStream]) -> None:
        """The packet is kept, or nothing is from now on."""
        self._left_bytes -= packet.size
        if self._left_bytes < 0:
            self.packets = None
        elif self.packets is not None:
            self.packets.append(packet)


def index_packets(
    container: InputContainer, stream: VideoStream, source: MediaSource, config: MediaConfig, kept: KeptPackets
) -> PacketIndex:
    """The index of a container that stands at its start; it then stands at its end, and ``kept`` has its packets.

    Raises:
        NoIndexError: the packets have no times, or times that cannot be right.
        MediaError: the container is damaged.
        MediaLimitError: there are more packets than ``media.max_source_frames``.
    """
    pts, is_key, is_shown, last_ticks = array("q"), bytearray(), bytearray(), 0
    has_times, is_cut = True, False
    try:
        for packet in container.demux(stream):
            source.check()
            kept.add(packet)
            if packet.size == 0:
                continue
            has_times &= packet.pts is not None
            pts.append(packet.pts if packet.pts is not None else 0)
            is_key.append(packet.is_keyframe)
            is_shown.append(not packet.is_discard)
            is_cut = packet.is_corrupt
            last_ticks = packet.duration or last_ticks
            if len(pts) > config.max_source_frames:
                raise MediaLimitError(f"{source.label}: has more frames than media.max_source_frames allows")
    except av.error.FFmpegError as error:
        source.check()
        raise source.error(f"is damaged after {len(pts)} frames: {reason(error)}") from error
    # Elsewhere the mark says little: transport streams that were joined carry it at every joint.
    if is_cut:
        raise source.error(f"is truncated: its last frame, number {len(pts)}, is not complete")
    if not has_times or not pts or stream.time_base is None:
        raise NoIndexError
    flags = np.frombuffer(is_key, dtype=np.bool_), np.frombuffer(is_shown, dtype=np.bool_)
    return _index(np.frombuffer(pts, dtype=np.int64), *flags, tick_s=Fraction(stream.time_base), last_ticks=last_ticks)


def _index(
    pts: np.ndarray,  # [P] int64, in the order of the file
    is_key: np.ndarray,  # [P] bool
    is_shown: np.ndarray,  # [P] bool
    *,
    tick_s: Fraction,
    last_ticks: int,  # how long the last frame is shown
) -> PacketIndex:
    positions = np.argsort(pts, kind="stable")
    sorted_pts = pts[positions]
    key_positions = np.flatnonzero(is_key)
    reordered = np.abs(positions - np.arange(len(pts))).max()
    if len(key_positions) == 0 or reordered > MAX_REORDERED_PACKETS or (sorted_pts[1:] == sorted_pts[:-1]).any():
        raise NoIndexError
    # What comes before the first key packet, in the file or on the screen, cannot be decoded.
    first_key = int(key_positions[0])
    can_be_shown = is_shown[positions] & (positions >= first_key) & (sorted_pts >= pts[first_key])
    ticks = sorted_pts[can_be_shown]
    if len(ticks) == 0:
        raise NoIndexError
    mean_ticks = (int(ticks[-1]) - int(ticks[0])) // max(len(ticks) - 1, 1)
    return PacketIndex(
        sorted_pts=sorted_pts,
        positions=positions,
        key_positions=key_positions,
        key_pts=pts[key_positions],
        timeline=Timeline(ticks=ticks, tick_s=tick_s, end_tick=int(ticks[-1]) + max(last_ticks, mean_ticks, 1)),
    )
