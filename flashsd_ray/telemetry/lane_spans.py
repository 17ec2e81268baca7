"""Spans of what a lane does for a request: it waits, it is prefilled, it is decoded."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from time import perf_counter

from flashsd_ray.engine.answers import Chunk
from flashsd_ray.telemetry.traces import Traces, Value
from flashsd_ray.types import CaptionRequest


@dataclass(slots=True, eq=False)
class _Passage:
    """When a request came to which point."""

    trace: str
    submitted_s: float
    opened_s: float | None = None
    first_token_s: float | None = None
    num_new_tokens: int = 0


class LaneSpans:
    """Told in the lane's thread what happens to its requests; of those that are traced, spans are kept."""

    def __init__(self, traces: Traces, lane_id: str, *, clock: Callable[[], float] = perf_counter) -> None:
        self._traces = traces
        self._lane_id = lane_id
        self._clock = clock
        self._passages: dict[str, _Passage] = {}

    def submitted(self, request: CaptionRequest) -> None:
        """The request waits for a place."""
        if request.trace:
            self._passages[request.request_id] = _Passage(request.trace, self._clock())

    def opened(self, request_id: str) -> None:
        """Its rows are reserved and its prefill begins."""
        passage = self._passages.get(request_id)
        if passage is not None:
            passage.opened_s = self._clock()

    def gave(self, chunk: Chunk) -> None:
        """The lane gave out a chunk; the last one of a request ends its spans."""
        passage = self._passages.get(chunk.request_id)
        if passage is None:
            return
        if chunk.token_ids and passage.first_token_s is None:
            passage.first_token_s = self._clock()
        passage.num_new_tokens += len(chunk.token_ids)
        if chunk.finish_reason is not None:
            del self._passages[chunk.request_id]
            self._record(passage, chunk, self._clock())

    def _record(self, passage: _Passage, last: Chunk, ended_s: float) -> None:
        opened_s = ended_s if passage.opened_s is None else passage.opened_s
        first_token_s = ended_s if passage.first_token_s is None else passage.first_token_s
        reason = "" if last.finish_reason is None else last.finish_reason.value
        outcome = reason if last.error is None else type(last.error).__name__
        common: dict[str, Value] = {"lane": self._lane_id, "outcome": outcome}
        self._traces.record("queue", passage.trace, passage.submitted_s, opened_s, **common)
        if passage.opened_s is not None:
            prompt = {"prompt_tokens": last.num_prompt_tokens, "cached_tokens": last.num_cached_tokens}
            self._traces.record("prefill", passage.trace, opened_s, first_token_s, **common, **prompt)
        if passage.first_token_s is not None:
            decoded = _decoding(passage, last)
            self._traces.record("decode", passage.trace, first_token_s, ended_s, **common, **decoded)


def _decoding(passage: _Passage, last: Chunk) -> dict[str, Value]:
    if last.stats is None:
        return {"new_tokens": passage.num_new_tokens}
    return {
        "new_tokens": last.stats.num_new_tokens,
        "rounds": last.stats.rounds,
        "draft_tokens": last.stats.num_draft_tokens,
        "accepted_tokens": last.stats.num_accepted_tokens,
        "tau": last.stats.tau,
    }
