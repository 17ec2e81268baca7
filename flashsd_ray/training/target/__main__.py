"""Train one stage of the demo target.

`python -m flashsd_ray.training.target --stage vision --minutes 12 --out runs/target`, then `align`, then `captions`.
"""

import argparse
import logging
import os
from pathlib import Path

logger = logging.getLogger(__name__)


def main() -> None:
    """The stage named on the command line is trained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--stage", choices=("vision", "align", "captions"), required=True)
    parser.add_argument("--minutes", type=float, default=10.0)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--resume", action="store_true")
    arguments = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s")
    # Read once, when torch loads: waiting threads must sleep, or a busy machine is several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    path = _train(arguments)
    logger.info("wrote %s", path)


def _train(arguments: argparse.Namespace) -> Path:
    import torch

    from flashsd_ray.training.target.align import train_align
    from flashsd_ray.training.target.captions import train_captions
    from flashsd_ray.training.target.vision import train_vision

    torch.set_num_threads(arguments.threads)
    stages = {"vision": train_vision, "align": train_align, "captions": train_captions}
    return stages[arguments.stage](arguments.out, arguments.minutes, arguments.seed, is_resumed=arguments.resume)


if __name__ == "__main__":
    main()
