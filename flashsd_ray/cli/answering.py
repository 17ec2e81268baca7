"""Reads, submits and decodes: tasks in, chunks of their answers out, in the order of the tasks."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flashsd_ray.cli.tasks import Read, Task
from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import FlashSDError
from flashsd_ray.types import CaptionRequest, FinishReason

if TYPE_CHECKING:
    from flashsd_ray.engine.local import Engine


@dataclass(slots=True, eq=False)
class Progress:
    """One task and the chunks of its answer that nobody has seen yet."""

    task: Task
    request: CaptionRequest | None
    unseen: deque[Chunk] = field(default_factory=deque)
    has_ended: bool = False

    def takes(self, chunk: Chunk) -> None:
        """The chunk waits to be seen."""
        self.unseen.append(chunk)
        self.has_ended = chunk.finish_reason is not None


@dataclass(frozen=True, slots=True, eq=False)
class Piece:
    """A chunk of the answer to a task."""

    task: Task
    request: CaptionRequest | None  # None: the inputs could not be read
    chunk: Chunk


def answer(reads: Iterable[Read], engine: Callable[[], Engine], batch_size: int) -> Iterator[Piece]:
    """The pieces of all answers; those of the first task that has not ended come as soon as they are there.

    Tasks are read as places come free, and the engine is asked for only when one could be read. Leaving the loop early
    cancels what is running.
    """
    remaining = iter(reads)
    order: deque[Progress] = deque()  # tasks that have been read and not been passed on to the end
    running: dict[str, Progress] = {}
    try:
        has_more = True
        while has_more or running:
            has_more = _fill(remaining, engine, batch_size, order, running)
            yield from _pass_on(order)
            for chunk in engine().lane.step() if running else ():
                progress = running[chunk.request_id]
                progress.takes(chunk)
                if progress.has_ended:
                    del running[chunk.request_id]
            yield from _pass_on(order)
    finally:
        for request_id in running:
            engine().lane.cancel(request_id)


def _fill(
    remaining: Iterator[Read],
    engine: Callable[[], Engine],
    batch_size: int,
    order: deque[Progress],
    running: dict[str, Progress],
) -> bool:
    """As many requests run as may; returns whether there may be more to read."""
    while len(running) < batch_size:
        read = next(remaining, None)
        if read is None:
            return False
        progress = Progress(read.task, read.request)
        order.append(progress)
        error = read.error
        if read.request is not None:
            lane = engine().lane
            try:
                lane.submit(read.request)
                running[read.request.request_id] = progress
            except FlashSDError as refusal:
                error = refusal
        if error is not None:
            progress.takes(Chunk(request_id="", finish_reason=FinishReason.ERROR, error=error))
            return True  # so that the message is not held back until the next file was read
    return True


def _pass_on(order: deque[Progress]) -> Iterator[Piece]:
    """What can be seen now without breaking the order."""
    while order:
        first = order[0]
        while first.unseen:
            yield Piece(first.task, first.request, first.unseen.popleft())
        if not first.has_ended:
            return
        order.popleft()
