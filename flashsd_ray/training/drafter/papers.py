"""What goes with a trained drafter: where it comes from, how good it is, and how to use it."""

from __future__ import annotations

import platform
from dataclasses import asdict
from typing import Any

import torch

from flashsd_ray import __version__
from flashsd_ray.models.drafters import checkpoint
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter.answers import Answer
from flashsd_ray.training.drafter.card import model_card
from flashsd_ray.training.drafter.engine_check import check_in_engine
from flashsd_ray.training.drafter.evaluate import Quality
from flashsd_ray.training.drafter.events import JOURNAL_FILE
from flashsd_ray.training.drafter.figure import draw
from flashsd_ray.training.drafter.job import Job
from flashsd_ray.training.drafter.series import Series
from flashsd_ray.training.drafter.trainer import Trainer

CARD_FILE = "README.md"
FIGURE_FILE = "training.png"


def write_papers(
    job: Job,
    target: PretrainedTarget,
    trainer: Trainer,
    quality: Quality,
    heldout: Series[Answer],
    *,
    num_left_out: int,
) -> None:
    """The checkpoint is on disk with its provenance, its card and, where it can be drawn, a figure."""
    provenance: dict[str, Any] = {
        "command": job.command,
        "target": target.name,
        "data": job.data,
        "versions": {
            "flashsd_ray": __version__,
            "torch": torch.__version__,
            "python": platform.python_version(),
        },
        "training": asdict(trainer.config),
        "steps": trainer.step,
        "minutes": round(trainer.spent_s / 60.0, 2),
        "num_workers": trainer.peers.size,
        "num_answers": trainer.num_answers,
        "num_left_out": num_left_out,
        "num_parameters": sum(parameter.numel() for parameter in trainer.network.parameters()),
        "quality": quality.to_json(),
    }
    checkpoint.save(job.out, trainer.network, provenance)
    checked = check_in_engine(job, target, heldout)
    if checked:
        provenance["engine"] = [asdict(check) for check in checked]
        checkpoint.save(job.out, trainer.network, provenance)
    (job.out / CARD_FILE).write_text(model_card(checkpoint.describe(job.out)), encoding="utf-8")
    draw(job.out / JOURNAL_FILE, job.out / FIGURE_FILE)
