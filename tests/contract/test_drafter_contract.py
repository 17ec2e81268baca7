"""What the decode loop may rely on, whoever drafts."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import replace

import pytest
import torch

from flashsd_ray.errors import InvalidRequestError, StaleBlockError, UnknownRequestError
from flashsd_ray.models import drafters
from flashsd_ray.types import DraftBlock, SamplingParams, Verdict
from tests.remote_drafting import served
from tests.tiny_drafting import VOCAB, Drafter, first_verdict, next_verdict, tiny_prompt, tiny_view

KINDS = drafters.names()


@pytest.fixture(params=[(kind, place) for place in ("local", "remote") for kind in KINDS], ids="-".join)
def drafter(request: pytest.FixtureRequest) -> Iterator[Drafter]:
    torch.set_num_threads(1)
    kind, place = request.param
    view = tiny_view()
    local = drafters.build_drafter(kind, view, cache_rows=256, max_running=4)
    with nullcontext(local) if place == "local" else served(local, view) as one:
        yield one


def open_request(drafter: Drafter, request_id: str = "r", seed: int = 0) -> Verdict:
    prompt = tiny_prompt((8, 8) if seed % 2 == 0 else (), seed=seed)
    drafter.open(request_id, prompt, SamplingParams(), len(prompt) + 30)
    return first_verdict(drafter, request_id, prompt, token_id=seed % VOCAB, seed=seed)


def check(block: DraftBlock, verdict: Verdict, length: int) -> None:
    assert (block.request_id, block.round, block.start) == (verdict.request_id, verdict.round + 1, verdict.next_start)
    assert len(block.token_ids) <= length
    assert all(0 <= token_id < VOCAB for token_id in block.token_ids)
    if block.confidence is not None:
        assert len(block.confidence) == len(block.token_ids)
        assert all(0.0 <= value <= 1.0 for value in block.confidence)


def test_blocks_continue_their_verdicts(drafter: Drafter) -> None:
    verdict = open_request(drafter)
    for tokens in [(1,), (2, 3), (4, 5, 6), (1, 2), (3, 4), (5, 6), (1, 2, 3, 4)]:
        (block,) = drafter.propose([verdict], [drafter.max_draft_length])
        check(block, verdict, drafter.max_draft_length)
        verdict = next_verdict(drafter, verdict, tokens)


def test_no_block_is_longer_than_asked_or_than_the_drafter_can(drafter: Drafter) -> None:
    verdict = open_request(drafter)
    for length in (0, 1, 2, drafter.max_draft_length, drafter.max_draft_length + 5):
        (block,) = drafter.propose([verdict], [length])
        check(block, verdict, min(length, drafter.max_draft_length))
        verdict = next_verdict(drafter, verdict, (1, 2))


def test_requests_at_different_places_are_drafted_together(drafter: Drafter) -> None:
    early = open_request(drafter, "early", seed=0)
    drafter.propose([early], [2])
    early = next_verdict(drafter, early, (7, 8, 9))
    late = open_request(drafter, "late", seed=1)
    lengths = [3, 0]
    blocks = drafter.propose([early, late], lengths)
    for block, verdict, length in zip(blocks, (early, late), lengths, strict=True):
        check(block, verdict, length)
    assert blocks[1].token_ids == ()


def test_nothing_asked_is_answered_with_nothing(drafter: Drafter) -> None:
    assert drafter.propose([], []) == []


def test_closing_twice_and_opening_again_is_allowed(drafter: Drafter) -> None:
    first = drafter.propose([open_request(drafter)], [3])
    drafter.close("r")
    drafter.close("r")
    drafter.close("never opened")
    assert drafter.propose([open_request(drafter)], [3])[0].token_ids == first[0].token_ids


def test_many_requests_may_come_and_go(drafter: Drafter) -> None:
    for index in range(40):
        verdict = open_request(drafter, f"r{index}", seed=index)
        check(drafter.propose([verdict], [2])[0], verdict, 2)
        drafter.close(f"r{index}")


def test_an_id_cannot_be_opened_twice(drafter: Drafter) -> None:
    open_request(drafter)
    with pytest.raises(InvalidRequestError, match="open already"):
        open_request(drafter)


def test_an_unknown_request_is_refused(drafter: Drafter) -> None:
    verdict = open_request(drafter)
    drafter.close("r")
    with pytest.raises(UnknownRequestError, match="not open"):
        drafter.propose([verdict], [1])


def test_a_verdict_that_skips_a_round_is_refused_by_those_that_keep_a_history(drafter: Drafter) -> None:
    skipped = next_verdict(drafter, open_request(drafter), (1, 2))
    if drafter.max_draft_length == 0:
        assert drafter.propose([skipped], [1])[0].token_ids == ()
        return
    with pytest.raises(StaleBlockError):
        drafter.propose([skipped], [1])


def test_joined_verdicts_tell_what_they_told_one_after_the_other(drafter: Drafter) -> None:
    blocks = []
    for name in ("each", "joined"):
        prompt = tiny_prompt((8, 8))
        drafter.open(name, prompt, SamplingParams(), len(prompt) + 30)
        first = first_verdict(drafter, name, prompt, token_id=3)
        drafter.propose([first], [0])
        second = next_verdict(drafter, first, (4, 5), seed=1)
        third = next_verdict(drafter, second, (6,), seed=2)
        if name == "each":
            drafter.propose([second], [0])
            told = third
        else:
            told = replace(second, round=third.round, num_accepted=2, token_ids=(4, 5, 6))
            if second.taps is not None and third.taps is not None:
                told = replace(told, taps=torch.cat((second.taps, third.taps)))
        blocks += drafter.propose([told], [3])
    each, joined = blocks
    assert (each.round, each.start, each.token_ids) == (joined.round, joined.start, joined.token_ids)


def test_a_repeated_verdict_is_answered_alike(drafter: Drafter) -> None:
    verdict = open_request(drafter)
    first = drafter.propose([verdict], [3])[0]
    assert drafter.propose([verdict], [3])[0].token_ids == first.token_ids


def test_lookup_continues_what_came_before() -> None:
    lookup = drafters.build_drafter("lookup", tiny_view())
    prompt = tiny_prompt()
    lookup.open("r", prompt, SamplingParams(), len(prompt) + 30)
    verdict = first_verdict(lookup, "r", prompt, token_id=1)
    lookup.propose([verdict], [4])
    verdict = next_verdict(lookup, verdict, (2, 3, 4, 5, 9, 1, 2))
    assert lookup.propose([verdict], [4])[0].token_ids == (3, 4, 5, 9)
    assert lookup.propose([next_verdict(lookup, verdict, (49,))], [4])[0].token_ids == ()
