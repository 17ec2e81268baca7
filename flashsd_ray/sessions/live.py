"""The door of this room: one stream of a live session, messages in and events out."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.config import Config
from flashsd_ray.errors import DeadlineError, SequenceError
from flashsd_ray.sessions.clock import Clock
from flashsd_ray.sessions.events import Input, Open, Output, Unusable
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.sessions.stream import LiveStream, cancel


async def watch(
    inputs: AsyncIterator[Input],
    service: CaptionService,
    sessions: SessionRegistry,
    config: Config,
    *,
    caller: str,  # who resumes a session must be who opened it
) -> AsyncGenerator[Output, None]:
    """The events of one stream; the first is ``Opened``, the last ``Closed`` unless the client was lost.

    Closing the generator is losing the client: what was being answered is cancelled, and nothing runs any more.

    Raises:
        SequenceError: the first message is no ``Open``, or the session goes on in another stream.
        DeadlineError: no message came within ``sessions.idle_timeout_s``.
        FlashSDError: the session cannot be opened, as ``SessionRegistry.claim`` says.
    """
    opening = await _opening(inputs, sessions.clock, config.sessions.idle_timeout_s)
    if opening is None:
        return
    session = await sessions.claim(opening, service.card, caller)
    stream = LiveStream(session, inputs, service, sessions, config, captions_received=opening.captions_received)
    try:
        yield stream.opened
        while (event := await stream.next_event()) is not None:
            yield event
    finally:
        await stream.stop()


async def _opening(inputs: AsyncIterator[Input], clock: Clock, timeout_s: float) -> Open | None:
    first = asyncio.create_task(_next(inputs))
    alarm = asyncio.create_task(clock.sleep(timeout_s))
    try:
        await asyncio.wait({first, alarm}, return_when=asyncio.FIRST_COMPLETED)
        if not first.done():
            raise DeadlineError(f"no message came within {timeout_s:g} s (sessions.idle_timeout_s)")
    finally:
        await cancel({first, alarm})
    message = first.result()
    if isinstance(message, Unusable):
        raise message.error
    if message is not None and not isinstance(message, Open):
        raise SequenceError(f"the first message must be open, got {type(message).__name__}")
    return message


async def _next(inputs: AsyncIterator[Input]) -> Input | None:
    return await anext(inputs, None)
