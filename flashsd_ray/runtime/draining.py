"""Until a part has finished what it had: then it may end and nobody notices."""

from __future__ import annotations

import asyncio
from contextlib import suppress

from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.errors import FlashSDError
from flashsd_ray.runtime.clients import errors_of
from flashsd_ray.runtime.members import Member
from flashsd_ray.runtime.parts import EncoderReport

LOOK_S = 0.1
FAREWELL_S = 1.0  # in which every edge learns who is not there any more


async def farewell() -> None:
    """Every edge has the newest roster: nobody listens to a part that has left it, or sends anything there."""
    await asyncio.sleep(FAREWELL_S)


async def stopped(lane: Member) -> None:
    """The lane takes no new requests, or is lost."""
    with suppress(FlashSDError), errors_of(lane.name):
        await lane.handle.drain.remote()


async def drained(lane: Member) -> None:
    """The lane takes no new requests, and has finished those that it had, or is lost."""
    await stopped(lane)
    with suppress(FlashSDError), errors_of(lane.name):
        while True:
            status: LaneStatus = await lane.handle.status.remote()
            if status.num_running + status.num_waiting == 0:
                return
            await asyncio.sleep(LOOK_S)


async def rested(encoder: Member) -> None:
    """The encoder, which is in no roster any more, has nothing to do, or is lost."""
    with suppress(FlashSDError), errors_of(encoder.name):
        await farewell()
        while True:
            report: EncoderReport = await encoder.handle.status.remote()
            if report.status.num_running + report.status.num_waiting == 0:
                return
            await asyncio.sleep(LOOK_S)
