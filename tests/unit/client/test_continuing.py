"""Wherever an answer breaks off and however it is cut into pieces again, what is given out is the answer, once."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.client.answers import Piece
from flashsd_ray.client.continuing import Given
from flashsd_ray.errors import UnavailableError
from flashsd_ray.types import FinishReason, TokenLogprob

TOKENS = st.lists(st.sampled_from(["", "a", "b", "ab"]), max_size=12)  # the text of each token
CUTS = st.lists(st.tuples(st.lists(st.integers(0, 12), max_size=6), st.integers(0, 12)), max_size=4)


def pieces(tokens: list[str], cuts: list[int], stop: int, *, ends: bool) -> list[Piece]:
    """The tokens up to one of them, in pieces that end where the cuts are."""
    stop = len(tokens) if ends else min(stop, len(tokens))
    bounds = sorted({0, stop, *(cut for cut in cuts if cut < stop)})
    found = []
    for start, end in pairwise(bounds):
        ids = tuple(range(start, end))
        logprobs = tuple(TokenLogprob(token_id=one, logprob=-1.0) for one in ids)
        found.append(Piece(request_id="r", text="".join(tokens[start:end]), token_ids=ids, logprobs=logprobs))
    return [*found, Piece(request_id="r", finish_reason=FinishReason.STOP)] if ends else found


@given(tokens=TOKENS, attempts=CUTS, last=st.lists(st.integers(0, 12), max_size=6))
def test_nothing_repeats_and_nothing_is_missing(
    tokens: list[str], attempts: list[tuple[list[int], int]], last: list[int]
) -> None:
    mine, out = Given(), []
    for cuts, stop in attempts:
        mine.restart()
        out += [mine.fresh(piece) for piece in pieces(tokens, cuts, stop, ends=False)]
    mine.restart()
    out += [mine.fresh(piece) for piece in pieces(tokens, last, 0, ends=True)]
    told = [piece for piece in out if piece is not None]
    assert "".join(piece.text for piece in told) == "".join(tokens)
    assert [one for piece in told for one in piece.token_ids] == list(range(len(tokens)))
    assert [one.token_id for piece in told for one in piece.logprobs] == list(range(len(tokens)))
    assert [piece.finish_reason for piece in told].count(FinishReason.STOP) == 1


@pytest.mark.parametrize("again", [Piece(request_id="r", text="ax"), Piece(request_id="r", text="ab", token_ids=(9,))])
def test_another_answer_is_no_continuation(again: Piece) -> None:
    mine = Given()
    mine.fresh(Piece(request_id="r", text="ab", token_ids=(1,)))
    mine.restart()
    with pytest.raises(UnavailableError, match="differently"):
        mine.fresh(again)
