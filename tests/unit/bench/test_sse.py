from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.bench.serving.sse import EventParser

STREAM = ': still here\n\ndata: {"text": "Käse 🧀"}\n\n: x\n\ndata: 1\ndata: 2\n\ndata: [DONE]\n\n'.encode()
EVENTS = ['{"text": "Käse 🧀"}', "1\n2", "[DONE]"]


@given(st.lists(st.integers(0, len(STREAM))))
def test_events_are_the_same_however_the_bytes_are_cut(cuts: list[int]) -> None:
    parser, edges = EventParser(), [0, *sorted(cuts), len(STREAM)]
    found = [data for start, stop in pairwise(edges) for data in parser.feed(STREAM[start:stop])]
    assert found == EVENTS
    assert parser.is_between_events


def test_half_an_event_is_none() -> None:
    parser = EventParser()
    assert parser.feed(b"data: 1\n") == []
    assert not parser.is_between_events
