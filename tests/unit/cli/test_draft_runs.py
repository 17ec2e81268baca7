"""Coloured runs: all of the text, each character with the token that made it."""

from __future__ import annotations

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.cli.draft_runs import DraftRuns
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.speculation.stopping import TextStream

PIECES = [b"the", b" dog", b" runs", b".", b"\xe2", b"\x82", b"\xac", b"\xf0\x9f", b"\x90\xb6", b"", b" x"]


def detokenize(token_ids: Sequence[int]) -> str:
    return b"".join(PIECES[token_id] for token_id in token_ids).decode("utf-8", errors="replace")


def chunk(text: str, token_ids: Sequence[int], num_accepted: int) -> Chunk:
    return Chunk(request_id="a", text=text, token_ids=tuple(token_ids), num_accepted=num_accepted)


def test_accepted_and_own_tokens_are_told_apart() -> None:
    runs = DraftRuns(detokenize)
    assert runs.split(chunk("the dog runs", [0, 1, 2], 2)) == [("the dog", True), (" runs", False)]
    assert runs.split(chunk(".", [3], 0)) == [(".", False)]


def test_text_that_comes_late_keeps_its_colour() -> None:
    runs = DraftRuns(detokenize)
    assert runs.split(chunk("the", [0, 4], 2)) == [("the", True)]
    assert runs.split(chunk("", [5], 0)) == []
    assert runs.split(chunk("\u20ac x", [6, 10], 1)) == [("\u20ac", True), (" x", False)]


@given(st.lists(st.tuples(st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=5), st.integers(0, 5))))
def test_the_runs_joined_are_the_text(rounds: list[tuple[list[int], int]]) -> None:
    stream, runs = TextStream(detokenize), DraftRuns(detokenize)
    text, shown = "", ""
    for token_ids, num_accepted in rounds:
        piece = "".join(stream.push(token_id) for token_id in token_ids)
        text += piece
        shown += "".join(run for run, _ in runs.split(chunk(piece, token_ids, min(num_accepted, len(token_ids)))))
    rest = stream.finish()
    assert shown + "".join(run for run, _ in runs.split(chunk(rest, [], 0))) == text + rest
