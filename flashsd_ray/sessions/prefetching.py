"""Frames are encoded and prefilled as they arrive, so that a question only adds its own few tokens.

One prefetch runs at a time. Frames that arrive meanwhile share the next one. A frame is acknowledged when the prefetch
that covers it is done, so a client that keeps to its limit can never be further ahead than the model.
"""

from __future__ import annotations

import asyncio

from flashsd_ray.actors.service import CaptionService
from flashsd_ray.errors import FlashSDError
from flashsd_ray.sessions.events import FrameAck
from flashsd_ray.sessions.keeping import Keeping
from flashsd_ray.sessions.mailboxes import Outbox
from flashsd_ray.sessions.session import Session
from flashsd_ray.types import CaptionRequest


class Prefetcher:
    """Keeps the conversation of one session in the KV cache, up to where the next question will stand."""

    def __init__(
        self,
        session: Session,
        service: CaptionService,
        outbox: Outbox,
        places: asyncio.Semaphore,  # one is given back for every frame that is acknowledged
        keeping: Keeping,
        *,
        timeout_s: float | None,
    ) -> None:
        self._keeping = keeping
        self.num_arrived = 0
        self._session = session
        self._service = service
        self._outbox = outbox
        self._places = places
        self._timeout_s = timeout_s
        self._num_settled = 0
        self._tokens_cached = 0
        self._covered: object = None  # what the last prefetch was about
        self._is_skipping = False
        self._wake = asyncio.Event()
        self._progress = asyncio.Event()

    @property
    def num_open(self) -> int:
        """Frames that are not acknowledged."""
        return self.num_arrived - self._num_settled

    def frame_arrived(self) -> None:
        """The session holds one more frame."""
        self.num_arrived += 1
        self._wake.set()

    def history_changed(self) -> None:
        """The next question will stand elsewhere."""
        self._wake.set()

    async def settled(self, num_arrived: int) -> None:
        """So many frames are prefetched, or skipped."""
        while self._num_settled < num_arrived:
            await self._progress.wait()

    async def finish(self) -> None:
        """Every frame is acknowledged; no further prefetch was begun, as no question follows."""
        self._is_skipping = True
        self._wake.set()
        await self.settled(self.num_arrived)

    async def run(self) -> None:
        """Prefetches whenever there is something new, until cancelled."""
        while True:
            await self._wake.wait()
            self._wake.clear()
            num_arrived, session = self.num_arrived, self._session
            frame, held, dropped = session.last_taken, session.frames.num_held, session.num_dropped
            if not self._is_skipping:
                await self._prefetch()
            num_new = num_arrived - self._num_settled
            if num_new:
                await self._keeping.keep()  # a client forgets what is acknowledged
                await self._outbox.put(
                    FrameAck(frame=frame, frames_held=held, frames_dropped=dropped, tokens_cached=self._tokens_cached)
                )
            self._settle(num_arrived, num_new)

    async def _prefetch(self) -> None:
        session = self._session
        about = (session.frames.generation, session.frames.num_held, session.history)
        turns = session.upcoming()
        if about == self._covered or not turns or turns[-1].role != "user":
            return  # every frame that is held was told before
        request = CaptionRequest(
            request_id=session.request_id(),
            turns=turns,
            sampling=session.settings.sampling,
            draft_length=session.settings.draft_length,
            timeout_s=self._timeout_s,
        )
        self._covered = about
        try:
            self._tokens_cached = await self._service.prefetch(request)
        except FlashSDError:
            self._tokens_cached = 0  # nothing is lost: the answer prefills what it needs, or says why it cannot

    def _settle(self, num_arrived: int, num_new: int) -> None:
        self._num_settled = num_arrived
        for _ in range(num_new):
            self._places.release()
        self._progress.set()
        self._progress = asyncio.Event()
