"""Drafter training: a few answers can be learnt by heart, and the engine then drafts as well as training said."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flashsd_ray.config import Config, MediaConfig
from flashsd_ray.engine.local import Engine, view_of
from flashsd_ray.errors import ConfigError
from flashsd_ray.models.drafters.build import build_network, run_network
from flashsd_ray.models.drafters.lesson import Answers
from flashsd_ray.models.drafters.registry import NETWORKS
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.training.drafter.answers import Answer, answers_file, collect_answers
from flashsd_ray.training.drafter.batches import Lessons
from flashsd_ray.training.drafter.losses import LossWeights, drafting_loss
from flashsd_ray.training.drafter.questions import Question, load_visuals, read_manifest, world_questions
from flashsd_ray.training.drafter.readings import Reader, Reading
from flashsd_ray.training.drafter.trainer import Trainer, TrainingConfig
from flashsd_ray.types import CaptionRequest, DraftBlock, SamplingParams
from tests.tiny_checkpoints import checkpoint

MEDIA = MediaConfig(num_frames=2)
NUM_TOKENS = 24
DRAFT_LENGTH = 4


@pytest.fixture(scope="module")
def target() -> PretrainedTarget:
    torch.set_num_threads(1)
    return load_target(str(checkpoint("llava15")), dtype="float32")


def questions(count: int = 4) -> list[Question]:
    asked = world_questions(count, "train", per_clip=2)
    return [replace(question, temperature=0.0) for question in asked]


@pytest.fixture(scope="module")
def answers(target: PretrainedTarget, tmp_path_factory: pytest.TempPathFactory) -> list[Answer]:
    path = answers_file(tmp_path_factory.mktemp("answers"), target)
    return collect_answers(target, questions(), path, Config(media=MEDIA), NUM_TOKENS)


def read(target: PretrainedTarget, answers: list[Answer], tap_layers: tuple[int, ...]) -> list[Reading]:
    return list(Reader(target, tap_layers, MEDIA).read_all(answers, max_bytes=2**30))


@pytest.mark.parametrize("kind", sorted(NETWORKS))
def test_a_few_answers_are_learnt_by_heart_and_drafted_as_learnt(
    kind: str, target: PretrainedTarget, answers: list[Answer]
) -> None:
    view = view_of(target)
    config = replace(NETWORKS[kind].default_config(view, "latent"), draft_length=DRAFT_LENGTH)
    network = build_network(kind, view, config=config)
    readings = read(target, answers, config.tap_layers)
    training = TrainingConfig(steps=120, num_readings=4, num_anchors=8, learning_rate=5e-3, is_autocast=False)
    quality = Trainer(network, readings, readings, training).run()
    assert quality.greedy_tau > 0.9 * DRAFT_LENGTH

    drafter = run_network(network)
    engine = Engine(target, drafter, Config(media=MEDIA))
    rounds = tokens = 0
    for answer in answers:
        question = answer.question
        request = CaptionRequest(
            request_id=question.question_id,
            prompt=question.prompt,
            visuals=load_visuals(question.visuals, MEDIA),
            sampling=SamplingParams(max_new_tokens=NUM_TOKENS),
            draft_length=DRAFT_LENGTH,
        )
        caption = engine.caption(request)
        assert caption.token_ids == answer.token_ids
        rounds += caption.stats.rounds
        tokens += len(caption.token_ids) - 1
    assert tokens / rounds == pytest.approx(quality.greedy_tau, rel=0.15)


def test_scrambled_latents_change_drafts_but_no_token(
    target: PretrainedTarget, answers: list[Answer], monkeypatch: pytest.MonkeyPatch
) -> None:
    question = answers[0].question
    request = CaptionRequest(
        request_id="r",
        prompt=question.prompt,
        visuals=load_visuals(question.visuals, MEDIA),
        sampling=SamplingParams(max_new_tokens=NUM_TOKENS),
        draft_length=DRAFT_LENGTH,
    )
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
        assert Engine(target, drafter, Config(media=MEDIA)).caption(request).token_ids == answers[0].token_ids
        drafted.append(seen)
    assert drafted[0] != drafted[1]


def test_answers_are_not_asked_twice(target: PretrainedTarget, tmp_path: Path) -> None:
    path = answers_file(tmp_path, target)
    assert target.fingerprint in path.name
    first = collect_answers(target, questions(2), path, Config(media=MEDIA), 6)
    with path.open("a", encoding="utf-8") as file:
        file.write('{"question_id": "half a li')
    size = path.stat().st_size
    assert collect_answers(target, questions(2), path, Config(media=MEDIA), 6) == first
    assert path.stat().st_size == size
    changed = [replace(questions(2)[0], prompt="Something else.")]
    assert collect_answers(target, changed, path, Config(media=MEDIA), 6)[0].question == changed[0]


def test_a_reading_is_what_the_target_computes_token_by_token(target: PretrainedTarget, answers: list[Answer]) -> None:
    (reading,) = read(target, answers[:1], (1,))
    best = torch.nn.functional.linear(reading.finals, target.decoder.lm_head).argmax(dim=-1)
    assert best.tolist() == list(reading.token_ids[reading.num_prompt_tokens + 1 :])
    assert len(reading.taps) == len(reading.token_ids) - 1


def test_training_goes_on_where_it_stopped(target: PretrainedTarget, answers: list[Answer], tmp_path: Path) -> None:
    view = view_of(target)
    config = NETWORKS["block"].default_config(view, "pool")
    readings = read(target, answers, config.tap_layers)
    training = TrainingConfig(steps=6, num_readings=2, num_anchors=4, is_autocast=False)
    losses = []
    for stops in (False, True):
        trainer = Trainer(build_network("block", view, config=config), readings, readings, training, tmp_path)
        for step in range(6):
            if stops and step == 3:
                trainer._save()
                trainer = Trainer(build_network("block", view, config=config), readings, readings, training, tmp_path)
                assert trainer.step == 3
            parts = trainer._learn()
        losses.append(float(parts.total))
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)


def test_slots_behind_the_end_teach_nothing(target: PretrainedTarget, answers: list[Answer]) -> None:
    view = view_of(target)
    network = build_network("block", view, compressor="pool")
    (reading,) = read(target, answers[:1], network.config.tap_layers)
    last = reading.num_prompt_tokens + reading.num_anchors - 1
    batch = Lessons([reading], network, seed=0).batch([0], torch.tensor([[last, last - 2]]))
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
    other = drafting_loss(Answers(-logits), logits, rows, token_ids, real, LossWeights(), is_early=False)
    assert float(other.total) > 0.5


def test_world_questions_depend_on_their_arguments_alone() -> None:
    first, again = world_questions(20, "train"), world_questions(20, "train")
    assert first == again
    assert 0 < sum(question.temperature > 0 for question in first) < 20
    assert not {q.visuals for q in first} & {q.visuals for q in world_questions(20, "heldout")}


def test_a_manifest_names_its_questions(tmp_path: Path) -> None:
    path = tmp_path / "questions.jsonl"
    path.write_text(json.dumps({"prompt": "What is this?", "visuals": ["a.png"]}) + "\n" + json.dumps({"prompt": "Hi"}))
    first, second = read_manifest(path)
    assert first.visuals == (str(tmp_path / "a.png"),)
    assert second.visuals == ()
    path.write_text("[1]")
    with pytest.raises(ConfigError, match="line 1"):
        read_manifest(path)
    with pytest.raises(ConfigError, match="cannot read"):
        read_manifest(tmp_path / "missing.jsonl")
