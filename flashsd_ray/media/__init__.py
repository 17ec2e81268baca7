"""Files, directories and bytes in, frames out; limits are named in ``MediaConfig``, every failure is a MediaError."""

from flashsd_ray.media.loading import load_visual, load_visual_bytes, load_visuals

__all__ = ["load_visual", "load_visual_bytes", "load_visuals"]
