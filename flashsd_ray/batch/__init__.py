"""Offline captioning of very many videos on Ray Data."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from flashsd_ray.batch.datasets import caption_dataset
    from flashsd_ray.batch.job import Job

__all__ = ["Job", "caption_dataset"]


def __getattr__(name: str) -> Any:
    # Not before they are wanted: one of them imports Ray.
    if name == "caption_dataset":
        from flashsd_ray.batch.datasets import caption_dataset

        return caption_dataset
    if name == "Job":
        from flashsd_ray.batch.job import Job

        return Job
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
