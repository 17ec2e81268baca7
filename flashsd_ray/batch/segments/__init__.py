"""Which parts of a clip have captions of their own: the whole of it, windows of equal length, or scenes."""

from flashsd_ray.batch.segments.reading import SegmentFrames, read_segments
from flashsd_ray.batch.segments.rule import SegmentRule

__all__ = ["SegmentFrames", "SegmentRule", "read_segments"]
