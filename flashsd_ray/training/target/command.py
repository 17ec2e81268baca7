"""Trains the stages of a target, one or all of them in turn."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path

from flashsd_ray.errors import ConfigError
from flashsd_ray.training.target.settings import Listener, Stage
from flashsd_ray.training.target_options import STAGES, STEPS

INTERRUPTED = 130


def train_stages(arguments: argparse.Namespace, listener: Listener) -> int:
    """The stages are trained; returns 0, or 130 if a signal ended them early.

    Raises:
        ConfigError: an earlier stage is missing, or there is a checkpoint and nobody said what to do with it.
    """
    import torch

    from flashsd_ray.training.target.progress import is_stopped, stop_at_signals

    names = STAGES if arguments.stage == "all" else (arguments.stage,)
    stages = [stage_of(arguments, name, listener) for name in names]
    for stage in stages:
        if stage.path.exists() and not (arguments.resume or arguments.overwrite):
            raise ConfigError(f"{stage.path} exists: --resume goes on from it, --overwrite begins anew")
    torch.set_num_threads(arguments.threads)
    stop_at_signals()
    for stage in stages:
        train_stage(stage)
        if is_stopped():
            return INTERRUPTED
    return 0


def stage_of(arguments: argparse.Namespace, name: str, listener: Listener) -> Stage:
    """What the command line says of this stage."""
    return Stage(
        name=name,
        out_dir=arguments.out,
        steps=STEPS[name] if arguments.steps is None else arguments.steps,
        seed=arguments.seed,
        is_resumed=arguments.resume,
        listener=listener,
    )


def train_stage(stage: Stage) -> Path:
    """The stage's checkpoint is that of its last step, whether it was so before or not; returns its path."""
    from flashsd_ray.training.target.align import train_align
    from flashsd_ray.training.target.captions import train_answers
    from flashsd_ray.training.target.progress import load_checkpoint
    from flashsd_ray.training.target.vision import train_vision

    if stage.goes_on and load_checkpoint(stage.path)["step"] >= stage.steps:
        return stage.path
    trainers: dict[str, Callable[[Stage], Path]] = {
        "vision": train_vision,
        "align": train_align,
        "short": train_answers,
        "captions": train_answers,
    }
    return trainers[stage.name](stage)
