"""The client's side of a request: whether it is still there, and under which id it knows the request."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
from collections.abc import Awaitable
from typing import TypeVar

from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from flashsd_ray.errors import UnavailableError
from flashsd_ray.serving.http.errors import ErrorAnswer, described, encoded, internal

logger = logging.getLogger(__name__)

REQUEST_ID = "x-request-id"
_VISIBLE_ID = re.compile(r"[!-~]{1,128}")

T = TypeVar("T")


async def unless_disconnected(receive: Receive, work: Awaitable[T]) -> T:
    """What the work returns; the body of the request has been read before.

    Raises:
        ClientDisconnect: the client went first; the work was cancelled and has ended.
    """
    working = asyncio.ensure_future(work)
    watching = asyncio.ensure_future(_disconnected(receive))
    try:
        await asyncio.wait((working, watching), return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientDisconnect
        return working.result()
    finally:
        for task in (working, watching):
            task.cancel()
        # Not gather: cancelled while it waits, it raises a child's cancellation in the place of ours.
        await asyncio.wait((working, watching))


async def _disconnected(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass


class RequestIds:
    """Gives each request an id that is seen in the answer's headers and in the log, and keeps faults inside.

    A client may choose the id it sees (``x-request-id``: up to 128 printable ASCII characters).
    """

    def __init__(self, app: ASGIApp, *, echoes: bool = True) -> None:
        self.app = app
        self._echoes = echoes  # False: a proxy in front puts the id into the answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The request was answered; no exception leaves, unless the server itself cancels."""
        if scope["type"] != "http":
            await self.app(scope, receive, send)
            return
        request_id = _id_of(scope)
        scope.setdefault("state", {})["request_id"] = request_id
        has_begun = False

        async def send_with_id(message: Message) -> None:
            nonlocal has_begun
            if message["type"] == "http.response.start":
                has_begun = True
                own = [(REQUEST_ID.encode(), request_id.encode())] if self._echoes else []
                message["headers"] = [*message.get("headers", ()), *own]
            await send(message)

        try:
            await self.app(scope, receive, send_with_id)
        except ClientDisconnect:
            logger.info("request %s: the client has gone", request_id)
        except asyncio.CancelledError:
            if not has_begun:
                await _send_error(send_with_id, described(UnavailableError("the server is stopping")))
            raise
        except Exception:
            logger.exception("request %s failed", request_id)
            if not has_begun:
                await _send_error(send_with_id, internal())


def _id_of(scope: Scope) -> str:
    wanted = next((value for name, value in scope["headers"] if name == REQUEST_ID.encode()), b"").decode("latin-1")
    return wanted if _VISIBLE_ID.fullmatch(wanted) else f"req-{secrets.token_hex(12)}"


async def _send_error(send: Send, problem: ErrorAnswer) -> None:
    fields = {"content-type": "application/json", **problem.headers}
    headers = [(name.encode(), value.encode()) for name, value in fields.items()]
    await send({"type": "http.response.start", "status": problem.status, "headers": headers})
    await send({"type": "http.response.body", "body": encoded(problem.body)})
