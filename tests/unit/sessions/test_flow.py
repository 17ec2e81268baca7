"""How far a client may be ahead, and what happens to one that goes further."""

from __future__ import annotations

import asyncio
import itertools

from flashsd_ray.sessions.events import (
    AnswerStarted,
    Ask,
    Cancel,
    Closed,
    FrameAck,
    Opened,
    PushFrame,
    SetPrompt,
)
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.types import FinishReason, SamplingParams
from tests.fake_service import EchoService
from tests.media_files import make_picture
from tests.unit.sessions.harness import Client, ManualClock, SlowService, frames, limits, picture, settle


async def test_reading_pauses_when_too_many_frames_are_not_acknowledged(clock: ManualClock) -> None:
    config, service = limits(max_waiting_frames=4), SlowService()
    client = Client(service, SessionRegistry(config, clock), config)
    assert (await client.open()).max_waiting_frames == 4
    client.send(*frames(range(20)), Ask(prompt="late", ask_id="q"), Cancel(ask_id="q"), Ask(prompt="last"))
    await settle(200)
    assert client.num_read == 1 + 5  # open, four frames that wait, and the one that found no place
    service.door.set()
    # What stood behind them is neither lost nor stuck.
    events = await client.end()
    acks = [event for event in events if isinstance(event, FrameAck)]
    assert acks[-1].frame == 19
    assert all(later.frame - earlier.frame <= 4 for earlier, later in itertools.pairwise(acks))
    assert isinstance(events[-1], Closed)
    assert events[-1].answers == 1


async def test_a_cancel_behind_the_allowed_frames_is_read_at_once(clock: ManualClock) -> None:
    config, service = limits(max_waiting_frames=4), SlowService()
    service.door.set()
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="long", ask_id="q"))
    await client.next(AnswerStarted)
    service.door.clear()
    client.send(*frames(range(1, 5)), Cancel(ask_id="q"))
    assert (await client.answer())[1].finish_reason is FinishReason.CANCELLED
    await client.events.aclose()


async def test_reading_pauses_when_too_many_bytes_wait(clock: ManualClock) -> None:
    """Frames wait for their turn while one is held back by the rate limit."""
    config = limits(max_waiting_frames=16, max_frame_bytes=1000, max_frames_per_second=1.0)
    service = EchoService()
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open()
    client.send(*(PushFrame(image=picture(size=16), timestamp_s=number) for number in range(10)))  # 768 bytes each
    await settle(200)
    # The first is taken, the second waits for its time, the third in the inbox, the fourth in front of it.
    assert client.num_read == 1 + 4
    for _ in range(10):
        clock.advance(1.0)
        await settle()
    assert (await client.acknowledged(9)).frames_held == 10
    await client.events.aclose()


async def test_a_stream_that_is_too_fast_is_slowed_down(client: Client, clock: ManualClock) -> None:
    await client.open()
    client.send(*frames(range(70)))  # sixty a second are allowed
    await client.acknowledged(59)
    await settle(200)
    clock.advance(0.02)
    await client.acknowledged(60)
    clock.advance(1.0)
    await client.acknowledged(69)


async def test_a_flood_of_other_messages_is_slowed_down_too(clock: ManualClock) -> None:
    config, service = limits(max_frames_per_second=1.0), EchoService()
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open()
    client.send(*frames(range(2)), *(SetPrompt(prompt=str(number)) for number in range(1000)))
    await settle(500)
    assert client.num_read < 40
    clock.advance(2.0)
    await settle(5000)
    assert client.num_read == 1003
    await client.events.aclose()


async def test_a_client_that_does_not_read_holds_its_own_session_back(clock: ManualClock) -> None:
    config, service = limits(max_waiting_events=3), EchoService()
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open()
    client.send(*frames(range(1)), Ask(prompt="word " * 100, sampling=SamplingParams(max_new_tokens=50)))
    await settle(500)
    assert len(service.open) == 1  # the answer pauses
    assert len((await client.answer())[1].text.split()) == 50
    await client.events.aclose()
    assert not service.open


async def test_decoding_does_not_hold_other_sessions_up(sessions: SessionRegistry, service: EchoService) -> None:
    """Pictures are decoded in threads: other sessions are served meanwhile."""
    clients = [Client(service, sessions) for _ in range(3)]
    for client in clients:
        await client.open()
    for client in clients:
        client.send(*(PushFrame(image=make_picture("JPEG")) for _ in range(5)), Ask(prompt="?"))
    answers = await asyncio.gather(*(client.answer() for client in clients))
    assert [text for text, _ in answers] == ["5 frames: ?"] * 3
    for client in clients:
        await client.events.aclose()


async def test_opened_comes_before_anything_else(client: Client) -> None:
    client.send()
    await client.open()
    client.send(*frames(range(1)))
    events = await client.end()
    assert not any(isinstance(event, Opened) for event in events)
    assert isinstance(events[0], FrameAck)
