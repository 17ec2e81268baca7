"""The options of target training; torch stays unloaded."""

from __future__ import annotations

import argparse
from pathlib import Path

STAGES = ("vision", "align", "short", "captions")


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of target training are known to the parser."""
    parser.add_argument("--world", choices=("demo", "town"), default="demo", help="what the clips show")
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all", help="which part of the training")
    parser.add_argument("--steps", type=int, help="of the stage; default: the town's schedule")
    parser.add_argument("--minutes", type=float, help="of the stage, instead of steps; the demo world's schedule")
    parser.add_argument("--out", type=Path, required=True, help="checkpoints, tokenizer and the folder `target`")
    parser.add_argument("--seed", type=int, default=1, help="of weights and clips")
    parser.add_argument("--threads", type=int, default=2, help="of torch")
    parser.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out")
