"""Where a video cuts from one scene to another, as PySceneDetect's adaptive detector finds it.

The detector is given frames that ``media/`` decoded: the library opens no file itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from fractions import Fraction
from typing import Any

from flashsd_ray.batch.inputs.sources import Source
from flashsd_ray.config import MediaConfig
from flashsd_ray.media.scanning import scan_video

WIDTH = 256  # pixels, what the library itself reduces frames to
TICK_S = Fraction(1, 90_000)


def cuts_of(
    source: Source,
    config: MediaConfig,
    start_s: float,
    end_s: float,
    shortest_s: float,
) -> Iterator[float]:
    """Times at which a scene begins, in seconds, ascending, within the range; none in pictures and animations.

    Raises:
        ImportError: PySceneDetect is not installed.
        MediaError: the source is no video, or is damaged.
        MediaLimitError: a named limit of the config is exceeded.
    """
    detector: Any = None
    for frame in scan_video(source.content, source.name, config, width=WIDTH):
        if frame.time_s >= end_s:
            break
        if frame.time_s < start_s:
            continue
        detector = detector or _detector(shortest_s)
        for cut in detector.process_frame(_timecode(frame.time_s), frame.pixels):
            yield cut.seconds


def _detector(shortest_s: float) -> Any:
    from scenedetect.detectors import AdaptiveDetector

    return AdaptiveDetector(min_scene_len=float(shortest_s))


def _timecode(time_s: Fraction) -> Any:
    from scenedetect.common import FrameTimecode, Timecode

    # The rate is only needed where frames are counted; here everything is said in seconds.
    return FrameTimecode(Timecode(round(time_s / TICK_S), TICK_S), fps=1 / TICK_S)
