"""Trained drafters: drafting equals what training saw, batching changes nothing, checkpoints come back."""

from __future__ import annotations

import json
import logging
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor

from flashsd_ray.errors import CheckpointError, ConfigError, ProtocolError, StaleBlockError
from flashsd_ray.models import compressors, drafters
from flashsd_ray.models.drafters import checkpoint
from flashsd_ray.models.drafters.architecture import DrafterConfig, attention_shape, spread_taps
from flashsd_ray.models.drafters.build import build_network, run_network
from flashsd_ray.models.drafters.choice import DraftChoice
from flashsd_ray.models.drafters.layers import DraftAttention
from flashsd_ray.models.drafters.layout import lay_out
from flashsd_ray.models.drafters.lesson import Answers, Lesson
from flashsd_ray.models.drafters.markov import MarkovHead
from flashsd_ray.models.drafters.network import DrafterNetwork
from flashsd_ray.models.drafters.neural import NeuralDrafter
from flashsd_ray.models.drafters.registry import NETWORKS
from flashsd_ray.speculation.sampling import keyed_choice
from flashsd_ray.types import EncodedPrompt, SamplingParams, Verdict
from tests.tiny_drafting import VOCAB, WIDTH, first_verdict, next_verdict, tiny_prompt, tiny_view

TRAINED = tuple(sorted(NETWORKS))
COMPRESSORS = compressors.names()
PROMPT_SHAPES = {"two pictures": (8, 8), "no picture": (), "one long picture": (19,)}


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def small_config(kind: str, **changes: object) -> DrafterConfig:
    """The kind's own sizes, with pieces small enough for the tiny prompts and two layers where that is possible."""
    config = NETWORKS[kind].default_config(tiny_view(), "latent")
    config = replace(config, compressor=replace(config.compressor, num_latents=2, piece_tokens=6))
    return replace(config, **({"num_layers": 2} | changes if kind == "block" else changes))


def shaken_network(kind: str, **changes: object) -> DrafterNetwork:
    """A network in which no weight is zero, as after training."""
    network = build_network(kind, tiny_view(), config=small_config(kind, **changes))
    generator = torch.Generator().manual_seed(7)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.add_(0.1 * torch.randn(parameter.shape, generator=generator))
    return network


@pytest.fixture
def seen_logits(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """What the drafter chose from, slot by slot, since the list was last cleared."""
    seen: list[Tensor] = []

    def choose(_choice: DraftChoice, logits: Tensor, slot: int) -> Tensor:
        seen.append(logits)
        return logits.argmax(dim=-1)

    monkeypatch.setattr(DraftChoice, "choose", choose)
    monkeypatch.setattr(DraftChoice, "is_highest", False)
    return seen


def history(prompt: EncodedPrompt, verdicts: list[Verdict]) -> list[int]:
    return [*prompt.token_ids, *(token_id for verdict in verdicts for token_id in verdict.token_ids)]


def taught_logits(
    network: DrafterNetwork, prompt: EncodedPrompt, fused: Tensor, tokens: list[int], anchor: int
) -> Tensor:  # [K, V]
    """What the training forward says behind one anchor of three, with rows behind it in the batch."""
    future = torch.randn(4, fused.shape[1])
    rows = torch.cat((fused, future))
    tokens = [*tokens, *[0] * (len(rows) + 1 - len(tokens))]
    layout = lay_out(len(rows), prompt.segments, network.compressor, torch.device("cpu"))
    context = network.enter_prompt(rows, torch.tensor(tokens[1 : len(rows) + 1]), layout, prompt.embeddings)
    lesson = Lesson(
        context=context[None],
        positions=layout.positions[None],
        token_ids=torch.tensor(tokens)[None],
        anchors=torch.tensor([[len(prompt), anchor, len(prompt) + 1]]),
    )
    with torch.no_grad():
        answers: Answers = network(lesson)
    return answers.logits[0, 1]


def open_and_play(drafter: NeuralDrafter, prompt: EncodedPrompt, request_id: str = "r") -> list[Verdict]:
    """A request of four rounds that commit one, three, one and two tokens; drafts were asked for each time."""
    drafter.open(request_id, prompt, SamplingParams(), len(prompt) + 40)
    verdicts = [first_verdict(drafter, request_id, prompt, 4)]
    for index, token_ids in enumerate([(5, 6, 7), (8,), (9, 10)]):
        drafter.propose([verdicts[-1]], [drafter.max_draft_length])
        verdicts.append(next_verdict(drafter, verdicts[-1], token_ids, seed=index + 1))
    return verdicts


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("compressor", COMPRESSORS)
def test_drafting_sees_the_logits_that_training_saw(kind: str, compressor: str, seen_logits: list[Tensor]) -> None:
    config = small_config(kind)
    _drafts_as_taught(shaken_network(kind, compressor=replace(config.compressor, name=compressor)), seen_logits)


@pytest.mark.parametrize("has_lead", [False, True])
@pytest.mark.parametrize("is_causal", [False, True])
@pytest.mark.parametrize("num_layers", [1, 2])
def test_every_block_drafts_as_it_was_taught(
    has_lead: bool, is_causal: bool, num_layers: int, seen_logits: list[Tensor]
) -> None:
    network = shaken_network("block", has_lead=has_lead, is_causal=is_causal, num_layers=num_layers)
    _drafts_as_taught(network, seen_logits)


def _drafts_as_taught(network: DrafterNetwork, seen_logits: list[Tensor]) -> None:
    drafter, prompt = run_network(network), tiny_prompt((8, 13))
    verdicts = open_and_play(drafter, prompt)
    seen_logits.clear()
    drafter.propose(verdicts[-1:], [drafter.max_draft_length])
    drafted = torch.cat(seen_logits)  # [K, V]
    committed = history(prompt, verdicts)
    told = [*committed, *drafted.argmax(dim=-1).tolist()]
    fused = torch.cat([verdict.taps for verdict in verdicts if verdict.taps is not None])
    taught = taught_logits(network, prompt, fused, told, anchor=len(committed) - 1)
    torch.testing.assert_close(drafted, taught, rtol=1e-4, atol=1e-4)


def test_a_short_causal_block_is_the_beginning_of_a_long_one(
    seen_logits: list[Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    network = shaken_network("block", is_causal=True)
    projected: list[int] = []
    project = DraftAttention.project
    monkeypatch.setattr(
        DraftAttention,
        "project",
        lambda self, rows, *angles: projected.append(len(rows)) or project(self, rows, *angles),
    )
    drafter = run_network(network)
    verdict = open_and_play(drafter, tiny_prompt())[-1]
    found = []
    for length in (8, 3):
        seen_logits.clear()
        projected.clear()
        (block,) = drafter.propose([verdict], [length])
        found.append((block.token_ids, torch.cat(seen_logits), projected[0]))
    (long, long_logits, long_rows), (short, short_logits, short_rows) = found
    assert short == long[:3]
    torch.testing.assert_close(short_logits, long_logits[:3], rtol=1e-4, atol=1e-4)
    assert long_rows - short_rows == 5  # slots that nobody asked for are not computed


@pytest.mark.parametrize("kind", TRAINED)
def test_drafts_do_not_depend_on_who_else_is_drafted_for(kind: str, seen_logits: list[Tensor]) -> None:
    drafter = run_network(shaken_network(kind))
    prompts = {name: tiny_prompt(shape, seed=seed) for seed, (name, shape) in enumerate(PROMPT_SHAPES.items())}
    played = {name: open_and_play(drafter, prompt, name)[-1] for name, prompt in prompts.items()}
    alone = {}
    for name, verdict in played.items():
        seen_logits.clear()
        alone[name] = (drafter.propose([verdict], [drafter.max_draft_length])[0], torch.cat(seen_logits))
    seen_logits.clear()
    together = drafter.propose(list(played.values()), [drafter.max_draft_length, 1, 2])
    logits = torch.stack(seen_logits, dim=1)  # [B, K, V]
    for row, (block, name) in enumerate(zip(together, played, strict=True)):
        assert block.token_ids == alone[name][0].token_ids[: len(block.token_ids)]
        torch.testing.assert_close(logits[row], alone[name][1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", TRAINED)
def test_a_repeated_verdict_gets_the_same_block(kind: str) -> None:
    drafter = run_network(shaken_network(kind))
    for verdict in (first := open_and_play(drafter, tiny_prompt(), "a"))[-1:]:
        blocks = [drafter.propose([verdict], [4])[0] for _ in range(3)]
        assert len({block.token_ids for block in blocks}) == 1
    follow_up = next_verdict(drafter, first[-1], (1, 2), seed=9)
    expected = drafter.propose([follow_up], [4])[0]
    again = run_network(shaken_network(kind))
    clean = open_and_play(again, tiny_prompt(), "a")
    again.propose(clean[-1:], [4])
    assert again.propose([follow_up], [4])[0].token_ids == expected.token_ids


@pytest.mark.parametrize("kind", TRAINED)
def test_rounds_without_drafting_are_caught_up_later(kind: str, seen_logits: list[Tensor]) -> None:
    results = []
    for lengths in ([3, 3, 3, 3], [0, 0, 0, 3]):
        drafter, prompt = run_network(shaken_network(kind)), tiny_prompt()
        drafter.open("r", prompt, SamplingParams(), len(prompt) + 40)
        verdict = first_verdict(drafter, "r", prompt, 4)
        for index, length in enumerate(lengths):
            seen_logits.clear()
            (block,) = drafter.propose([verdict], [length])
            assert len(block.token_ids) == length
            verdict = next_verdict(drafter, verdict, (5, 6), seed=index)
        results.append(torch.cat(seen_logits))
    torch.testing.assert_close(results[0], results[1], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kind", TRAINED)
def test_pictures_matter_to_drafts_only_through_latents(kind: str, seen_logits: list[Tensor]) -> None:
    seen = {}
    for compressor in ("latent", "hide"):
        config = replace(small_config(kind).compressor, name=compressor)
        drafter, prompt = run_network(shaken_network(kind, compressor=config)), tiny_prompt()
        verdict = first_verdict(drafter, "r", prompt, 4)
        assert verdict.taps is not None
        other = verdict.taps.clone()
        for segment in prompt.segments:
            other[segment.start : segment.stop] = torch.randn(segment.num_tokens, other.shape[1])
        for taps in (verdict.taps, other):
            drafter.open("r", prompt, SamplingParams(), len(prompt) + 40)
            seen_logits.clear()
            drafter.propose([replace(verdict, taps=taps)], [2])
            seen.setdefault(compressor, []).append(torch.cat(seen_logits))
            drafter.close("r")
    assert torch.equal(*seen["hide"])
    assert not torch.allclose(*seen["latent"])


def test_the_vision_source_reads_embeddings_instead_of_taps(seen_logits: list[Tensor]) -> None:
    drafter, prompt = run_network(shaken_network("block", source="vision")), tiny_prompt()
    verdict = first_verdict(drafter, "r", prompt, 4)
    seen = []
    for embeddings in (prompt.embeddings, prompt.embeddings.flip(0)):
        drafter.open("r", replace(prompt, embeddings=embeddings), SamplingParams(), len(prompt) + 40)
        seen_logits.clear()
        drafter.propose([verdict], [2])
        seen.append(torch.cat(seen_logits))
        drafter.close("r")
    assert not torch.allclose(*seen)


def test_text_rows_keep_their_positions_and_latents_stand_among_them() -> None:
    network = build_network("block", tiny_view(), config=small_config("block"))
    layout = lay_out(24, tiny_prompt((8, 8)).segments, network.compressor, torch.device("cpu"))
    assert layout.positions.tolist() == [0, 1, 2, 5, 9, 11, 14, 18, 20, 21, 22, 23]
    assert layout.num_latents == 4


@pytest.mark.parametrize("kind", TRAINED)
def test_a_sampled_request_gets_its_own_drafts_and_proposals(kind: str) -> None:
    sampling = SamplingParams(temperature=1.0, seed=3)
    for rule in ("coupled", "rejection"):
        drafter, prompt = run_network(shaken_network(kind), rule=rule), tiny_prompt()
        for request_id, params in (("greedy", SamplingParams()), ("sampled", sampling)):
            drafter.open(request_id, prompt, params, len(prompt) + 40)
        greedy, sampled = drafter.propose(
            [first_verdict(drafter, name, prompt, 4) for name in ("greedy", "sampled")], [4, 3]
        )
        assert greedy.proposal is None
        if rule == "coupled":
            assert sampled.proposal is None
            continue
        assert sampled.proposal is not None
        assert sampled.proposal.support_ids.shape[0] == 3
        torch.testing.assert_close(sampled.proposal.support_probs.sum(dim=1), torch.ones(3, dtype=torch.float64))
        for token_id, support in zip(sampled.token_ids, sampled.proposal.support_ids, strict=True):
            assert token_id in support


@pytest.mark.parametrize("kind", TRAINED)
def test_verdicts_that_do_not_fit_are_refused(kind: str) -> None:
    drafter, prompt = run_network(shaken_network(kind)), tiny_prompt()
    drafter.open("r", prompt, SamplingParams(), len(prompt) + 40)
    verdict = first_verdict(drafter, "r", prompt, 4)
    with pytest.raises(ProtocolError, match="rows of taps"):
        drafter.propose([replace(verdict, taps=None)], [2])
    with pytest.raises(StaleBlockError, match="are committed"):
        drafter.propose([next_verdict(drafter, verdict, (1, 2))], [2])


@pytest.mark.parametrize("kind", TRAINED)
def test_a_saved_drafter_drafts_the_same(kind: str, tmp_path: Path) -> None:
    network = shaken_network(kind)
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.copy_(parameter.bfloat16())
    checkpoint.save(tmp_path, network, {"steps": 3})
    saved, loaded = run_network(network), drafters.load_drafter(str(tmp_path), tiny_view())
    assert isinstance(loaded, NeuralDrafter)
    assert checkpoint.describe(tmp_path)["provenance"] == {"steps": 3}
    assert (loaded.tap_layers, loaded.tap_width) == (saved.tap_layers, saved.tap_width)
    blocks = []
    for drafter in (saved, loaded):
        verdict = open_and_play(drafter, tiny_prompt())[-1]
        blocks.append(drafter.propose([verdict], [drafter.max_draft_length])[0])
    assert blocks[0].token_ids == blocks[1].token_ids


def test_a_checkpoint_for_another_target_is_refused(tmp_path: Path) -> None:
    checkpoint.save(tmp_path, shaken_network("block"), {})
    with pytest.raises(CheckpointError, match="was trained for target tiny-4-0"):
        drafters.load_drafter(str(tmp_path), tiny_view(seed=1))


def test_damaged_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no drafter"):
        checkpoint.load(tmp_path, tiny_view())
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="not valid JSON"):
        checkpoint.load(tmp_path, tiny_view())
    (tmp_path / "config.json").write_text("[]")
    with pytest.raises(CheckpointError, match="format"):
        checkpoint.load(tmp_path, tiny_view())
    checkpoint.save(tmp_path, shaken_network("block"), {})
    described = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps({**described, "config": {**described["config"], "width": -1}}))
    with pytest.raises(CheckpointError, match="does not describe a drafter"):
        checkpoint.load(tmp_path, tiny_view())
    (tmp_path / "config.json").write_text(json.dumps(described))
    (tmp_path / "model.safetensors").write_bytes(b"nonsense")
    with pytest.raises(CheckpointError, match="cannot read"):
        checkpoint.load(tmp_path, tiny_view())


def test_another_compressor_than_the_trained_one_may_be_used(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    checkpoint.save(tmp_path, shaken_network("block"), {})
    with caplog.at_level(logging.WARNING):
        drafters.load_drafter(str(tmp_path), tiny_view(), compressor="pool")
    assert not caplog.records
    with caplog.at_level(logging.WARNING):
        drafters.load_drafter(str(tmp_path), tiny_view(), compressor="flash")
    assert "untrained" in caplog.text
    with pytest.raises(ConfigError, match="unknown compressor"):
        drafters.load_drafter(str(tmp_path), tiny_view(), compressor="zip")


def test_unknown_drafters_list_the_known_ones() -> None:
    assert drafters.names() == ("ar", "block", "flash", "lookup", "none")
    for make in (drafters.build_drafter, drafters.load_drafter):
        with pytest.raises(ConfigError, match="ar, block, flash, lookup, none"):
            make("medusa", tiny_view())


def test_auto_is_lookup_for_a_target_nothing_was_trained_for() -> None:
    assert type(drafters.load_drafter("auto", tiny_view())).__name__ == "LookupDrafter"


def test_a_bundled_drafter_does_not_load_for_another_target() -> None:
    with pytest.raises(CheckpointError):
        drafters.load_drafter("block", tiny_view())


def test_default_sizes_suit_small_and_large_targets() -> None:
    assert spread_taps(10, 3) == (2, 5, 8)
    assert spread_taps(32, 5) == (2, 9, 16, 23, 30)
    assert spread_taps(2, 3) == (1,)
    assert attention_shape(320) == (5, 1, 64)
    assert attention_shape(4096) == (32, 8, 128)
    for kind in TRAINED:
        for view in (tiny_view(1), tiny_view(2)):
            assert NETWORKS[kind].default_config(view, "latent").tap_layers[-1] <= view.num_layers


def test_no_target_weight_is_held_or_trained_by_the_drafter() -> None:
    network = build_network("block", tiny_view())
    shapes = [tuple(parameter.shape) for parameter in network.parameters()]
    assert (VOCAB, WIDTH) not in shapes


def test_sampled_drafts_meet_the_noise_of_the_target() -> None:
    samplings = [SamplingParams(), SamplingParams(temperature=0.7, seed=5), SamplingParams(temperature=2.0, seed=9)]
    starts, slots = [10, 3, 400], 3
    choice = DraftChoice(samplings, starts, [1, 1, 1], slots)
    for slot in range(slots):
        logits = torch.randn(3, VOCAB)
        expected = keyed_choice(logits, samplings, [start + slot for start in starts])
        assert choice.choose(logits, slot).tolist() == expected.tolist()
    truncated = [SamplingParams(temperature=1.0, top_k=3), SamplingParams(temperature=1.0, top_p=0.5)]
    choice = DraftChoice(truncated, [1, 2], [1, 1], 1)
    logits = torch.randn(2, VOCAB)
    assert choice.choose(logits, 0).tolist() == keyed_choice(logits, truncated, [1, 2]).tolist()


@pytest.mark.parametrize("kind", TRAINED)
@pytest.mark.parametrize("temperature", [0.0, 1.3])
def test_the_fast_way_to_choose_chooses_the_same(
    kind: str, temperature: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    blocks = []
    for is_fast in (True, False):
        drafter, prompt = run_network(shaken_network(kind)), tiny_prompt()
        drafter.open("r", prompt, SamplingParams(temperature=temperature, seed=2), len(prompt) + 40)
        if not is_fast:
            monkeypatch.setattr(DraftChoice, "is_highest", False)
        blocks.append(drafter.propose([first_verdict(drafter, "r", prompt, 4)], [drafter.max_draft_length])[0])
    assert blocks[0].token_ids == blocks[1].token_ids
    assert blocks[0].confidence == pytest.approx(blocks[1].confidence)


def test_a_frozen_bigram_head_says_what_it_learnt() -> None:
    torch.manual_seed(0)
    head = MarkovHead(VOCAB, WIDTH, 6)
    with torch.no_grad():
        for parameter in head.parameters():
            parameter.copy_(torch.randn(parameter.shape))
    logits, anchors = torch.randn(3, 5, VOCAB), torch.randint(0, VOCAB, (3,))
    hidden, previous = torch.randn(3, 5, WIDTH), torch.randint(0, VOCAB, (3, 5))
    with torch.inference_mode():
        followed, odds = head.follow(logits, anchors), head.stand_logits(hidden, previous)
        head.freeze()
        assert torch.equal(head.follow(logits, anchors), followed)
        torch.testing.assert_close(head.stand_logits(hidden, previous), odds)
