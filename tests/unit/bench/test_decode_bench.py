"""The decode bench on a tiny target: all contenders say the same, and the command leaves everything behind."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from flashsd_ray.bench.decode.contenders import EngineContender
from flashsd_ray.bench.decode.divergence import Divergence, GapReader
from flashsd_ray.bench.decode.generating import ASSISTED, PROMPT_LOOKUP, GenerateContender, shallow_copy, together
from flashsd_ray.bench.workload import Question, held_out_questions
from flashsd_ray.cli.main import build_parser
from flashsd_ray.config import Config, SpeculationConfig
from flashsd_ray.engine.local import Engine
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.types import Conversation, SamplingParams
from tests.tiny_checkpoints import checkpoint

NUM_TOKENS = 10


@pytest.fixture(scope="module")
def target() -> PretrainedTarget:
    torch.set_num_threads(1)
    return load_target(str(checkpoint("llava15")), dtype="float32")


@pytest.fixture(scope="module")
def questions() -> list[Question]:
    """Of different lengths, so that batches have padding."""
    asked = held_out_questions(3, frame_count=2)
    return [replace(one, prompt=one.prompt + " Why?" * index) for index, one in enumerate(asked)]


@pytest.fixture(scope="module")
def plain(target: PretrainedTarget, questions: Sequence[Question]) -> EngineContender:
    encoder = LocalEncoder(target)
    prompts = {one.visual.digest: encoder.encode(Conversation.of(one.prompt, (one.visual,))) for one in questions}
    engine = Engine.around(target, Config(speculation=SpeculationConfig(drafter="none")))
    return EngineContender("plain", engine, prompts, 0)


def greedy(count: int) -> list[SamplingParams]:
    return [SamplingParams(max_new_tokens=NUM_TOKENS)] * count


@pytest.mark.parametrize("name", ["generate", PROMPT_LOOKUP, ASSISTED])
def test_the_library_says_what_we_say_one_at_a_time(
    name: str, target: PretrainedTarget, questions: Sequence[Question], plain: EngineContender
) -> None:
    contender = GenerateContender(name, target)
    for one in questions:
        ours, theirs = (who.answer([one], greedy(1)) for who in (plain, contender))
        assert dict(theirs.token_ids) == dict(ours.token_ids)
        assert theirs.seconds > 0 < ours.seconds
        assert 0 < theirs.num_tokens <= ours.num_tokens
        assert theirs.rounds <= theirs.num_tokens


def test_the_library_says_what_we_say_together(
    target: PretrainedTarget, questions: Sequence[Question], plain: EngineContender
) -> None:
    theirs = GenerateContender("generate", target).answer(questions, greedy(3))
    ours = plain.answer(questions, greedy(3))
    assert dict(theirs.token_ids) == dict(ours.token_ids)
    assert theirs.num_tokens == ours.num_tokens == ours.rounds
    assert 0 < ours.stage_s["verify"] < ours.seconds


def test_the_library_draws_from_the_seed(target: PretrainedTarget, questions: Sequence[Question]) -> None:
    drawn = [
        GenerateContender("generate", target).answer(
            questions[:1], [SamplingParams(max_new_tokens=NUM_TOKENS, temperature=1.0, seed=seed)]
        )
        for seed in (1, 1, 2)
    ]
    assert drawn[0].token_ids == drawn[1].token_ids != drawn[2].token_ids


def test_padding_stands_before_the_prompt(target: PretrainedTarget, questions: Sequence[Question]) -> None:
    encoder = LocalEncoder(target)
    each = [encoder.process(Conversation.of(one.prompt, (one.visual,))) for one in questions]
    joined = together(each, padding=7)
    for row, one in enumerate(each):
        length = one["input_ids"].shape[1]
        assert joined["input_ids"][row, -length:].tolist() == one["input_ids"][0].tolist()
        assert set(joined["input_ids"][row, :-length].tolist()) <= {7}
        assert int(joined["attention_mask"][row].sum()) == length
    assert len(joined["pixel_values"]) == sum(len(one["pixel_values"]) for one in each)


def test_the_assistant_shares_the_weights_and_leaves_the_target_whole(target: PretrainedTarget) -> None:
    layers = len(target.text_model.layers)  # type: ignore[arg-type]
    assistant = shallow_copy(target)
    assert len(assistant.model.get_submodule(target.family.text_model).layers) < layers
    assert len(target.text_model.layers) == layers == target.text_config.num_hidden_layers  # type: ignore[arg-type]
    assert next(assistant.parameters()) is next(target.model.parameters())


def test_gaps_are_those_of_the_logits(
    target: PretrainedTarget, questions: Sequence[Question], plain: EngineContender
) -> None:
    one = questions[1]
    digest = one.visual.digest
    said = plain.answer([one], greedy(1)).token_ids[digest]
    reader = GapReader(target, Config())
    for place in (0, 4):
        parted = Divergence(digest=digest, place=place, expected=said[place], found=(said[place] + 1) % 300)
        judged = reader.judged(parted, Conversation.of(one.prompt, (one.visual,)), said)
        assert judged.top_gap is not None
        assert judged.pair_gap is not None
        assert 0 < judged.top_gap <= judged.pair_gap, "what was said was the most probable token"


def parsed(out: Path, *more: str) -> argparse.Namespace:
    words = [
        *("bench", "decode", "--model", str(checkpoint("llava15")), "--dtype", "float32", "--threads", "1"),
        *("--clips", "2", "--frames", "2", "--baseline-clips", "1", "--batch-sizes", "1", "2", "--drafters", "lookup"),
        *("--temperatures", "0", "--max-new-tokens", "6", "--baselines", "generate", "--out", str(out), *more),
    ]
    return build_parser().parse_args(words)


def test_the_command_leaves_everything_behind_and_goes_on(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    arguments = parsed(tmp_path)
    report = arguments.measure(arguments)
    assert report.is_sound
    assert {(row["batch_size"], row["contender"]) for row in report.rows} == {
        (size, name) for size in (1, 2) for name in ("plain", "lookup", "generate")
    }
    assert arguments.output == tmp_path / "decode.json"
    assert {path.name for path in tmp_path.iterdir()} == {
        *("turns.jsonl", "decode.md", "speedup.svg", "survival.svg", "round.svg")
    }
    lines = (tmp_path / "turns.jsonl").read_text().splitlines()
    assert json.loads(lines[0])["identity"]["clips"] == 2
    assert len(lines) == 1 + report.details["turns_done"]
    again = arguments.measure(parsed(tmp_path))
    assert again.rows == report.rows
    assert "missing" not in capsys.readouterr().out
