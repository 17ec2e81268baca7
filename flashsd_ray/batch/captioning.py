"""Segments in, outcomes out: every question about every segment is asked of a service, equal ones once."""

from __future__ import annotations

import asyncio
import logging
import time
from collections import OrderedDict
from collections.abc import AsyncGenerator, Callable, Sequence
from contextlib import aclosing
from dataclasses import dataclass, replace
from itertools import count
from typing import Protocol

from flashsd_ray.actors.service import ModelCard
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.parcels import ReadSegment
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.batch.validation import check_caption
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.errors import FlashSDError, InvalidRequestError, OverloadedError, UnavailableError
from flashsd_ray.types import CaptionRequest, VisualInput

log = logging.getLogger(__name__)

MOST_ALONE = 3  # refusals for want of room while nothing else is open


class Answers(Protocol):
    """What of a CaptionService is needed here."""

    @property
    def card(self) -> ModelCard:
        """The model behind the service."""
        ...

    def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        """The chunks of the answer."""
        ...


@dataclass(frozen=True, slots=True)
class Origin:
    """Who answers, as every row of the output names it."""

    model: str
    model_fingerprint: str
    drafter: str
    drafter_fingerprint: str = ""


class IdleClock:
    """How long there was work, and how long there was none, between the first request and the last."""

    def __init__(self, clock: Callable[[], float] = time.perf_counter) -> None:
        self._clock = clock
        self._num_open = 0
        self._changed_s: float | None = None
        self.began_s = 0.0  # Unix time of the first request
        self.busy_s = 0.0
        self.idle_s = 0.0

    def begin(self) -> None:
        """One more request is open."""
        now_s = self._clock()
        if self._changed_s is not None:
            passed_s = now_s - self._changed_s
            if self._num_open:
                self.busy_s += passed_s
            else:
                self.idle_s += passed_s
        else:
            self.began_s = time.time()
        self._changed_s = now_s
        self._num_open += 1

    @property
    def is_alone(self) -> bool:
        """Whether no more than one request is open."""
        return self._num_open <= 1

    def end(self) -> None:
        """One request less is open."""
        now_s = self._clock()
        self.busy_s += now_s - (self._changed_s or now_s)
        self._changed_s = now_s
        self._num_open -= 1


class Captioner:
    """Asks a service; all methods run on one event loop."""

    def __init__(self, service: Answers, job: Job, origin: Origin) -> None:
        self._service = service
        self._job = job
        self._origin = origin
        self._numbers = count()
        self._places = asyncio.Semaphore(2 * job.config.scheduling.max_running)
        self._answers: OrderedDict[str, asyncio.Task[Caption]] = OrderedDict()  # of late, and those that are under way
        self.clock = IdleClock()

    async def answer(self, segments: Sequence[ReadSegment]) -> list[Outcome]:
        """The outcomes of all segments, in order.

        Raises:
            UnavailableError: the service is beyond help; another one may answer.
        """
        asked = []
        for segment in segments:
            visual = segment.visual
            if visual is None:
                asked.append(asyncio.ensure_future(_done(self._unread(segment))))
                continue
            prompts = self._job.questions(visual.kind, segment.clip.prompts)
            asked += [
                asyncio.ensure_future(self._ask(segment, visual, number, prompt))
                for number, prompt in enumerate(prompts)
            ]
        return list(await asyncio.gather(*asked))

    def _unread(self, segment: ReadSegment) -> Outcome:
        own = segment.clip.prompts or self._job.prompts
        return replace(
            self._named(segment, 0, own[0] if own else ""), error=segment.error, error_message=segment.error_message
        )

    async def _ask(self, segment: ReadSegment, visual: VisualInput, number: int, prompt: str) -> Outcome:
        key = self._job.content_key(visual.digest, prompt, self._origin.model_fingerprint)
        outcome = replace(self._named(segment, number, prompt), content_key=key)
        known = self._answers.get(key)
        task = known or self._remember(key, asyncio.ensure_future(self._caption(visual, prompt)))
        try:
            caption = await asyncio.shield(task)
            outcome = replace(_answered(outcome, caption), is_copy=known is not None)
            if self._job.json_schema:
                check_caption(caption.text, self._job.json_schema)
        except UnavailableError:
            raise
        except Exception as error:
            if not isinstance(error, FlashSDError):
                log.exception("%s: cannot be captioned", segment.clip.source)
            return replace(
                outcome, finish_reason="error", error=type(error).__name__, error_message=str(error), is_copy=False
            )
        return outcome

    def _remember(self, key: str, task: asyncio.Task[Caption]) -> asyncio.Task[Caption]:
        self._answers[key] = task
        task.add_done_callback(lambda done: None if done.cancelled() else done.exception())  # it was looked at
        while len(self._answers) > self._job.config.batch.remembered_answers:
            self._answers.popitem(last=False)
        return task

    async def _caption(self, visual: VisualInput, prompt: str) -> Caption:
        async with self._places:
            self.clock.begin()
            try:
                return await self._patiently(visual, prompt)
            finally:
                self.clock.end()

    async def _patiently(self, visual: VisualInput, prompt: str) -> Caption:
        num_alone = 0
        while True:
            request = CaptionRequest(
                request_id=f"row-{next(self._numbers)}",
                prompt=prompt,
                visuals=(visual,),
                sampling=self._job.sampling,
                draft_length=self._job.draft_length,
            )
            try:
                async with aclosing(self._service.stream(request)) as chunks:
                    return joined([chunk async for chunk in chunks])
            except OverloadedError as error:
                num_alone += self.clock.is_alone
                if num_alone >= MOST_ALONE:  # nobody will make room: it is too large on its own
                    raise InvalidRequestError(str(error)) from error
                await asyncio.sleep(error.retry_after_s)

    def _named(self, segment: ReadSegment, number: int, prompt: str) -> Outcome:
        clip, origin = segment.clip, self._origin
        return Outcome(
            row_id=clip.row_id,
            segment=segment.index,
            prompt_index=number,
            source=clip.source,
            start_s=segment.start_s,
            end_s=segment.end_s,
            prompt=prompt,
            finish_reason="error" if segment.error else "",
            read_s=segment.read_s,
            model=origin.model,
            model_fingerprint=origin.model_fingerprint,
            drafter=origin.drafter,
            drafter_fingerprint=origin.drafter_fingerprint,
            extra=clip.extra,
        )


async def _done(outcome: Outcome) -> Outcome:
    return outcome


def _answered(outcome: Outcome, caption: Caption) -> Outcome:
    stats = caption.stats
    return replace(
        outcome,
        caption=caption.text,
        finish_reason=caption.finish_reason.value,
        num_prompt_tokens=caption.num_prompt_tokens,
        num_tokens=len(caption.token_ids),
        tau=stats.tau,
        encode_s=stats.seconds["encode"],
        decode_s=stats.seconds["prefill"] + stats.seconds["decode"],
    )
