"""The bundled target and drafters on clips they never saw: captions are sensible, speculation pays, nothing changes.

The headline: whatever happens to the compressed latents, only tau may move, never a token.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import pytest
import torch

from flashsd_ray.bench.answering import DRAFTED, PLAIN, answer
from flashsd_ray.bench.workload import Question, held_out_questions
from flashsd_ray.config import Config, SpeculationConfig
from flashsd_ray.engine.answers import Caption
from flashsd_ray.engine.local import Engine
from flashsd_ray.models import compressors
from flashsd_ray.models.drafters.registry import NETWORKS
from flashsd_ray.models.linear import can_pack
from flashsd_ray.models.pretrained import PretrainedTarget, load_target
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.training.town.checking import Tally, check
from flashsd_ray.training.town.language import PROMPTS, Task, converse
from flashsd_ray.training.town.schema import parsed
from flashsd_ray.training.town.staging import sample_scene
from flashsd_ray.types import SamplingParams

NUM_CLIPS = 6
GREEDY = SamplingParams(max_new_tokens=72)
HAS_BFLOAT16 = can_pack(torch.zeros(1, 1, dtype=torch.bfloat16))


@lru_cache(maxsize=2)
def bundled(dtype: str = "float32") -> PretrainedTarget:
    return load_target("demo", dtype=dtype, device="cpu")


@lru_cache(maxsize=1)
def questions() -> tuple[Question, ...]:
    return tuple(held_out_questions(NUM_CLIPS))


def engine_with(drafter: str, compressor: str = "auto", dtype: str = "float32", acceptance: str = "coupled") -> Engine:
    speculation = SpeculationConfig(
        drafter=drafter,
        compressor=compressor,
        draft_length=8,
        acceptance=acceptance,  # type: ignore[arg-type]
    )
    return Engine.around(bundled(dtype), Config(speculation=speculation))


def answers(
    engine: Engine, sampling: SamplingParams = GREEDY, draft_length: int | None = DRAFTED
) -> dict[str, Caption]:
    return answer(engine, questions(), [sampling] * NUM_CLIPS, draft_length)


@lru_cache(maxsize=2)
def plain(dtype: str = "float32") -> dict[str, tuple[int, ...]]:
    captions = answers(engine_with("none", dtype=dtype), draft_length=PLAIN)
    return {key: caption.token_ids for key, caption in captions.items()}


def tokens(captions: dict[str, Caption]) -> dict[str, tuple[int, ...]]:
    return {key: caption.token_ids for key, caption in captions.items()}


def tau(captions: dict[str, Caption]) -> float:
    return sum((caption.stats for caption in captions.values()), SpeculationStats()).tau


@lru_cache(maxsize=2)
def said(task: Task) -> dict[int, str]:
    """What the target answers to the first prompt of this task about each clip, by the seed of the clip."""
    asked = [Question(PROMPTS[task][0], question.visual) for question in questions()]
    captions = answer(engine_with("none"), asked, [SamplingParams(max_new_tokens=192)] * NUM_CLIPS, PLAIN)
    seeds = {question.visual.digest: int(question.visual.source.split()[-1]) for question in asked}
    return {seeds[digest]: caption.text for digest, caption in captions.items()}


def test_detailed_captions_say_what_is_there() -> None:
    tally = Tally()
    for seed, text in said("detail").items():
        scene = sample_scene(seed, "heldout")
        check(tally, scene, converse(scene, "detail", 0), text)
    figures = tally.figures()
    assert figures["object_f1"] >= 0.75
    assert figures["place"] >= (NUM_CLIPS - 1) / NUM_CLIPS
    assert figures["motion"] >= 0.6


def test_who_asks_for_json_gets_json_and_who_asks_briefly_is_answered_briefly() -> None:
    assert sum(parsed(text) is not None for text in said("json").values()) >= NUM_CLIPS - 1
    lengths = {task: [len(text) for text in said(task).values()] for task in ("short", "detail")}
    assert max(lengths["short"]) < min(lengths["detail"])


@pytest.mark.parametrize("drafter", sorted(NETWORKS))
def test_trained_drafters_change_no_token_and_commit_several_at_once(drafter: str) -> None:
    captions = answers(engine_with(drafter))
    assert tokens(captions) == plain()
    assert tau(captions) > 1.5


@pytest.mark.parametrize("compressor", compressors.names())
def test_any_compressor_gives_the_same_tokens(compressor: str) -> None:
    assert tokens(answers(engine_with("block", compressor))) == plain()


def test_scrambled_latents_move_tau_and_never_a_token() -> None:
    faithful, scrambled = engine_with("block"), engine_with("block")
    network: Any = scrambled.drafter
    noise = torch.Generator().manual_seed(1)
    network.network.compressor.register_forward_hook(
        lambda _module, _inputs, latents: torch.randn(latents.shape, generator=noise).to(latents) * 3
    )
    before, after = answers(faithful), answers(scrambled)
    assert tokens(before) == tokens(after) == plain()
    assert tau(before) != tau(after)


@pytest.mark.skipif(not HAS_BFLOAT16, reason="this CPU has no bfloat16 products")
def test_in_bfloat16_too_an_answer_does_not_depend_on_drafts_or_batch() -> None:
    engine = engine_with("block", dtype="bfloat16")
    assert tokens(answers(engine)) == plain("bfloat16")
    alone = {}
    for question in questions():
        alone |= tokens(answer(engine, [question], [GREEDY], DRAFTED))
    assert alone == plain("bfloat16")


@pytest.mark.parametrize("drafter", ["block", "lookup"])
def test_a_seed_gives_the_same_sampled_text_with_and_without_drafts(drafter: str) -> None:
    sampled = SamplingParams(max_new_tokens=48, temperature=0.8, top_p=0.95, seed=11)
    drafted = tokens(answers(engine_with(drafter), sampled))
    assert drafted == tokens(answers(engine_with("none"), sampled))
    assert drafted != tokens(answers(engine_with("none"), SamplingParams(max_new_tokens=48, temperature=0.8, seed=12)))


def test_the_rejection_rule_runs_end_to_end_and_is_reproducible() -> None:
    sampled = SamplingParams(max_new_tokens=32, temperature=0.8, seed=5)
    first, second = (tokens(answers(engine_with("block", acceptance="rejection"), sampled)) for _ in range(2))
    assert first == second
