"""Several answers side by side: their chunks as they come, or all of them whole."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, AsyncIterable, Sequence
from contextlib import aclosing

import anyio

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.engine.answers import Caption, Chunk, joined
from flashsd_ray.errors import DeadlineError, UnavailableError
from flashsd_ray.types import CaptionRequest, FinishReason

_COMPLETE = (FinishReason.STOP, FinishReason.LENGTH)


def _cut_off() -> UnavailableError:
    return UnavailableError("the answer was cut off; the same request may be sent again")


async def chunks_of(
    service: CaptionService, requests: Sequence[CaptionRequest]
) -> AsyncGenerator[tuple[int, Chunk], None]:
    """The chunks of all answers as they come, each with the index of its request.

    Closing the generator cancels what is still open; so does the first error.

    Raises:
        FlashSDError: a request was refused or could not be answered.
        DeadlineError: a request's time limit is over.
    """
    # No more than the tokens that were asked for wait here for a client that reads slowly.
    arrived: asyncio.Queue[tuple[int, Chunk | asyncio.Task[None]]] = asyncio.Queue()

    async def follow(index: int, request: CaptionRequest) -> None:
        finish_reason = None
        try:
            with anyio.fail_after(request.timeout_s):
                async with aclosing(service.stream(request)) as chunks:
                    async for chunk in chunks:
                        finish_reason = chunk.finish_reason
                        arrived.put_nowait((index, chunk))
        except TimeoutError:
            raise DeadlineError(f"the answer was not complete within {request.timeout_s:.3g} s") from None
        if finish_reason not in _COMPLETE:
            raise _cut_off()

    tasks = []
    try:
        for index, request in enumerate(requests):
            task = asyncio.create_task(follow(index, request))
            task.add_done_callback(lambda ended, index=index: arrived.put_nowait((index, ended)))  # type: ignore[misc]
            tasks.append(task)
        num_open = len(tasks)
        while num_open:
            index, item = await arrived.get()
            if isinstance(item, Chunk):
                yield index, item
            elif item.cancelled():  # by nobody here
                raise _cut_off()
            else:
                item.result()
                num_open -= 1
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def whole(chunks: AsyncIterable[tuple[int, Chunk]], num_answers: int) -> list[Caption]:
    """The answers, in the order of their requests."""
    collected: list[list[Chunk]] = [[] for _ in range(num_answers)]
    async for index, chunk in chunks:
        collected[index].append(chunk)
    return [joined(answer) for answer in collected]
