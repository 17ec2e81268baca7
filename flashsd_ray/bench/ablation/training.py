"""One row's drafter: trained by the trainer that everybody uses, kept in the row's folder, and not trained twice."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import closing
from dataclasses import asdict, replace
from pathlib import Path

from flashsd_ray.bench.ablation.library import Library
from flashsd_ray.bench.ablation.rows import AblationRow
from flashsd_ray.bench.scrambling import scramble
from flashsd_ray.models.drafters import checkpoint
from flashsd_ray.models.drafters.architecture import DrafterConfig
from flashsd_ray.models.drafters.build import build_network
from flashsd_ray.models.drafters.target_view import TargetView
from flashsd_ray.training.drafter.events import JOURNAL_FILE, Journal, Listener, to_all
from flashsd_ray.training.drafter.state import forget_state, is_finished
from flashsd_ray.training.drafter.trainer import Trainer, TrainingConfig


def trained(
    row: AblationRow,
    config: DrafterConfig,
    view: TargetView,
    library: Callable[[], Library],  # made when it is needed: answers and readings cost time and memory
    training: TrainingConfig,
    folder: Path,
    listener: Listener,
) -> None:
    """The row's drafter is in the folder; a training that was stopped there goes on.

    Raises:
        FlashSDError: the data cannot be read, or the folder holds another training.
    """
    if is_finished(folder):
        return
    network = build_network(row.kind, view, seed=training.seed, config=config)
    if row.is_scrambled:
        scramble(network, training.seed)
    readings = library()
    with closing(Journal(folder / JOURNAL_FILE, goes_on=True)) as journal:
        trainer = Trainer(
            network,
            readings.readings(config, tells_answers=row.tells_answers),
            readings.heldout(config),
            training_of(row, training),
            folder,
            identity={"row": asdict(row), "fingerprint": view.fingerprint, "seed": training.seed},
            listener=to_all([journal, listener]),
        )
        quality = trainer.run()
    provenance = {
        "row": asdict(row),
        "training": asdict(trainer.config),
        "steps": trainer.step,
        "minutes": round(trainer.spent_s / 60.0, 2),
        "num_answers": trainer.num_answers,
        "num_parameters": sum(parameter.numel() for parameter in network.parameters()),
        "quality": quality.to_json(),
    }
    trainer.save()  # the drafter is finished only when this is gone again
    checkpoint.save(folder, network, provenance)
    forget_state(folder)


def training_of(row: AblationRow, training: TrainingConfig) -> TrainingConfig:
    """How the row is trained: as all are, with its own losses."""
    return replace(training, weights=row.weights, early=1.0 if row.is_divergence else training.early)
