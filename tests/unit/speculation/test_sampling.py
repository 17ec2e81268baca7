"""The warp equals the transformers library's; choices do not depend on their neighbours."""

from __future__ import annotations

from collections import Counter
from typing import cast

import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from scipy import stats
from torch import Tensor
from transformers.generation.logits_process import (
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from flashsd_ray.speculation import sampling as module
from flashsd_ray.speculation.randomness import KeyedDraws, Purpose
from flashsd_ray.speculation.sampling import draft_choice, draft_proposal, highest_ids, keyed_choice, warp
from flashsd_ray.types import SamplingParams
from tests.strategies import samplings
from tests.unit.speculation.laws import reference_warp


def random_logits(seed: int, *shape: int) -> Tensor:
    """Logits without ties."""
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed), dtype=torch.float64) * 2


def transformers_warp(logits: Tensor, params: SamplingParams) -> Tensor:
    """What transformers' generate draws from."""
    context = torch.zeros(len(logits), 1, dtype=torch.int64)
    warpers = LogitsProcessorList([TemperatureLogitsWarper(params.temperature)])
    if params.top_k:
        warpers.append(TopKLogitsWarper(params.top_k))
    if params.top_p < 1.0:
        warpers.append(TopPLogitsWarper(params.top_p))
    return torch.softmax(warpers(cast(torch.LongTensor, context), cast(torch.FloatTensor, logits)), dim=-1)


@settings(deadline=None, max_examples=150)
@given(
    seed=st.integers(0, 2**31),
    vocab_size=st.integers(2, 40),
    temperature=st.floats(0.05, 5.0),
    top_k=st.integers(0, 45),
    top_p=st.floats(0.01, 1.0),
)
def test_warp_is_that_of_transformers(seed: int, vocab_size: int, temperature: float, top_k: int, top_p: float) -> None:
    params = SamplingParams(temperature=temperature, top_k=top_k, top_p=top_p)
    logits = random_logits(seed, 3, vocab_size)
    ordered = warp(logits, SamplingParams(temperature=temperature, top_k=top_k)).sort(descending=True).values.cumsum(-1)
    assume(float((ordered - top_p).abs().min()) > 1e-9)  # rounding may go either way on the threshold
    assert torch.allclose(warp(logits, params), transformers_warp(logits, params), rtol=0, atol=1e-12)


@settings(deadline=None, max_examples=100)
@given(logits=st.lists(st.integers(-3, 3), min_size=1, max_size=8), params=samplings())
def test_warp_of_equal_logits_keeps_the_lower_ids(logits: list[int], params: SamplingParams) -> None:
    row = torch.tensor(logits, dtype=torch.float64)
    unrestricted = reference_warp(row, SamplingParams(temperature=params.temperature, top_k=params.top_k))
    masses = unrestricted.sort(descending=True).values.cumsum(-1)
    assume(float((masses - params.top_p).abs().min()) > 1e-9)
    assert torch.allclose(warp(row, params), reference_warp(row, params), rtol=0, atol=1e-12)


def test_exactly_k_equal_tokens_pass() -> None:
    probs = warp(torch.zeros(2, 6), SamplingParams(temperature=1.0, top_k=2))
    assert probs.tolist() == [[0.5, 0.5, 0, 0, 0, 0]] * 2


@pytest.mark.parametrize(("top_p", "kept"), [(0.01, 1), (0.5, 1), (0.500001, 2), (0.75, 2), (0.8, 3), (1.0, 4)])
def test_top_p_keeps_the_token_that_crosses(top_p: float, kept: int) -> None:
    logits = torch.tensor([0.125, 0.5, 0.125, 0.25], dtype=torch.float64).log2() * 0.6931471805599453
    probs = warp(logits, SamplingParams(temperature=1.0, top_p=top_p))
    assert int((probs > 0).sum()) == kept


def test_greedy_is_certain_of_the_first_highest() -> None:
    assert warp(torch.tensor([1.0, 3.0, 3.0]), SamplingParams()).tolist() == [0.0, 1.0, 0.0]


@pytest.mark.parametrize("temperature", [5e-324, 1e-300, 1e-3, 100.0])
def test_no_temperature_overflows(temperature: float) -> None:
    probs = warp(torch.tensor([-1e4, 3.0, 2.999, -torch.inf]), SamplingParams(temperature=temperature, top_p=0.99))
    assert float(probs.sum()) == pytest.approx(1.0)
    assert int(probs.argmax()) == 1
    assert float(probs[3]) == 0.0


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_warp_takes_any_float_and_shape_and_leaves_it_alone(dtype: torch.dtype) -> None:
    logits = random_logits(0, 2, 3, 10).to(dtype)
    before = logits.clone()
    probs = warp(logits, SamplingParams(temperature=0.7, top_k=5, top_p=0.9))
    assert probs.dtype == torch.float64
    assert probs.shape == logits.shape
    assert torch.equal(logits, before)
    one = warp(logits[1, 2], SamplingParams(temperature=0.7, top_k=5, top_p=0.9))
    assert torch.equal(one, probs[1, 2])


@pytest.mark.parametrize("guess", [1, 2, 7])
def test_a_nucleus_wider_than_the_guess_is_found_too(monkeypatch: pytest.MonkeyPatch, guess: int) -> None:
    logits = torch.cat([random_logits(1, 4, 30), random_logits(2, 4, 30) * 5])
    params = SamplingParams(temperature=0.9, top_p=0.9)
    expected = warp(logits, params)
    monkeypatch.setattr(module, "_NUCLEUS_GUESS", guess)
    assert torch.equal(warp(logits, params), expected)
    assert torch.equal(torch.stack([warp(row, params) for row in logits]), expected)


@settings(deadline=None, max_examples=50)
@given(seed=st.integers(0, 2**31), requests=st.lists(st.one_of(samplings(), st.just(SamplingParams())), min_size=1))
def test_no_row_sees_another(seed: int, requests: list[SamplingParams]) -> None:
    logits = random_logits(seed, len(requests), 6)
    positions = list(range(5, 5 + len(requests)))
    together = keyed_choice(logits, requests, positions).tolist()
    for row, (request, position) in enumerate(zip(requests, positions, strict=True)):
        alone = KeyedDraws(request.seed).token(warp(logits[row], request), position, Purpose.TOKEN)
        assert together[row] == (int(logits[row].argmax()) if request.is_greedy else alone)
    backwards = keyed_choice(logits.flip(0), requests[::-1], positions[::-1]).tolist()
    assert backwards[::-1] == together


def test_drafts_from_the_targets_own_logits_are_its_tokens() -> None:
    logits = random_logits(3, 6, 12)
    for params in (SamplingParams(), SamplingParams(temperature=1.2, top_p=0.9, seed=8)):
        expected = keyed_choice(logits, [params] * 6, range(40, 46)).tolist()
        assert draft_choice(logits, params, start=40) == tuple(expected)


def test_a_truncated_vocabulary_meets_the_same_noise() -> None:
    vocabulary = torch.tensor([9, 2, 5])
    logits = random_logits(4, 50, 12)
    impossible = torch.full_like(logits, -torch.inf)
    impossible[:, vocabulary] = logits[:, vocabulary]
    for params in (SamplingParams(), SamplingParams(temperature=1.2, seed=8)):
        assert draft_choice(logits[:, vocabulary], params, 7, vocabulary) == draft_choice(impossible, params, 7)


def test_proposals_are_what_their_drafts_were_drawn_from() -> None:
    vocabulary = torch.tensor([9, 2, 5, 0])
    logits = random_logits(5, 1, 4)
    counts: Counter[int] = Counter()
    for seed in range(4000):
        params = SamplingParams(temperature=1.5, seed=seed)
        (draft,), proposal = draft_proposal(logits, params, 7, 1, support_size=3, vocabulary=vocabulary)
        counts[draft] += 1
    assert proposal.support_ids.shape == (1, 3)
    assert float(proposal.support_probs.sum()) == pytest.approx(1.0, abs=1e-12)
    expected = dict(zip(proposal.support_ids[0].tolist(), (proposal.support_probs[0] * 4000).tolist(), strict=True))
    assert set(counts) == set(expected)
    assert stats.chisquare([counts[i] for i in expected], list(expected.values())).pvalue > 1e-3


def test_a_position_drafted_again_is_drawn_afresh() -> None:
    logits = torch.zeros(40, 30)
    params = SamplingParams(temperature=1.0)
    first, second = (draft_proposal(logits, params, 7, round_index, 30)[0] for round_index in (1, 2))
    assert first == draft_proposal(logits, params, 7, 1, 30)[0]
    assert first != second


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float64])
def test_the_highest_token_is_the_lowest_id_among_equals(dtype: torch.dtype) -> None:
    logits = torch.randint(0, 3, (4, 5, 33), generator=torch.Generator().manual_seed(0)).to(dtype)
    found = highest_ids(logits)
    assert found.dtype == torch.int64
    expected = [[[*row].index(max(row)) for row in rows] for rows in logits.tolist()]
    assert found.tolist() == expected
