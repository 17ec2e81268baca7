"""Write clips of the demo world as videos.

`python -m flashsd_ray.training.world --split heldout --count 20 --out clips`
"""

import argparse
import logging
from pathlib import Path

from flashsd_ray.training.world.video import export_clips

logger = logging.getLogger(__name__)


def main() -> None:
    """The clips asked for on the command line are written."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--split", choices=("train", "heldout"), default="heldout")
    parser.add_argument("--count", type=int, default=10)
    parser.add_argument("--first-seed", type=int, default=0)
    parser.add_argument("--seeds", type=int, nargs="+", help="these seeds, not a range")
    parser.add_argument("--size", type=int, default=384, help="width and height in pixels")
    parser.add_argument("--out", type=Path, required=True)
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    seeds = arguments.seeds or range(arguments.first_seed, arguments.first_seed + arguments.count)
    paths = export_clips(arguments.out, arguments.split, seeds, size_px=arguments.size)
    logger.info("wrote %d clips to %s", len(paths), arguments.out)


if __name__ == "__main__":
    main()
