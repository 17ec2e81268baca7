"""The losslessness ladder: one-step law, block law, greedy equality, coupled equality, batched versions."""

from __future__ import annotations

from itertools import product
from typing import get_args

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.errors import ProtocolError
from flashsd_ray.speculation import acceptance
from flashsd_ray.speculation.acceptance import accept_prefix, certain_proposal, judge, residual
from flashsd_ray.speculation.acceptance_batch import judge_blocks, judge_greedy_batch
from flashsd_ray.types import DraftBlock, Proposal, SamplingParams
from tests.fakes import seeded_logits
from tests.strategies import proposal_of, proposal_rows, samplings, simplexes
from tests.unit.speculation.laws import EXACT, assert_same_as_plain, block_law_error, draft_scripts

PLAIN = SamplingParams(temperature=1.0)
slow = settings(deadline=None, max_examples=25)


@settings(deadline=None, max_examples=80)
@given(st.data(), st.integers(1, 6))
def test_one_draft_leaves_the_law_of_the_target_unchanged(data: st.DataObject, vocab_size: int) -> None:
    target_probs = [data.draw(simplexes(vocab_size)) for _ in range(2)]
    row = data.draw(proposal_rows(vocab_size))
    error = block_law_error(acceptance, "rejection", lambda h: target_probs[min(len(h), 1)].log(), [row], PLAIN)
    assert error < EXACT


@settings(deadline=None, max_examples=150)
@given(st.data(), st.integers(1, 6))
def test_keeping_and_recovering_add_up_to_the_target(data: st.DataObject, vocab_size: int) -> None:
    target_probs = data.draw(simplexes(vocab_size))
    ids, draft_probs = data.draw(proposal_rows(vocab_size))
    dense = torch.zeros(vocab_size, dtype=torch.float64).index_add(0, ids, draft_probs)
    keep = torch.minimum(target_probs, dense)
    law = keep + (1.0 - keep.sum()) * residual(target_probs, ids, draft_probs)
    assert torch.allclose(law, target_probs, rtol=0, atol=EXACT)


@pytest.mark.parametrize("rule", ["rejection", "coupled"])
@pytest.mark.parametrize("with_proposal", [True, False])
@slow
@given(data=st.data())
def test_block_law_is_the_law_of_a_target_with_memory(data: st.DataObject, rule: str, with_proposal: bool) -> None:
    vocab_size, length = data.draw(st.sampled_from([(2, 1), (2, 2), (3, 2), (2, 3), (3, 3)]))
    next_logits = seeded_logits(vocab_size, data.draw(st.integers(0, 2**31)), order=3)
    rows = [data.draw(proposal_rows(vocab_size)) for _ in range(length)]
    error = block_law_error(acceptance, rule, next_logits, rows, PLAIN, with_proposal=with_proposal)
    assert error < EXACT


@slow
@given(data=st.data(), sampling=samplings())
def test_block_law_holds_for_every_warp(data: st.DataObject, sampling: SamplingParams) -> None:
    next_logits = seeded_logits(3, data.draw(st.integers(0, 2**31)), order=2)
    rows = [data.draw(proposal_rows(3)) for _ in range(2)]
    for rule in ("rejection", "coupled"):
        assert block_law_error(acceptance, rule, next_logits, rows, sampling) < EXACT


@slow
@given(data=st.data())
def test_block_law_holds_for_a_target_with_impossible_and_equal_tokens(data: st.DataObject) -> None:
    table = {h: data.draw(simplexes(3)) for n in range(3) for h in product(range(3), repeat=n)}
    rows = [data.draw(proposal_rows(3)) for _ in range(2)]
    assert block_law_error(acceptance, "rejection", lambda h: table[h].log(), rows, PLAIN) < EXACT


def test_block_law_holds_for_a_truncated_draft_vocabulary() -> None:
    rows = [(torch.tensor([1, 2]), torch.tensor([0.25, 0.75], dtype=torch.float64))] * 3
    assert block_law_error(acceptance, "rejection", seeded_logits(3, 5), rows, PLAIN) < EXACT


def test_cutting_a_block_by_its_drawn_drafts_is_lossless_only_without_a_proposal() -> None:
    """Why trim_to_confidence leaves blocks with a proposal alone."""
    rows = [(torch.arange(3), torch.tensor([0.2, 0.3, 0.5], dtype=torch.float64))] * 2

    def cut_at_unlikely(drawn: tuple[int, ...]) -> int:
        return next((i for i, token_id in enumerate(drawn) if token_id == 0), len(drawn))

    def error(rule: str, with_proposal: bool) -> float:
        logits = seeded_logits(3, 5)
        return block_law_error(acceptance, rule, logits, rows, PLAIN, with_proposal=with_proposal, cut=cut_at_unlikely)

    assert error("rejection", with_proposal=True) > 1e-3
    assert error("rejection", with_proposal=False) < EXACT
    assert error("coupled", with_proposal=True) < EXACT


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31),
    vocab_size=st.integers(2, 9),
    levels=st.sampled_from([0, 2]),  # ties in the logits
    max_new_tokens=st.integers(1, 14),
    eos=st.integers(0, 12),
    draft_length=st.one_of(st.none(), st.integers(0, 5)),
)
def test_greedy_output_is_that_of_the_target_whoever_drafts(
    seed: int, vocab_size: int, levels: int, max_new_tokens: int, eos: int, draft_length: int | None
) -> None:
    next_logits = seeded_logits(vocab_size, seed, levels=levels)
    sampling = SamplingParams(max_new_tokens=max_new_tokens)
    for drafter in draft_scripts(next_logits, vocab_size, sampling, seed).values():
        assert_same_as_plain(acceptance, next_logits, (0, 1), sampling, drafter, (eos,), draft_length)


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 2**31),
    vocab_size=st.integers(2, 9),
    sampling=samplings(max_new_tokens=12),
    eos=st.integers(0, 12),
    draft_length=st.one_of(st.none(), st.integers(0, 5)),
)
def test_coupled_output_is_that_of_the_target_whoever_drafts(
    seed: int, vocab_size: int, sampling: SamplingParams, eos: int, draft_length: int | None
) -> None:
    next_logits = seeded_logits(vocab_size, seed)
    for drafter in draft_scripts(next_logits, vocab_size, sampling, seed).values():
        assert_same_as_plain(acceptance, next_logits, (0, 1), sampling, drafter, (eos,), draft_length)


@given(st.data(), st.integers(1, 5), st.integers(1, 5))
def test_padded_batch_counts_what_the_reference_counts(data: st.DataObject, num_rows: int, width: int) -> None:
    ids = st.lists(st.integers(0, 2), min_size=width, max_size=width)
    argmax_ids = torch.tensor([data.draw(ids) for _ in range(num_rows)])
    drafts = torch.tensor([data.draw(ids) for _ in range(num_rows)])[:, 1:]
    lengths = [data.draw(st.integers(0, width - 1)) for _ in range(num_rows)]
    counts = judge_greedy_batch(argmax_ids, drafts.reshape(num_rows, width - 1), torch.tensor(lengths))
    for row, length in enumerate(lengths):
        expected = accept_prefix(argmax_ids[row, : length + 1].tolist(), drafts[row, :length].tolist())
        assert int(counts[row]) == expected.num_accepted
        assert tuple(argmax_ids[row, : counts[row] + 1].tolist()) == expected.token_ids


@settings(deadline=None, max_examples=50)
@given(data=st.data(), rule=st.sampled_from(["coupled", "rejection"]))
def test_blocks_judged_together_are_judged_as_if_alone(data: st.DataObject, rule: acceptance.AcceptanceRule) -> None:
    blocks, logits = [], []
    requests: list[SamplingParams] = []
    for index in range(data.draw(st.integers(1, 4))):
        drafts = tuple(data.draw(st.lists(st.integers(0, 4), max_size=3)))
        rows = [(torch.tensor([d, 5]), torch.tensor([0.5, 0.5], dtype=torch.float64)) for d in drafts]
        has_proposal: bool = data.draw(st.booleans())
        proposal = proposal_of(rows) if rows and has_proposal else None
        start = data.draw(st.integers(1, 50))
        blocks.append(DraftBlock(request_id=str(index), round=1, start=start, token_ids=drafts, proposal=proposal))
        requests.append(data.draw(st.one_of(samplings(), st.just(SamplingParams()))))
        logits.append(seeded_logits(6, data.draw(st.integers(0, 99)), order=1)((0,)).repeat(len(drafts) + 1, 1).float())
    together = judge_blocks(torch.cat(logits), blocks, requests, rule)
    assert together == [judge(*one, rule) for one in zip(logits, blocks, requests, strict=True)]


def test_residual_is_the_target_where_the_draft_equals_it() -> None:
    probs = torch.tensor([0.25, 0.75], dtype=torch.float64)
    assert torch.equal(residual(probs, torch.arange(2), probs), probs)


def test_a_certain_draft_is_never_recovered() -> None:
    proposal = certain_proposal([1])
    probs = torch.tensor([0.5, 0.3, 0.2], dtype=torch.float64)
    recovered = residual(probs, proposal.support_ids[0], proposal.support_probs[0])
    assert recovered.tolist() == pytest.approx([0.5 / 0.7, 0.0, 0.2 / 0.7])


def test_an_empty_block_commits_one_token() -> None:
    block = DraftBlock(request_id="r", round=0, start=3)
    for sampling, rule in product((SamplingParams(), PLAIN), get_args(acceptance.AcceptanceRule)):
        judgement = judge(torch.zeros(1, 4), block, sampling, rule)
        assert judgement.num_accepted == 0
        assert len(judgement.token_ids) == 1


def test_logits_must_fit_the_drafts() -> None:
    block = DraftBlock(request_id="r", round=1, start=3, token_ids=(1, 2))
    with pytest.raises(ProtocolError, match="one row of logits more"):
        judge(torch.zeros(2, 4), block, SamplingParams(), "coupled")
    with pytest.raises(ProtocolError, match="need 3 rows"):
        judge_blocks(torch.zeros(2, 4), [block], [SamplingParams()], "coupled")


@pytest.mark.parametrize(
    ("ids", "probs", "message"),
    [
        ([[1, 2]], [[0.5, 0.4]], "sum to one"),
        ([[1, 2]], [[1.5, -0.5]], "sum to one"),
        ([[1, 9]], [[0.5, 0.5]], "token ids below 4"),
        ([[0, 2]], [[0.5, 0.5]], "probability in the proposal"),
        ([[1, 2]], [[0.0, 1.0]], "probability in the proposal"),
        ([[1, 2], [1, 2]], [[0.5, 0.5], [0.5, 0.5]], "must be \\[K, S\\]"),
        ([[1, 2]], [[1.0]], "must be \\[K, S\\]"),
    ],
)
def test_a_proposal_that_cannot_be_true_is_refused(ids: list[object], probs: list[object], message: str) -> None:
    proposal = Proposal(support_ids=torch.tensor(ids), support_probs=torch.tensor(probs, dtype=torch.float64))
    block = DraftBlock(request_id="r", round=1, start=3, token_ids=(1,), proposal=proposal)
    with pytest.raises(ProtocolError, match=message):
        judge(torch.zeros(2, 4), block, PLAIN, "rejection")


@pytest.mark.parametrize("draft_id", [-1, 4, 10**6])
def test_a_draft_outside_the_vocabulary_never_stands(draft_id: int) -> None:
    block = DraftBlock(request_id="r", round=1, start=3, token_ids=(draft_id,))
    for sampling in (SamplingParams(), PLAIN):
        assert judge(torch.zeros(2, 4), block, sampling, "coupled").num_accepted == 0
    with pytest.raises(ProtocolError, match="token ids below 4"):
        judge(torch.zeros(2, 4), block, PLAIN, "rejection")
