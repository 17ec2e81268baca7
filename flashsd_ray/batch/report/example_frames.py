"""A few frames of an outcome's segment, small, for a page."""

from __future__ import annotations

import base64
import io

from PIL import Image

from flashsd_ray.batch.inputs.shards import named_clip
from flashsd_ray.batch.inputs.sources import read_source
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.config import MediaConfig

FRAMES = 3
SIZE = (144, 144)  # at most, in pixels
QUALITY = 70


def example_frames(outcome: Outcome, config: MediaConfig) -> list[str]:
    """The frames as ``data:`` addresses of JPEG pictures.

    Raises:
        FlashSDError: the source can be read no more.
    """
    with read_source(named_clip(outcome.source), config) as source:
        visual = source.load(config, num_frames=FRAMES, start_s=outcome.start_s, end_s=outcome.end_s)
    return [_address(Image.fromarray(frame)) for frame in visual.frames]


def _address(picture: Image.Image) -> str:
    picture.thumbnail(SIZE)
    buffer = io.BytesIO()
    picture.save(buffer, "JPEG", quality=QUALITY)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
