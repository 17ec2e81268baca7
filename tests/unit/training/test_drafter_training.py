"""Drafter training: a few answers can be learnt by heart, and the engine then drafts as well as training said."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flashsd_ray.engine.local import Engine, view_of
from flashsd_ray.errors import CheckpointError, ConfigError, InvalidRequestError
from flashsd_ray.models.drafters.build import build_network, run_network
from flashsd_ray.models.drafters.lesson import Answers
from flashsd_ray.models.drafters.registry import NETWORKS
from flashsd_ray.models.pretrained import PretrainedTarget
from flashsd_ray.training.drafter import evaluate
from flashsd_ray.training.drafter.answers import Answer
from flashsd_ray.training.drafter.batches import Lessons
from flashsd_ray.training.drafter.events import Event, Judged, Learnt
from flashsd_ray.training.drafter.losses import LossWeights, drafting_loss
from flashsd_ray.training.drafter.pool import ReadingPool
from flashsd_ray.training.drafter.questions import load_visuals
from flashsd_ray.training.drafter.state import STATE_FILE
from flashsd_ray.training.drafter.trainer import Trainer, TrainingConfig
from flashsd_ray.types import CaptionRequest, DraftBlock, SamplingParams
from tests.unit.training.drafter_parts import CONFIG, NUM_TOKENS, read

DRAFT_LENGTH = 4


def request_of(answer: Answer) -> CaptionRequest:
    return CaptionRequest(
        request_id="r",
        prompt=answer.question.prompt,
        visuals=load_visuals(answer.question, CONFIG.media),
        sampling=SamplingParams(max_new_tokens=NUM_TOKENS),
        draft_length=DRAFT_LENGTH,
    )


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_a_few_answers_are_learnt_by_heart_and_drafted_as_learnt(
    kind: str, target: PretrainedTarget, answers: list[Answer]
) -> None:
    view = view_of(target)
    config = replace(NETWORKS[kind].default_config(view, "latent"), draft_length=DRAFT_LENGTH)
    network = build_network(kind, view, config=config)
    pool = read(target, answers, config.tap_layers)
    training = TrainingConfig(steps=80, num_readings=4, num_anchors=8, learning_rate=4e-3, is_autocast=False)
    events: list[Event] = []
    quality = Trainer(network, pool, pool, training, listener=events.append).run()
    assert quality.greedy_tau > 0.9 * DRAFT_LENGTH
    learnt = [event for event in events if isinstance(event, Learnt)]
    assert learnt[-1].step == 80
    assert learnt[-1].hard < 0.5 * learnt[0].hard
    assert min(learnt[-1].slots) > 0.8 > min(learnt[0].slots)
    assert [event.quality for event in events if isinstance(event, Judged)] == [quality.to_json()]

    engine = Engine(target, run_network(network), CONFIG)
    rounds = tokens = 0
    for answer in answers:
        caption = engine.caption(request_of(answer))
        assert caption.token_ids == answer.token_ids
        rounds += caption.stats.rounds
        tokens += len(caption.token_ids) - 1
    assert tokens / rounds == pytest.approx(quality.greedy_tau, rel=0.15)


def test_scrambled_latents_change_drafts_but_no_token(
    target: PretrainedTarget, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    drafted = []
    for is_scrambled in (False, True):
        network = build_network("block", view_of(target), compressor="pool")
        if is_scrambled:
            monkeypatch.setattr(
                type(network.compressor), "forward", lambda self, rows: 9.0 * torch.randn_like(rows[:, :4])
            )
        drafter = run_network(network)
        seen: list[tuple[int, ...]] = []
        propose = drafter.propose

        def spy(*arguments: object, propose: object = propose, seen: list[tuple[int, ...]] = seen) -> list[DraftBlock]:
            blocks = propose(*arguments)  # type: ignore[operator]
            seen.extend(block.token_ids for block in blocks)
            return blocks

        monkeypatch.setattr(drafter, "propose", spy)
        assert Engine(target, drafter, CONFIG).caption(request_of(answers[0])).token_ids == answers[0].token_ids
        drafted.append(seen)
    assert drafted[0] != drafted[1]


def trainer_of(target: PretrainedTarget, answers: list[Answer], folder: Path, **identity: int) -> Trainer:
    view = view_of(target)
    config = NETWORKS["block"].default_config(view, "pool")
    pool = read(target, answers, config.tap_layers)
    training = TrainingConfig(steps=6, num_readings=2, num_anchors=4, is_autocast=False)
    return Trainer(build_network("block", view, config=config), pool, pool, training, folder, identity=identity)


def test_training_goes_on_where_it_stopped(target: PretrainedTarget, answers: list[Answer], tmp_path: Path) -> None:
    losses = []
    for stops in (False, True):
        trainer = trainer_of(target, answers, tmp_path)
        for step in range(6):
            if stops and step == 3:
                trainer.save()
                trainer = trainer_of(target, answers, tmp_path)
                assert trainer.step == 3
            parts = trainer.learn()
        losses.append(float(parts.total))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_another_training_does_not_go_on_from_there(
    target: PretrainedTarget, answers: list[Answer], tmp_path: Path
) -> None:
    trainer_of(target, answers, tmp_path, seed=1).save()
    with pytest.raises(ConfigError, match="training with seed 1, now it is 2"):
        trainer_of(target, answers, tmp_path, seed=2)
    (tmp_path / STATE_FILE).write_bytes(b"half a file")
    with pytest.raises(CheckpointError, match="cannot read"):
        trainer_of(target, answers, tmp_path, seed=1)


def test_there_must_be_something_to_learn_from(target: PretrainedTarget) -> None:
    network = build_network("block", view_of(target))
    trainer = Trainer(network, ReadingPool.of(()), ReadingPool.of(()), TrainingConfig(steps=1))
    with pytest.raises(InvalidRequestError, match="no answer to learn from"):
        trainer.run()


def test_a_batch_depends_on_seed_rank_and_step_alone(target: PretrainedTarget, answers: list[Answer]) -> None:
    network = build_network("block", view_of(target), compressor="pool")
    pool = read(target, answers, network.config.tap_layers)
    drawn = {
        (seed, rank, step): Lessons(pool, network, seed, rank).draw(step, 3, 4).lesson.anchors.tolist()
        for seed, rank, step in ((0, 0, 0), (0, 0, 1), (0, 1, 0), (1, 0, 0))
    }
    assert len({str(anchors) for anchors in drawn.values()}) == len(drawn)
    lessons = Lessons(pool, network)
    lessons.draw(7, 3, 4)
    assert lessons.draw(1, 3, 4).lesson.anchors.tolist() == drawn[0, 0, 1]


@pytest.mark.parametrize("is_greedy", [True, False])
def test_quality_does_not_depend_on_how_much_is_judged_together(
    is_greedy: bool, target: PretrainedTarget, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = build_network("block", view_of(target), compressor="pool")
    pool = read(target, answers, network.config.tap_layers)
    lessons = Lessons(ReadingPool.of(replace(reading, is_greedy=is_greedy) for reading in pool.readings), network)
    whole = evaluate.evaluate(network, lessons, is_autocast=False)
    monkeypatch.setattr(evaluate, "ANCHORS_TOGETHER", 5)
    pieces = evaluate.evaluate(network, lessons, is_autocast=False)
    assert pieces.to_json() == whole.to_json()
    assert (whole.num_greedy, whole.num_sampled) == ((4, 0) if is_greedy else (0, 4))
    assert max(whole.greedy_tau, whole.sampled_tau) >= 1.0


def test_slots_behind_the_end_teach_nothing(target: PretrainedTarget, answers: list[Answer]) -> None:
    network = build_network("block", view_of(target), compressor="pool")
    pool = read(target, answers[:1], network.config.tap_layers)
    (reading,) = pool.readings
    last = reading.num_prompt_tokens + reading.num_anchors - 1
    batch = Lessons(pool, network).batch([reading], torch.tensor([[last, last - 2]]))
    assert batch.is_real[0].sum(dim=-1).tolist() == [1, 3]
    assert batch.token_ids[0, 1, :3].tolist() == list(reading.token_ids[-3:])


def test_a_drafter_that_equals_its_target_has_no_loss_but_cross_entropy() -> None:
    logits = torch.randn(1, 2, 3, 11)
    token_ids = logits.argmax(dim=-1)
    rows, real = torch.zeros(1, 2, 3, 4), torch.ones(1, 2, 3, dtype=torch.bool)
    for is_early in (False, True):
        weights = LossWeights(hard=0.0)
        parts = drafting_loss(Answers(logits), logits, rows, token_ids, real, weights, is_early=is_early)
        assert float(parts.total) == pytest.approx(0.0, abs=1e-6)
        assert parts.overlap == pytest.approx(1.0, abs=1e-5)
        assert parts.slots.tolist() == [1.0, 1.0, 1.0]
    other = drafting_loss(Answers(-logits), logits, rows, token_ids, real, LossWeights(), is_early=False)
    assert float(other.total) > 0.5
    assert float(other.slots.max()) < 1.0
