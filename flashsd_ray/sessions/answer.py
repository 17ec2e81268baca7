"""One question about live video, and the answer as it grows."""

from __future__ import annotations

from contextlib import aclosing
from dataclasses import dataclass, field

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import ProtocolError
from flashsd_ray.sessions.asked import Asked
from flashsd_ray.sessions.clock import Clock
from flashsd_ray.sessions.events import AnswerDelta, AnswerFinished, AnswerStarted
from flashsd_ray.sessions.frame_buffer import NOTHING, Snapshot
from flashsd_ray.sessions.mailboxes import Outbox
from flashsd_ray.sessions.periods import Period
from flashsd_ray.sessions.repeats import Repeats
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import CaptionRequest, FinishReason, SamplingParams


@dataclass(slots=True, kw_only=True, eq=False)
class Question:
    """One question on its way to an answer."""

    ask_id: str
    sampling: SamplingParams
    asked_s: float  # by the clock
    prompt: str = ""
    keep_history: bool = False
    is_caption: bool = False  # asked by the session itself
    is_cancelled: bool = False
    snapshot: Snapshot = NOTHING  # what it looks at
    period: Period = field(default_factory=lambda: Period(start_s=0.0, end_s=0.0))
    num_arrived: int = 0  # frames that had arrived by then
    is_again: bool = False  # it was asked before the connection was lost
    asked: Asked | None = None  # how it was placed


class Answer:
    """What has been decoded of an answer, and what the client was told of it."""

    def __init__(
        self,
        question: Question,
        outbox: Outbox,
        clock: Clock,
        *,
        previous: str | None,  # an answer equal to this one is not sent; None: it is sent in any case
    ) -> None:
        self.question = question
        self.text = ""
        self.last = Chunk(request_id="")
        self._outbox = outbox
        self._clock = clock
        self._repeats = Repeats(previous)
        self._seconds_to_first_text = 0.0

    @property
    def stats(self) -> SpeculationStats:
        """Totals of the request; empty unless it ended by itself."""
        return self.last.stats or SpeculationStats()

    async def start(self, request_id: str) -> None:
        """The client knows that the answer has its turn."""
        await self._outbox.put(
            AnswerStarted(
                ask_id=self.question.ask_id,
                request_id=request_id,
                start_s=self.question.period.start_s,
                end_s=self.question.period.end_s,
                num_frames=len(self.question.snapshot),
            )
        )

    async def decode(self, service: CaptionService, request: CaptionRequest) -> None:
        """The whole text is there, and sent unless it repeats the previous one.

        Raises:
            FlashSDError: the request was refused or could not be answered.
        """
        async with aclosing(service.stream(request)) as chunks:
            async for chunk in chunks:
                if chunk.text and not self.text:
                    self._seconds_to_first_text = self._clock.now_s() - self.question.asked_s
                self.text += chunk.text
                self.last = chunk
                await self._send(self._repeats.passed(chunk))
        if self.last.finish_reason is None:
            raise ProtocolError(f"request {request.request_id} broke off without a reason")
        await self._send(self._repeats.rest())

    async def finish(self, reason: FinishReason) -> None:
        """The client knows that the answer has ended."""
        await self._outbox.put(
            AnswerFinished(
                ask_id=self.question.ask_id,
                text=self.text,
                finish_reason=reason,
                stats=self.stats,
                num_prompt_tokens=self.last.num_prompt_tokens,
                num_cached_tokens=self.last.num_cached_tokens,
                seconds_to_first_text=self._seconds_to_first_text,
                is_unchanged=reason is not FinishReason.CANCELLED and self._repeats.is_repetition,
            )
        )

    async def _send(self, chunks: list[Chunk]) -> None:
        for chunk in chunks:
            if chunk.text or chunk.token_ids:
                await self._outbox.put(AnswerDelta(ask_id=self.question.ask_id, chunk=chunk))
