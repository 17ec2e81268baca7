"""Train the stages of a bundled target, one or all of them in turn.

`flashsd train target --world town --stage all --out runs/town` does everything; the same with `--resume` goes on after a
kill. SIGTERM or Ctrl-C writes a checkpoint and ends with exit code 130.
"""

from __future__ import annotations

import argparse
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from flashsd_ray.training.target_options import STAGES, add_options

logger = logging.getLogger(__name__)

INTERRUPTED = 130
# Steps do not depend on what else a machine does. On two quiet cores the town's take about two and a half hours.
TOWN_STEPS = {"vision": 2400, "align": 500, "short": 700, "captions": 3000}
DEMO_MINUTES = {"vision": 12.0, "align": 1.3, "captions": 50.0}


def main(words: list[str] | None = None) -> int:
    """The stages named on the command line are trained; returns the exit code."""
    parser = argparse.ArgumentParser(prog="flashsd train target", description=__doc__)
    add_options(parser)
    return run(parser.parse_args(words))


def run(arguments: argparse.Namespace) -> int:
    """The stages are trained; returns 0, or 130 if a signal ended them early."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", force=True)
    from flashsd_ray.training.target.progress import is_stopped, stop_at_signals

    stop_at_signals()
    for stage in stages_of(arguments):
        path = _train(arguments, stage)
        logger.info("%s: %s", stage, path)
        if is_stopped():
            return INTERRUPTED
    return 0


def stages_of(arguments: argparse.Namespace) -> tuple[str, ...]:
    """The stages to train, in order; the demo world's short answers are the beginning of its captions."""
    if arguments.stage != "all":
        return (arguments.stage,)
    return STAGES if arguments.world == "town" else tuple(DEMO_MINUTES)


def _train(arguments: argparse.Namespace, stage: str) -> Path:
    import torch

    from flashsd_ray.training.target.align import train_align
    from flashsd_ray.training.target.captions import train_answers
    from flashsd_ray.training.target.progress import load_checkpoint
    from flashsd_ray.training.target.vision import train_vision
    from flashsd_ray.training.target.worlds import world_named

    torch.set_num_threads(arguments.threads)
    answering = {stage: partial(train_answers, stage) for stage in ("short", "captions")}
    stages: dict[str, Callable[..., Path]] = {"vision": train_vision, "align": train_align, **answering}
    minutes = arguments.minutes or DEMO_MINUTES.get(stage, 10.0)
    steps = arguments.steps
    if steps is None and arguments.minutes is None and arguments.world == "town":
        steps = TOWN_STEPS[stage]
    path: Path = arguments.out / f"{stage}.pt"
    if arguments.resume and steps is not None and path.exists() and load_checkpoint(path)["step"] >= steps:
        return path
    return stages[stage](
        arguments.out,
        minutes,
        arguments.seed,
        is_resumed=arguments.resume,
        world=world_named(arguments.world),
        steps=steps,
    )
