"""The options of target training; torch stays unloaded."""

from __future__ import annotations

import argparse
from pathlib import Path

# On one core of an AMD EPYC (Zen 5) they take about two hours together.
STEPS = {"vision": 2400, "align": 500, "short": 250, "captions": 1400}
STAGES = tuple(STEPS)


def add_options(parser: argparse.ArgumentParser) -> None:
    """The options of target training are known to the parser."""
    parser.add_argument("--stage", choices=(*STAGES, "all"), default="all", help="which part of the training")
    schedule = ", ".join(f"{name} {steps}" for name, steps in STEPS.items())
    parser.add_argument("--steps", metavar="N", type=int, help=f"of the stage (default: {schedule})")
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="of checkpoints and the model, `target`")
    parser.add_argument("--seed", metavar="N", type=int, default=1, help="of weights and clips (1)")
    parser.add_argument("--threads", metavar="N", type=int, default=2, help="of torch (2)")
    begin = parser.add_mutually_exclusive_group()
    begin.add_argument("--resume", action="store_true", help="go on from the checkpoints in --out")
    begin.add_argument("--overwrite", action="store_true", help="begin anew whatever is there")
