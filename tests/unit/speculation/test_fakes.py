"""The fakes keep the contracts that they stand in for."""

from __future__ import annotations

import pytest

from flashsd_ray.errors import OverloadedError, ProtocolError, StaleBlockError, UnknownRequestError
from flashsd_ray.types import DraftBlock, Fill, SamplingParams
from tests.fakes import NullDrafter, ScriptDrafter, TableTarget, seeded_logits, token_prompt

PROMPT = token_prompt((0, 1, 2))


def opened() -> TableTarget:
    """A target with one open request."""
    target = TableTarget(seeded_logits(7, 1), max_rows=30)
    target.open("r", PROMPT, SamplingParams(), 20)
    return target


def block(start: int, round_index: int, *token_ids: int) -> DraftBlock:
    """A block of the request."""
    return DraftBlock(request_id="r", round=round_index, start=start, token_ids=token_ids)


def test_a_repeated_block_gets_its_verdict_again_and_changes_nothing() -> None:
    target = opened()
    (first,) = target.verify([block(3, 0)])
    assert target.verify([block(3, 0)]) == [first]
    (second,) = target.verify([block(4, 1, 1, 2)])
    assert target.verify([block(4, 1, 1, 2), block(4, 1, 1, 2)]) == [second, second]
    assert len(target.sessions["r"].token_ids) == second.next_start


def test_stale_blocks_and_blocks_from_the_future_are_refused() -> None:
    target = opened()
    (first,) = target.verify([block(3, 0)])
    target.verify([block(first.next_start, 1)])
    with pytest.raises(StaleBlockError):
        target.verify([block(3, 0)])
    with pytest.raises(ProtocolError):
        target.verify([block(9, 2)])


def test_unknown_requests_are_refused() -> None:
    target = opened()
    with pytest.raises(UnknownRequestError):
        target.verify([DraftBlock(request_id="other", round=0, start=3)])
    with pytest.raises(UnknownRequestError):
        target.verify([], [Fill(request_id="other", stop=3)])


def test_rows_are_reserved_and_given_back() -> None:
    target = opened()
    with pytest.raises(OverloadedError):
        target.open("r2", PROMPT, SamplingParams(), 11)
    target.close("r")
    target.close("r")
    target.open("r2", PROMPT, SamplingParams(), 30)


def test_the_cache_holds_all_but_the_anchor() -> None:
    target = opened()
    target.verify([], [Fill(request_id="r", stop=2)])
    assert target.sessions["r"].cached == 2
    (verdict,) = target.verify([block(3, 0)])
    assert target.sessions["r"].cached == verdict.next_start - 1


@pytest.mark.parametrize("drafter", [NullDrafter(), ScriptDrafter(lambda history, length: (1, 2, 3, 4), 3)])
def test_drafters_continue_the_committed_tokens(drafter: ScriptDrafter) -> None:
    target = opened()
    drafter.open("r", PROMPT, SamplingParams(), 20)
    (verdict,) = target.verify([block(3, 0)])
    (proposed,) = drafter.propose([verdict], [2])
    assert (proposed.round, proposed.start) == (1, verdict.next_start)
    assert len(proposed.token_ids) == min(2, drafter.max_draft_length)
    drafter.close("r")
    drafter.close("r")
