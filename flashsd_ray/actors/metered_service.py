"""A CaptionService that counts, logs and traces what goes through another one."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncGenerator, Callable, Mapping
from dataclasses import replace

from flashsd_ray.actors.service import CaptionService, ModelCard, ServiceStatus
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import OverloadedError
from flashsd_ray.telemetry.logs import about, fields
from flashsd_ray.telemetry.metrics import EdgeMeters
from flashsd_ray.telemetry.tally import Tally
from flashsd_ray.telemetry.traces import Span, Traces
from flashsd_ray.types import CaptionRequest, FinishReason

log = logging.getLogger(__name__)

CANCELLED = FinishReason.CANCELLED.value


class MeteredService:
    """Keeps the protocol of actors/service.py for one edge; adds nothing to an answer and takes nothing from it."""

    def __init__(
        self,
        inner: CaptionService,
        meters: EdgeMeters,
        edge: str,  # http, grpc, batch: a label of every metric
        *,
        traces: Traces | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        self._inner = inner
        self._meters = meters
        self._edge = edge
        self._traces = Traces() if traces is None else traces
        self._clock = clock

    @property
    def card(self) -> ModelCard:
        """The model behind the service."""
        return self._inner.card

    async def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        """The chunks of the inner service; what they amount to is counted, logged and traced once they have ended.

        Raises:
            FlashSDError: the inner service raised it.
        """
        tally = Tally(began_s=self._clock())
        span = self._traces.begin("request", request.trace, edge=self._edge, request_id=request.request_id)
        chunks = self._inner.stream(replace(request, trace=span.trace))
        self._meters.began(self._edge)
        try:
            while True:
                # Not around the yield: what the caller logs between two chunks is its own affair.
                with about(request.request_id):
                    chunk = await anext(chunks, None)
                if chunk is None:
                    return
                if chunk.token_ids and tally.first_tokens_s is None:
                    span.mark("first token")
                tally.take(chunk, self._clock())
                yield chunk
        except (GeneratorExit, asyncio.CancelledError):
            tally.end(CANCELLED, self._clock())
            raise
        except BaseException as error:
            tally.end(type(error).__name__, self._clock())
            raise
        finally:
            tally.end(FinishReason.ERROR.value, self._clock())  # the chunks ended without a finish reason
            with about(request.request_id):
                try:
                    await chunks.aclose()
                finally:
                    self._tell(tally, span)

    def require_room(self) -> None:
        """Raises OverloadedError when a request that comes now would be refused."""
        try:
            self._inner.require_room()
        except OverloadedError as error:
            self._meters.turned_away(self._edge, type(error).__name__)
            raise

    async def prefetch(self, request: CaptionRequest) -> int:
        """The request's prompt is in the KV cache where there was room; returns its positions."""
        outcome = CANCELLED
        try:
            with about(request.request_id):
                num_cached = await self._inner.prefetch(request)
            outcome = "cached" if num_cached else "passed over"
            return num_cached
        except Exception as error:
            outcome = type(error).__name__
            raise
        finally:
            self._meters.prefetched(self._edge, outcome)

    async def status(self) -> ServiceStatus:
        """How the service is now."""
        return await self._inner.status()

    async def meters(self) -> Mapping[str, LaneMeters]:
        """Totals of every lane."""
        return await self._inner.meters()

    async def close(self) -> None:
        """The inner service is closed; the traces are not, because other edges may use them."""
        await self._inner.close()

    def _tell(self, tally: Tally, span: Span) -> None:
        self._meters.ended(self._edge, tally)
        figures = _figures(tally)
        is_answer = tally.outcome in {reason.value for reason in FinishReason} - {FinishReason.ERROR.value}
        span.end("" if is_answer else tally.outcome, **figures)
        if span.trace:
            figures["trace_id"] = span.trace[3:35]  # of a traceparent; a client may have sent anything
        log.info("request ended", extra=fields(edge=self._edge, **figures))


def _figures(tally: Tally) -> dict[str, str | int | float]:
    """What one line and one span tell of a request."""
    figures: dict[str, str | int | float] = {
        "outcome": tally.outcome,
        "seconds": round(tally.seconds, 6),
        "prompt_tokens": tally.num_prompt_tokens,
        "cached_tokens": tally.num_cached_tokens,
        "new_tokens": tally.num_new_tokens,
    }
    if tally.time_to_first_token_s is not None:
        figures["ttft_s"] = round(tally.time_to_first_token_s, 6)
    if tally.stats is not None:
        figures |= {"rounds": tally.stats.rounds, "tau": round(tally.stats.tau, 3)}
    return figures
