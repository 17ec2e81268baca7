"""Drafter training on two Ray workers: each learns from its own part, and one drafter comes out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from ray.train.torch import TorchTrainer
from ray.train.v2._internal.exceptions import UserExceptionWithTraceback
from ray.train.v2.api.exceptions import WorkerGroupError

from flashsd_ray.config import Config, MediaConfig, ModelConfig, SchedulingConfig
from flashsd_ray.engine.local import view_of
from flashsd_ray.errors import FlashSDError, InvalidRequestError, UnavailableError
from flashsd_ray.models.drafters import load_drafter
from flashsd_ray.models.drafters.checkpoint import describe
from flashsd_ray.models.pretrained import load_target
from flashsd_ray.training.drafter.events import Asked, Event, Judged, Learnt, LeftOut, Read
from flashsd_ray.training.drafter.job import Design, Job
from flashsd_ray.training.drafter.trainer import TrainingConfig
from flashsd_ray.training.drafter.workers import Workers, train_on_workers
from tests.tiny_checkpoints import checkpoint

WORKERS = Workers(count=2, cpus=0.5)


@pytest.fixture
def job(tmp_path: Path, clips: list[Path]) -> Job:
    """Questions with and without pictures, so that the batch of a worker may have none, and one that is broken."""
    lines = [{"path": str(path), "prompts": ["What happens?", "Where?"]} for path in clips[:3]]
    lines += [{"prompt": f"Say {number}."} for number in range(7)] + [{"prompt": "What?", "path": "missing.png"}]
    data = tmp_path / "data.jsonl"
    data.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Job(
        out=tmp_path / "out",
        data=str(data),
        num_heldout=2,
        config=Config(
            model=ModelConfig(name=str(checkpoint("llava15")), dtype="float32", threads=1),
            media=MediaConfig(num_frames=2),
            scheduling=SchedulingConfig(max_running=4, cache_rows=2048),
        ),
        design=Design(compressor="latent", sizes={"draft_length": 3}),
        training=TrainingConfig(
            steps=80, num_readings=2, num_anchors=4, learning_rate=3e-3, early=0.0, evaluate_every_s=1e9
        ),
        max_new_tokens=16,
        num_checked=1,
    )


def test_two_workers_train_one_drafter(job: Job) -> None:
    events: list[Event] = []
    train_on_workers(job, WORKERS, events.append)
    learnt = [event for event in events if isinstance(event, Learnt)]
    assert [event.step for event in learnt] == list(range(10, 90, 10))
    # Each loss is of one small batch, so only the direction is certain; what is learnt is tested in training_drafter.
    assert min(event.loss for event in learnt[-3:]) < learnt[0].loss
    assert [event.step for event in events if isinstance(event, Judged)] == [80]
    assert len([event for event in events if isinstance(event, LeftOut)]) == 1
    made = describe(job.out)["provenance"]
    assert (made["num_workers"], made["num_left_out"], made["steps"]) == (2, 1, 80)
    assert [checked["num_equal"] for checked in made["engine"]] == [1, 1]
    load_drafter(str(job.out), view_of(load_target(job.config.model.name, dtype="float32")))
    # Both have asked and read about half of the questions, and nothing of Ray's is left behind.
    stores = sorted(job.out.glob("answers-*.jsonl"))
    assert [path.name.split("-", 2)[2] for path in stores] == ["0-of-2.jsonl", "1-of-2.jsonl"]
    assert sum(len(path.read_text().splitlines()) for path in stores) == 13
    assert [event.total for event in events if isinstance(event, Asked)][:1] in ([5], [6])
    assert max(event.done for event in events if isinstance(event, Read)) in (5, 6)
    assert not (job.out / "ray").exists()


@pytest.mark.parametrize(
    ("raised", "expected"),
    [
        (InvalidRequestError("too much is broken"), InvalidRequestError("too much is broken")),
        (ValueError("no"), UnavailableError("training on workers failed: no")),
        (None, UnavailableError("training on workers failed: Training failed due to worker errors:\na node is lost")),
    ],
)
def test_what_a_worker_raises_is_raised_here(
    raised: Exception | None, expected: FlashSDError, job: Job, monkeypatch: pytest.MonkeyPatch
) -> None:
    failures = {} if raised is None else {1: UserExceptionWithTraceback(raised, "a traceback")}

    def fail(self: TorchTrainer) -> None:
        raise WorkerGroupError("a node is lost", failures)

    monkeypatch.setattr(TorchTrainer, "fit", fail)
    with pytest.raises(type(expected)) as told:
        train_on_workers(job, WORKERS, lambda event: None)
    assert str(told.value) == str(expected)
