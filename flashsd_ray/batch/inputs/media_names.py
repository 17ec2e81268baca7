"""Which names in a directory or a tar file are taken for videos and pictures; what they are is told by their content."""

from __future__ import annotations

VIDEOS = (
    *(
        "3g2",
        "3gp",
        "asf",
        "avi",
        "divx",
        "f4v",
        "flv",
        "ivf",
        "m2ts",
        "m2v",
        "m4v",
        "mkv",
        "mov",
        "mp4",
        "mpeg",
        "mpg",
    ),
    *("mts", "mxf", "nut", "ogm", "ogv", "ts", "vob", "webm", "wmv", "y4m"),
)
PICTURES = ("apng", "avif", "bmp", "gif", "jp2", "jpeg", "jpg", "png", "ppm", "qoi", "tif", "tiff", "webp")


def is_video(name: str) -> bool:
    """Whether the name ends like that of a video."""
    return _ending(name) in VIDEOS


def is_media(name: str) -> bool:
    """Whether the name ends like that of a video or a picture."""
    return _ending(name) in (*VIDEOS, *PICTURES)


def _ending(name: str) -> str:
    return name.rpartition(".")[2].lower()
