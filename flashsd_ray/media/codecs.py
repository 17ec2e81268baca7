"""Which kinds of video this build of FFmpeg can decode; for reports."""

from __future__ import annotations

from collections.abc import Iterable

import av

COMMON_DECODERS = ("h264", "hevc", "vp8", "vp9", "av1", "mpeg4", "mpeg2video", "mjpeg", "prores", "theora", "gif")


def decoders(names: Iterable[str] = COMMON_DECODERS) -> dict[str, bool]:
    """Whether each of the named decoders is there."""
    return {name: name in av.codecs_available and _can_decode(name) for name in names}


def ffmpeg_version() -> str:
    """The release of FFmpeg that PyAV brings along."""
    return str(av.ffmpeg_version_info)


def _can_decode(name: str) -> bool:
    try:
        return av.Codec(name, "r").is_decoder
    except ValueError:  # there is an encoder of this name only
        return False
