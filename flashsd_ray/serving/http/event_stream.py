"""Server-sent events: answers as they are decoded."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import AsyncExitStack, aclosing
from typing import Any

import anyio
from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from flashsd_ray.engine.answers import Chunk, joined
from flashsd_ray.errors import FlashSDError
from flashsd_ray.serving.http.connection import unless_disconnected
from flashsd_ray.serving.http.errors import described, encoded, internal
from flashsd_ray.serving.http.formats import AnswerFormat, Json

logger = logging.getLogger(__name__)

_DONE = b"data: [DONE]\n\n"
_SIGN_OF_LIFE = b": still here\n\n"  # a comment, which clients skip
_HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}


async def events(
    chunks: AsyncIterator[tuple[int, Chunk]], answers: AnswerFormat, num_answers: int, *, with_usage: bool
) -> AsyncGenerator[Json, None]:
    """The pieces of all answers as they come, at the end what they used."""
    collected: list[list[Chunk]] = [[] for _ in range(num_answers)]
    async for index, chunk in chunks:
        for piece in answers.pieces(index, chunk, is_first=not collected[index]):
            yield {**piece, "usage": None} if with_usage else piece
        collected[index].append(chunk)
    if with_usage:
        yield answers.last_piece([joined(answer) for answer in collected])


class EventStream(Response):
    """Sends pieces as events until they or the client end; then everything that was held for them is given back.

    An error after the first piece is the last event: ``data: {"error": ...}``.
    """

    media_type = "text/event-stream"

    def __init__(
        self,
        first: Json,
        rest: AsyncGenerator[Json, None],
        *,
        keepalive_s: float,
        limit_s: float,  # a client that does not read what it is sent is left after this time
    ) -> None:
        super().__init__(headers=_HEADERS)
        del self.headers["content-length"]
        self.held = AsyncExitStack()
        self._first = first
        self._rest = rest
        self._keepalive_s = keepalive_s
        self._limit_s = limit_s

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Everything was sent, or the client has gone."""
        request_id = scope["state"]["request_id"]
        async with self.held:
            with anyio.move_on_after(self._limit_s) as limit:
                await unless_disconnected(receive, self._send(send, request_id))
            if limit.cancelled_caught:
                logger.warning("request %s: the client did not read its answer in time", request_id)

    async def _send(self, send: Send, request_id: str) -> None:
        await send({"type": "http.response.start", "status": self.status_code, "headers": self.raw_headers})
        try:
            async with aclosing(_with_signs_of_life(self._first, self._rest, self._keepalive_s)) as texts:
                async for text in texts:
                    await send({"type": "http.response.body", "body": text, "more_body": True})
            last = _DONE
        except FlashSDError as error:
            problem = described(error)
            logger.warning("request %s ended early: %s", request_id, error, exc_info=problem.status == 500)
            last = _event(problem.body)
        except Exception:
            logger.exception("request %s failed", request_id)
            last = _event(internal().body)
        await send({"type": "http.response.body", "body": last})


def _event(piece: Mapping[str, Any]) -> bytes:
    return b"data: " + encoded(piece) + b"\n\n"


async def _with_signs_of_life(
    first: Json, rest: AsyncGenerator[Json, None], period_s: float
) -> AsyncGenerator[bytes, None]:
    coming = asyncio.ensure_future(anext(rest, None))
    try:
        yield _event(first)
        while True:
            await asyncio.wait((coming,), timeout=period_s or None)
            if not coming.done():
                yield _SIGN_OF_LIFE
                continue
            piece = coming.result()
            if piece is None:
                return
            coming = asyncio.ensure_future(anext(rest, None))
            yield _event(piece)
    finally:
        coming.cancel()
        await asyncio.wait((coming,))
