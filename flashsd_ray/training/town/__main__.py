"""Clips of the town as video files; without names, those that come with the package.

`python -m flashsd_ray.training.town --out DIR [heldout:700010 novel:700003 ...]`
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import get_args

from flashsd_ray.training.town.scene import Scene, Split
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.training.town.video import CLIP_PIXELS, export_clips

BUNDLED = (
    "heldout:700223",
    "heldout:700377",
    "novel:700069",
    "heldout:700043",
    "heldout:700300",
    "heldout:700109",
)


def scene_named(name: str) -> Scene:
    """The scene of a split and a seed, such as `heldout:7`.

    Raises:
        ValueError: there is no such split, or the seed is no number.
    """
    split, _, seed = name.partition(":")
    if split not in get_args(Split):
        raise ValueError(f"a clip is one of {', '.join(get_args(Split))} with a seed, such as heldout:7, got {name!r}")
    return sample_scene(int(seed), split)


def main() -> None:
    """The clips asked for on the command line are written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("clips", metavar="SPLIT:SEED", nargs="*", default=BUNDLED, help="such as heldout:7")
    parser.add_argument("--size", type=int, default=CLIP_PIXELS, help="width and height in pixels")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    export_clips(arguments.out, map(scene_named, arguments.clips), size_px=arguments.size)


if __name__ == "__main__":
    main()
