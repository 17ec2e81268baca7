"""Nothing grows with time: an hour of video at thirty frames a second, in a few seconds."""

from __future__ import annotations

import gc
import sys
import weakref
from collections.abc import AsyncIterator

import numpy as np
import pytest

from flashsd_ray.sessions.events import Ask, Closed, FrameAck, Input, Mode, Open, PushFrame
from flashsd_ray.sessions.frame_buffer import FrameBuffer
from flashsd_ray.sessions.live import watch
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.types import CaptionRequest
from tests.fake_service import EchoService
from tests.unit.sessions.harness import Client, ManualClock, frames

FRAME_RATE = 30
NUM_FRAMES = 3600 * FRAME_RATE


class ForgetfulService(EchoService):
    """Remembers nothing of what it was asked, and looks at the newest frame."""

    num_prefetches = 0
    newest = -1

    async def prefetch(self, request: CaptionRequest) -> int:
        tokens = await super().prefetch(request)
        self.num_prefetches += 1
        self.newest = int(request.conversation.visuals[-1].frames[-1, 0, 0, 0])
        self.prefetched.clear()
        self.asked.clear()
        return tokens


@pytest.mark.parametrize("mode", [Mode.ON_DEMAND, Mode.CHANGES])
async def test_an_hour_of_video_takes_no_more_memory_than_a_minute(clock: ManualClock, mode: Mode) -> None:
    """The hour is filmed on demand; the captioned one is shorter, as exact periods cost more than a frame."""
    service = ForgetfulService()
    sessions = SessionRegistry(Client.config, clock)
    num_frames = NUM_FRAMES if mode is Mode.ON_DEMAND else NUM_FRAMES // 10
    pictures = [np.full((8, 8, 3), shade, np.uint8) for shade in range(256)]
    measured: list[int] = []

    async def film() -> AsyncIterator[Input]:
        yield Open(mode=mode, period_s=2.0, prompt="what?")
        for number in range(num_frames):
            clock.advance(1 / FRAME_RATE)
            message: Input = PushFrame(image=pictures[number % 256], timestamp_s=number / FRAME_RATE)
            yield message
            if number % (num_frames // 8) == 0:
                yield Ask(prompt="now?", keep_history=number % 2 == 0)
                gc.collect()
                measured.append(sys.getallocatedblocks())

    last: object = None
    ack: FrameAck | None = None
    async for event in watch(film(), service, sessions, Client.config, caller="anna"):
        last, ack = event, event if isinstance(event, FrameAck) else ack
    assert isinstance(ack, FrameAck)
    # Lost at the end of the film, without a word; what was acknowledged is close to all.
    assert not isinstance(last, Closed)
    assert ack.frame >= num_frames - 2 * Client.config.sessions.max_waiting_frames
    assert ack.frames_held <= Client.config.sessions.max_frames
    assert ack.frames_held + ack.frames_dropped == ack.frame + 1
    assert service.num_prefetches > num_frames / Client.config.sessions.max_waiting_frames / 2
    early, late = max(measured[1:3]), max(measured[-2:])
    assert late - early < 1000, measured  # one object kept for every hundredth frame would be more


async def test_a_session_that_ended_is_freed_at_once(clock: ManualClock) -> None:
    """Frames do not wait for the garbage collector."""
    others = {id(found) for found in gc.get_objects() if type(found) is FrameBuffer}
    service = ForgetfulService()
    client = Client(service, SessionRegistry(Client.config, clock))
    await client.open()
    sent = np.zeros((8, 8, 3), np.uint8)
    client.send(*frames(range(3)), PushFrame(image=sent), Ask(prompt="?"))
    await client.answer()
    service.asked.clear()
    service.prefetched.clear()
    found = [one for one in gc.get_objects() if type(one) is FrameBuffer and id(one) not in others]
    references = [weakref.ref(sent), *map(weakref.ref, found)]
    assert len(references) == 2
    del sent, found
    gc.disable()
    try:
        await client.end()
        del client
        assert [reference() for reference in references] == [None, None]
    finally:
        gc.enable()
