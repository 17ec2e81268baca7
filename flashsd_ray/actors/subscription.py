"""What a lane's rounds gave one subscriber and it has not taken yet.

Passing on costs the same whether it holds the tokens of one round or of five, and a lane whose rounds take milliseconds
would feel it in each of them. So what a running answer gains is kept together for a moment that nobody sees; what
somebody waits for, the beginning of an answer and its end, is passed on at once.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.engine.answers import Chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Feed:
    """What one or several rounds gave a subscriber, and how the lane stands after them."""

    chunks: tuple[Chunk, ...]
    status: LaneStatus


class Subscription:
    """Made and taken from in an event loop; everything else is for one other thread, that of the lane."""

    def __init__(
        self,
        interval_s: float,  # least time between two feeds of which neither begins nor ends an answer
    ) -> None:
        self._open: dict[str, bool] = {}  # requests; True once a chunk was passed on
        self._loop = asyncio.get_running_loop()
        self._interval_s = interval_s
        self._pending: list[Feed] = []
        self._is_due = asyncio.Event()
        self._is_over = False
        self._timer: asyncio.TimerHandle | None = None
        self._taken_s = self._loop.time() - interval_s

    @property
    def request_ids(self) -> list[str]:
        """The requests that are open."""
        return list(self._open)

    def open(self, request_id: str) -> None:
        """The request's chunks will come here."""
        self._open[request_id] = False

    def forget(self, request_id: str) -> None:
        """The request has ended; nothing happens when it had before."""
        self._open.pop(request_id, None)

    def put(self, feed: Feed | None) -> None:
        """The feed will be taken, alone or with its neighbours; None: there will be no more."""
        is_urgent = feed is None or any(list(map(self._is_urgent, feed.chunks)))
        if not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._accept, feed, is_urgent)

    def _is_urgent(self, chunk: Chunk) -> bool:
        has_begun = self._open.get(chunk.request_id, False)
        if chunk.request_id in self._open:
            self._open[chunk.request_id] = True
        return chunk.finish_reason is not None or not has_begun

    # Everything below runs in the event loop.

    async def take(self) -> Feed | None:
        """Everything since the last time, as soon as it is due; None when there is no more."""
        await self._is_due.wait()
        self._stop_timer()  # what it would have let go is taken here: an empty feed would be the end
        if not self._is_over:
            self._is_due.clear()
        self._taken_s = self._loop.time()
        pending, self._pending = self._pending, []
        if not pending:
            return None
        return Feed(chunks=tuple(chunk for feed in pending for chunk in feed.chunks), status=pending[-1].status)

    def _accept(self, feed: Feed | None, is_urgent: bool) -> None:
        if feed is None:
            self._is_over = True
        else:
            self._pending.append(feed)
        left_s = self._taken_s + self._interval_s - self._loop.time()
        if is_urgent or left_s <= 0:
            self._set_due()
        elif self._timer is None:
            self._timer = self._loop.call_later(left_s, self._set_due)

    def _set_due(self) -> None:
        self._stop_timer()
        self._is_due.set()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
