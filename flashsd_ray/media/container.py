"""The door to FFmpeg: a container opened so that it can reach nothing but the bytes it was given."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

import av
from av.container import InputContainer
from av.stream import Disposition, Stream
from av.video.stream import VideoStream

from flashsd_ray.config import MediaConfig
from flashsd_ray.errors import MediaLimitError
from flashsd_ray.media.picture import check_pixels
from flashsd_ray.media.source import MediaSource
from flashsd_ray.media.translation import media_errors

# Demuxers that read one self-contained file. Left out: playlists (hls, dash, concat, imf), sessions (sdp, rtp, rtsp),
# file-name patterns (image2), filter graphs (lavfi), devices, and formats that take any text for a video (tty).
VIDEO_FORMATS = (
    "mov,mp4,matroska,webm,avi,mpegts,mpeg,mpegvideo,flv,live_flv,asf,asf_o,ogg,nut,rm,mxf,gxf,dv,swf,wtv,nsv,nuv,"
    "ivf,obu,av1,h264,hevc,vvc,evc,m4v,h263,h261,vc1,vc1test,dirac,cavsvideo,avs2,avs3,mjpeg,mpjpeg,mjpeg_2000,"
    "yuv4mpegpipe,dnxhd,apv,smjpeg,kux,bink,smk,roq,flic,vmd,idcin,film_cpk,thp,dxa,pva,ty,dhav,lxf,mlv,mtv,ivr,moflex"
)
# Only so that the message can say what was found instead of a video.
AUDIO_FORMATS = "mp3,wav,w64,flac,aac,ac3,eac3,ogg,aiff,amr,caf,au,dts,ape,wv,tta"

READ_BYTES = 256 * 2**10
MAX_THREADS = 4
PIXELS_PER_THREAD = 2**18  # starting and waiting for threads costs a tenth of decoding pictures of 192 x 192


@contextmanager
def open_video(source: MediaSource, config: MediaConfig) -> Iterator[tuple[InputContainer, VideoStream]]:
    """The container of the source at its start and its video stream, ready to be decoded; closed at the end.

    Raises:
        MediaError: the source is no container that is accepted, is damaged, or holds no video that can be decoded.
        MediaLimitError: it has more streams, pixels or seconds than the config allows.
    """
    with media_errors(source, "a video"):
        source.seek(0)
        container = av.open(
            source,
            "r",
            options=_options(config),
            metadata_errors="replace",
            buffer_size=READ_BYTES,
        )
    with container:
        source.check()
        yield container, _video_stream(container, source, config)


def _options(config: MediaConfig) -> dict[str, str]:
    return {
        # Either of these alone keeps FFmpeg from opening anything but what it is given.
        "format_whitelist": f"{VIDEO_FORMATS},{AUDIO_FORMATS}",
        "protocol_whitelist": "none",
        "max_streams": str(config.max_streams + 1),
        "max_pixels": _padded(config.max_pixels),
    }


def _video_stream(container: InputContainer, source: MediaSource, config: MediaConfig) -> VideoStream:
    if len(container.streams) > config.max_streams:
        raise MediaLimitError(f"{source.label}: has more than {config.max_streams} streams (media.max_streams)")
    streams = [s for s in container.streams.video if not _is_cover(s)]
    if not streams:
        raise source.error(f"no video stream ({_found(container)})")
    best = container.streams.best("video")
    stream = next((s for s in streams if s is best), streams[0])
    if stream.codec_context is None:
        raise source.error("its video codec is not supported")
    _check_header(container, stream, source, config)
    # Threads within a frame only: with several frames in flight, FFmpeg reports damage late or not at all.
    stream.thread_type = "SLICE"
    pixels = stream.codec_context.width * stream.codec_context.height
    stream.thread_count = max(1, min(MAX_THREADS, os.cpu_count() or 1, pixels // PIXELS_PER_THREAD))
    # The size may change within the stream; this limit is checked again at each change.
    stream.codec_context.options = {"max_pixels": _padded(config.max_pixels)}
    return stream


def _padded(max_pixels: int) -> str:
    # FFmpeg counts the rows as it stores them, filled up to a multiple of 64 pixels or more.
    return str(2 * max_pixels + 2**20)


def _check_header(container: InputContainer, stream: VideoStream, source: MediaSource, config: MediaConfig) -> None:
    context = stream.codec_context
    if context.width == 0 or context.height == 0:
        # FFmpeg forgets the size of a picture that it refuses to decode.
        raise source.error(f"its pictures are damaged, or larger than media.max_pixels ({config.max_pixels})")
    check_pixels(source, context.width, context.height, config)
    durations_s = [container.duration / av.time_base] if container.duration else []
    if stream.duration and stream.time_base:
        durations_s.append(float(stream.duration * stream.time_base))
    check_duration(source, max(durations_s, default=0.0), config)


def check_duration(source: MediaSource, duration_s: float, config: MediaConfig) -> None:
    """Raises MediaLimitError when a video is longer than ``media.max_duration_s``."""
    if duration_s > config.max_duration_s:
        raise MediaLimitError(
            f"{source.label}: lasts {duration_s:.0f} s; media.max_duration_s allows {config.max_duration_s:g}"
        )


def _is_cover(stream: Stream) -> bool:
    # The cover picture of a song is a video stream too.
    return bool(stream.disposition & Disposition.attached_pic)


def _found(container: InputContainer) -> str:
    streams = [
        f"{stream.type}: {stream.codec_context.codec.canonical_name if stream.codec_context else 'unknown codec'}"
        for stream in container.streams
        if not _is_cover(stream)
    ]
    return f"found {', '.join(streams)}" if streams else "no stream at all"
