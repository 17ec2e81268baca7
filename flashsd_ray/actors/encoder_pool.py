"""The encoders that a router knows: whose turn it is, which of them say nothing, and who waits for one that does."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Sequence
from contextlib import suppress
from dataclasses import dataclass

from flashsd_ray.actors.journey import Journey
from flashsd_ray.actors.part_watch import PartWatch
from flashsd_ray.actors.ways import Encoded, EncoderClient
from flashsd_ray.errors import UnavailableError
from flashsd_ray.scheduling.silence import leaves


@dataclass(slots=True, eq=False)
class _Encoding:
    """A request at an encoder."""

    encoder_id: str
    deadline_s: float | None
    silence: asyncio.Future[UnavailableError]  # done when it is better off elsewhere


class EncoderPool:
    """Encoders take turns; requests leave one that says nothing in time for their deadlines."""

    def __init__(
        self,
        *,
        period_s: float,  # between two looks at every encoder
        timeout_s: float,  # after which every request leaves
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
    ) -> None:
        self._clock = clock
        self._timeout_s = timeout_s
        self._watch = PartWatch[None](period_s, clock, sleep, lambda name, _: self._heard(name))
        self._encoders: list[EncoderClient] = []
        self._next = 0
        self._encodings: set[_Encoding] = set()
        self._watcher: asyncio.Task[None] | None = None

    def __len__(self) -> int:
        """How many encoders there are."""
        return len(self._encoders)

    def set(self, encoders: Sequence[EncoderClient]) -> None:
        """These encoders are used from now on."""
        before = {one.encoder_id for one in self._encoders}
        self._encoders = list(encoders)
        for encoder in encoders:
            if encoder.encoder_id not in before:
                self._watch.begin(encoder.encoder_id, encoder.look)
        for name in before - {one.encoder_id for one in encoders}:
            self._watch.end(name)

    def follow(self) -> None:
        """Every encoder is looked at from now on; a loop runs."""
        self._watcher = self._watcher or asyncio.create_task(self._watch.run(self._leave_silent))

    def close(self) -> None:
        """Nobody is looked at any more."""
        for name in self._watch.names:
            self._watch.end(name)
        if self._watcher is not None:
            self._watcher.cancel()

    def choose(self, tried: Collection[str]) -> EncoderClient | None:
        """The next encoder in turn that was not tried; one that says nothing only if there is no other."""
        fresh = [one for one in self._encoders if one.encoder_id not in tried]
        speaking = [one for one in fresh if not self._watch.is_quiet(one.encoder_id)] or fresh
        self._next += 1
        return speaking[self._next % len(speaking)] if speaking else None

    async def encode(self, encoder: EncoderClient, journey: Journey) -> Encoded:
        """The encoded prompt.

        Raises:
            UnavailableError: the encoder is lost, or says nothing for too long.
            FlashSDError: what the encoder raised.
        """
        silence: asyncio.Future[UnavailableError] = asyncio.get_running_loop().create_future()
        mine = _Encoding(encoder.encoder_id, journey.deadline_s, silence)
        self._encodings.add(mine)
        encoding = asyncio.ensure_future(_encoded(encoder, journey))
        try:
            await asyncio.wait((encoding, silence), return_when=asyncio.FIRST_COMPLETED)
            if not encoding.done():
                raise silence.result()
            return encoding.result()
        finally:
            self._encodings.discard(mine)
            silence.cancel()
            if not encoding.done():
                encoding.cancel()
                with suppress(asyncio.CancelledError):
                    await encoding

    def _heard(self, name: str) -> None:
        self._watch.heard(name)

    def _leave_silent(self) -> None:
        now_s, period_s = self._clock(), self._watch.period_s
        for one in self._encodings:
            silent_s = self._watch.silent_s(one.encoder_id)
            left_s = None if one.deadline_s is None else one.deadline_s - now_s
            has_left = one.silence.done()
            if not has_left and leaves(silent_s, left_s, period_s=period_s, timeout_s=self._timeout_s):
                one.silence.set_result(UnavailableError(f"{one.encoder_id} is silent for {silent_s:.0f} s"))


async def _encoded(encoder: EncoderClient, journey: Journey) -> Encoded:
    request, losses = journey.request, journey.encoders
    if losses.company is None:
        losses.is_exposed = True
        return await encoder.encode(request.conversation, request.trace)
    # It lost an encoder before: it has a turn of its own first, so that it is known who was being encoded.
    ticket = f"{request.request_id}-{len(losses.failed)}-{len(journey.lanes.failed)}"
    await encoder.reserve(ticket)
    losses.is_exposed = True
    return await encoder.encode(request.conversation, request.trace, ticket)
