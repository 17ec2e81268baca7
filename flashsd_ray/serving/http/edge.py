"""The way of one request through the HTTP edge: let in, read, asked, answered; given back whatever happens."""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AsyncExitStack, aclosing, contextmanager
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

import anyio
from starlette.requests import Request
from starlette.responses import Response

from flashsd_ray.actors.service import CaptionService, ModelCard
from flashsd_ray.config import Config
from flashsd_ray.errors import DeadlineError
from flashsd_ray.serving.http.asked import Asked, asked_of_chat, asked_of_completion
from flashsd_ray.serving.http.body import read_fields
from flashsd_ray.serving.http.choices import chunks_of, whole
from flashsd_ray.serving.http.connection import unless_disconnected
from flashsd_ray.serving.http.errors import FieldError, encoded
from flashsd_ray.serving.http.event_stream import EventStream, events
from flashsd_ray.serving.http.fields import ChatFields, CompletionFields, RequestFields
from flashsd_ray.serving.http.formats import AnswerFormat, ChatFormat, CompletionFormat, Envelope
from flashsd_ray.serving.http.room import Room, Share
from flashsd_ray.serving.http.visuals import VisualReader
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.types import CaptionRequest

_LEAST_TIME_S = 1e-3  # a request cannot have none
_TRACEPARENT = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}")

REQUEST_TIMEOUT = "x-request-timeout"  # header: seconds, for clients that want less than serving.request_timeout_s

F = TypeVar("F", bound=RequestFields)


@dataclass(frozen=True, slots=True)
class Endpoint(Generic[F]):
    """One of OpenAI's interfaces."""

    fields: type[F]
    asked: Callable[[F, Config, ModelCard, VisualReader], Coroutine[Any, Any, Asked]]
    answers: type[AnswerFormat]


CHAT = Endpoint(ChatFields, asked_of_chat, ChatFormat)
COMPLETION = Endpoint(CompletionFields, asked_of_completion, CompletionFormat)


class Edge:
    """Answers requests with what a service decodes."""

    def __init__(
        self,
        service: CaptionService,
        config: Config,
        gatekeeper: Gatekeeper,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.service = service
        self.config = config
        self.gatekeeper = gatekeeper
        self.room = Room(config.serving)
        self._clock = clock
        self._decoding = ThreadPoolExecutor(config.serving.decode_threads, thread_name_prefix="flashsd-decode")

    @property
    def model(self) -> str:
        """What clients call the model."""
        return self.config.serving.model_name or self.service.card.name

    def require_model(self, name: str) -> None:
        """Raises FieldError when there is no such model."""
        if name != self.model:
            message = f"there is no model {name[:200]!r} here; there is {self.model!r}"
            raise FieldError(message, param="model", code="model_not_found", status=404)

    def close(self) -> None:
        """Pictures that nobody waits for any more are not decoded."""
        self._decoding.shutdown(wait=False, cancel_futures=True)

    async def answer(self, request: Request, endpoint: Endpoint[F]) -> Response:
        """The response to a request, whole or as a stream that has its first chunk.

        Raises:
            FlashSDError: it was refused or could not be answered.
            ClientDisconnect: nobody waits for the answer any more.
        """
        async with AsyncExitStack() as held:
            held.enter_context(self.gatekeeper.admit(request.headers.get("authorization")))
            share = held.enter_context(self.room.seat())
            self.service.require_room()
            limit_s = self._limit_s(request)
            end_s = self._clock() + limit_s
            with _time_limit(limit_s):
                asked = await self._asked(request, endpoint, share)
            left_s = max(end_s - self._clock(), _LEAST_TIME_S)
            requests = asked.requests(request.state.request_id, left_s, _trace(request))
            response = await self._reply(request, asked, endpoint.answers, requests, held)
            if isinstance(response, EventStream):
                response.held = held.pop_all()
        return response

    async def _asked(self, request: Request, endpoint: Endpoint[F], share: Share) -> Asked:
        fields = await read_fields(request, endpoint.fields, self.config.serving, share)
        num_body_bytes = share.num_bytes
        if fields.model is not None:
            self.require_model(fields.model)
        visuals = VisualReader(self.config, share, self._decoding)
        asking = endpoint.asked(fields, self.config, self.service.card, visuals)
        asked = await unless_disconnected(request.receive, asking)
        share.give_back(num_body_bytes)
        return asked

    async def _reply(
        self,
        request: Request,
        asked: Asked,
        form: type[AnswerFormat],
        requests: Sequence[CaptionRequest],
        held: AsyncExitStack,  # what is open then
    ) -> Response:
        envelope = self._envelope(request.state.request_id)
        answers = form(envelope, requests, asked.num_choices, returns_token_ids=asked.returns_token_ids)
        chunks = await held.enter_async_context(aclosing(chunks_of(self.service, requests)))
        if not asked.streams:
            captions = await unless_disconnected(request.receive, whole(chunks, len(requests)))
            return Response(encoded(answers.whole(captions)), media_type="application/json")
        pieces = events(chunks, answers, len(requests), with_usage=asked.streams_usage)
        await held.enter_async_context(aclosing(pieces))
        first = await unless_disconnected(request.receive, anext(pieces))
        # The time of the answer, and a little for telling that it is over.
        keepalive_s = self.config.serving.keepalive_s
        limit_s = (requests[0].timeout_s or 0.0) + keepalive_s
        return EventStream(first, pieces, keepalive_s=keepalive_s, limit_s=limit_s)

    def _envelope(self, request_id: str) -> Envelope:
        return Envelope(
            request_id=request_id,
            created_s=int(time.time()),
            model=self.model,
            fingerprint=self.service.card.fingerprint,
        )

    def _limit_s(self, request: Request) -> float:
        limit_s = self.config.serving.request_timeout_s
        text = request.headers.get(REQUEST_TIMEOUT)
        if text is None:
            return limit_s
        try:
            wanted_s = float(text)
        except ValueError:
            wanted_s = math.nan
        if not wanted_s > 0:
            raise FieldError(f"{REQUEST_TIMEOUT} must be a positive number of seconds", param=REQUEST_TIMEOUT)
        return min(wanted_s, limit_s)


def _trace(request: Request) -> str:
    text = request.headers.get("traceparent", "")
    return text if _TRACEPARENT.fullmatch(text) else ""


@contextmanager
def _time_limit(seconds: float) -> Iterator[None]:
    try:
        with anyio.fail_after(seconds):
            yield
    except TimeoutError:
        raise DeadlineError(f"the request was not complete within {seconds:g} s") from None
