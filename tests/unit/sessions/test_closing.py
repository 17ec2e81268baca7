"""How streams end, what is left of a session then, and who may continue it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import pytest

from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import DeadlineError, NotFoundError, OverloadedError, SequenceError, UnavailableError
from flashsd_ray.sessions.events import (
    AnswerFinished,
    AnswerStarted,
    Ask,
    Closed,
    CloseReason,
    FrameAck,
    Input,
    Mode,
    Open,
    Opened,
    PushFrame,
    Refused,
    SetPrompt,
)
from flashsd_ray.sessions.live import watch
from flashsd_ray.sessions.registry import SessionRegistry
from tests.fake_service import EchoService
from tests.unit.sessions.harness import Client, ManualClock, SlowService, frames, limits, picture, settle, shades, texts


async def test_the_end_waits_for_open_answers(client: Client, service: EchoService, sessions: SessionRegistry) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(2)), Ask(prompt="one"), Ask(prompt="two"))
    await client.next(AnswerStarted)
    reading = asyncio.create_task(client.end())
    await settle()
    assert not reading.done()
    service.gate.set()
    events = await reading
    assert [event.text for event in events if isinstance(event, AnswerFinished)] == ["2 frames: one", "2 frames: two"]
    assert events[-1] == Closed(reason=CloseReason.END, frames_seen=2, answers=2)
    assert sessions.num_attached == sessions.num_resumable == sessions.held_bytes == 0


async def test_the_end_waits_for_no_further_prefetch(sessions: SessionRegistry) -> None:
    service = SlowService()
    client = Client(service, sessions)
    await client.open()
    client.send(*frames(range(1)))
    await settle()
    client.send(*frames(range(1, 4)))
    reading = asyncio.create_task(client.end())
    await settle()
    service.door.set()
    acks = [event.frame for event in await reading if isinstance(event, FrameAck)]
    assert acks == [0, 3]
    assert len(service.prefetched) == 1


async def test_what_is_sent_after_the_end_is_not_read(client: Client) -> None:
    await client.open()
    assert isinstance((await client.end())[-1], Closed)
    client.send(*frames(range(1)))
    await settle()
    assert client.num_read == 2


@pytest.mark.parametrize("how", ["input ends", "generator closes"])
async def test_a_lost_client_stops_its_answers_and_may_come_back(
    sessions: SessionRegistry, service: EchoService, how: str
) -> None:
    client = Client(service, sessions)
    opened = await client.open(prompt="what?", max_frames=8, keep_first=1)
    service.gate.clear()
    client.send(*frames(range(3)), SetPrompt(prompt="where?"), Ask(), Ask())
    await client.next(AnswerStarted)
    await settle()
    assert len(service.open) == 1
    if how == "input ends":
        client.lose()
        assert not [event for event in await client.rest() if isinstance(event, Closed)]
    else:
        await client.events.aclose()
    assert not service.open
    assert (sessions.num_attached, sessions.num_resumable) == (0, 1)

    service.gate.set()
    again = Client(service, sessions)
    back = await again.open(session_id=opened.session_id, resume_token=opened.resume_token, prompt="ignored")
    assert back == replace(opened, next_frame=3)
    again.send(PushFrame(image=picture(3), timestamp_s=3.0), Ask())
    assert (await again.answer())[0] == "4 frames: where?"
    assert shades(service.asked[-1]) == [0, 1, 2, 3]
    assert (await again.end())[-1] == Closed(reason=CloseReason.END, frames_seen=4, answers=1)


async def test_what_was_not_taken_over_is_expected_again(clock: ManualClock, service: EchoService) -> None:
    config = limits(max_frames_per_second=1.0)
    sessions = SessionRegistry(config, clock)
    client = Client(service, sessions, config)
    opened = await client.open()
    client.send(*frames(range(5)))
    await client.acknowledged(0)
    client.lose()
    await client.rest()
    again = Client(service, sessions, config)
    back = await again.open(session_id=opened.session_id, resume_token=opened.resume_token)
    assert back.next_frame == 1
    await again.events.aclose()


async def test_the_conversation_is_still_known(sessions: SessionRegistry, service: EchoService) -> None:
    client = Client(service, sessions)
    opened = await client.open()
    client.send(*frames(range(1)), Ask(prompt="one", keep_history=True))
    await client.answer()
    await client.events.aclose()
    again = Client(service, sessions)
    await again.open(session_id=opened.session_id, resume_token=opened.resume_token)
    again.send(Ask(prompt="two"))
    await again.answer()
    assert texts(service.asked[-1]) == ["one", "1 frames: one", "two"]
    await again.events.aclose()


async def test_a_period_goes_on_after_resuming(sessions: SessionRegistry, service: EchoService) -> None:
    client = Client(service, sessions)
    opened = await client.open(mode=Mode.PERIODIC, period_s=2.0, prompt="?")
    client.send(*frames([0.0, 1.0]))
    await client.acknowledged(1)
    await client.events.aclose()
    again = Client(service, sessions)
    await again.open(session_id=opened.session_id, resume_token=opened.resume_token)
    again.send(PushFrame(image=picture(2), timestamp_s=2.0))
    assert (await again.answer())[0] == "2 frames: ?"
    await again.events.aclose()


async def test_strangers_learn_nothing_about_a_session(sessions: SessionRegistry, service: EchoService) -> None:
    client = Client(service, sessions)
    opened = await client.open()
    wishes = [
        Open(session_id=opened.session_id, resume_token=opened.resume_token),
        Open(session_id=opened.session_id, resume_token="\ud800guess"),
        Open(session_id="other", resume_token=opened.resume_token),
    ]
    messages = set()
    for caller, wish in zip(("bert", "anna", "anna"), wishes, strict=True):
        other = Client(service, sessions, caller=caller)
        other.send(wish)
        with pytest.raises(NotFoundError) as caught:
            await other.rest()
        messages.add(str(caught.value))
    assert len(messages) == 1
    client.send(*frames(range(1)))
    await client.acknowledged(0)  # it was not disturbed
    await client.events.aclose()


async def test_the_client_that_comes_back_takes_over_from_its_old_stream(
    sessions: SessionRegistry, service: EchoService
) -> None:
    old = Client(service, sessions)
    opened = await old.open()
    service.gate.clear()
    old.send(*frames(range(2)), Ask(prompt="old"))
    await old.next(AnswerStarted)
    await settle()
    new = Client(service, sessions)
    back = await new.open(session_id=opened.session_id, resume_token=opened.resume_token)
    assert back.next_frame == 2
    assert not service.open
    with pytest.raises(SequenceError, match="goes on in another stream"):
        await old.rest()
    assert sessions.num_attached == 1
    service.gate.set()
    new.send(Ask(prompt="new"))
    assert (await new.answer())[0] == "2 frames: new"
    await new.events.aclose()
    assert sessions.num_attached == 0


async def test_of_many_that_come_back_at_once_one_stays(sessions: SessionRegistry, service: EchoService) -> None:
    first = Client(service, sessions)
    opened = await first.open()
    many = [Client(service, sessions) for _ in range(5)]
    for client in many:
        client.send(Open(session_id=opened.session_id, resume_token=opened.resume_token))
    assert all(isinstance(event, Opened) for event in await asyncio.gather(*(anext(client.events) for client in many)))
    assert sessions.num_attached == 1
    ended = 0
    for client in [first, *many]:
        client.lose()
        try:
            await client.rest()
        except SequenceError:
            ended += 1
    assert ended == 5


async def test_silence_closes_a_session_that_may_be_continued(
    client: Client, clock: ManualClock, sessions: SessionRegistry
) -> None:
    await client.open()
    client.send(*frames(range(1)))
    await client.next(FrameAck)
    await settle()
    clock.advance(119.0)
    client.send(*frames([1.0]))
    await client.next(FrameAck)
    await settle()
    clock.advance(119.0)
    await settle()
    clock.advance(1.5)
    assert (await client.rest())[-1] == Closed(reason=CloseReason.IDLE, frames_seen=2, answers=0)
    assert sessions.num_resumable == 1


async def test_who_waits_for_an_answer_is_not_silent(client: Client, service: EchoService, clock: ManualClock) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="slow"))
    await client.next(AnswerStarted)
    for _ in range(5):
        await settle()
        clock.advance(200.0)
    service.gate.set()
    assert (await client.answer())[0] == "1 frames: slow"
    client.send(Ask(prompt="again"))
    assert (await client.answer())[0] == "1 frames: again"
    await settle()
    clock.advance(200.0)
    await settle()
    clock.advance(200.0)
    assert (await client.rest())[-1].reason is CloseReason.IDLE  # type: ignore[union-attr]


async def test_a_stream_that_never_opens_is_given_up(client: Client, clock: ManualClock) -> None:
    reading = asyncio.create_task(client.rest())
    await settle()
    clock.advance(121.0)
    with pytest.raises(DeadlineError, match=r"sessions\.idle_timeout_s"):
        await reading
    assert clock.num_sleepers == 0


async def test_draining_answers_what_is_open_and_opens_nothing(
    client: Client, service: EchoService, sessions: SessionRegistry
) -> None:
    await client.open()
    quiet = Client(service, sessions)
    await quiet.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="one"))
    await client.next(AnswerStarted)
    await settle()
    sessions.drain()
    released = asyncio.create_task(sessions.wait_released())
    assert (await quiet.rest())[-1] == Closed(reason=CloseReason.DRAINING, frames_seen=0, answers=0)
    client.send(*frames([1.0]))  # not read any more
    late = Client(service, sessions)
    late.send(Open())
    with pytest.raises(UnavailableError):
        await late.rest()
    await settle()
    assert not released.done()
    service.gate.set()
    events = await client.rest()
    assert [event.text for event in events if isinstance(event, AnswerFinished)] == ["1 frames: one"]
    assert events[-1] == Closed(reason=CloseReason.DRAINING, frames_seen=1, answers=1)
    await released


async def test_draining_does_not_wait_for_a_question_that_was_never_looked_at(
    clock: ManualClock, service: EchoService
) -> None:
    config = limits(max_frames_per_second=1.0)
    sessions = SessionRegistry(config, clock)
    client = Client(service, sessions, config)
    await client.open()
    flood = config.sessions.max_waiting_frames + config.sessions.max_waiting_asks
    client.send(*frames(range(2)), *(SetPrompt(prompt="?") for _ in range(flood + 1)), Ask())
    await settle(200)
    assert client.num_read == 1 + 2 + flood + 2  # the question has been read, and there is no room for it
    sessions.drain()
    clock.advance(1.0)
    assert (await client.rest())[-1] == Closed(reason=CloseReason.DRAINING, frames_seen=2, answers=0)


async def test_draining_gives_no_caption_of_half_a_period(client: Client, sessions: SessionRegistry) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=10.0, prompt="?")
    client.send(*frames(range(2)))
    await client.acknowledged(1)
    sessions.drain()
    assert not [event for event in await client.rest() if isinstance(event, AnswerFinished)]


async def test_only_so_many_sessions_are_open(clock: ManualClock, service: EchoService) -> None:
    config = limits(max_sessions=2)
    sessions = SessionRegistry(config, clock)
    clients = [Client(service, sessions, config) for _ in range(4)]
    first = await clients[0].open()
    second = await clients[1].open()
    clients[2].send(Open())
    with pytest.raises(OverloadedError, match=r"sessions\.max_sessions"):
        await clients[2].rest()
    # A lost client's session gives way.
    await clients[0].events.aclose()
    await clients[3].open()
    for opened, expected in ((first, NotFoundError), (second, None)):
        client = Client(service, sessions, config)
        client.send(Open(session_id=opened.session_id, resume_token=opened.resume_token))
        if expected is not None:
            with pytest.raises(expected):
                await client.rest()
        else:
            await client.next(Opened)
            await client.events.aclose()
    for client in clients:
        await client.events.aclose()


async def test_sessions_of_lost_clients_expire(clock: ManualClock, service: EchoService) -> None:
    config = replace(limits(), stores=StoresConfig(session_ttl_s=60.0))
    sessions = SessionRegistry(config, clock)
    client = Client(service, sessions, config)
    opened = await client.open()
    client.send(*frames(range(1)))
    await client.acknowledged(0)
    await client.events.aclose()
    assert sessions.held_bytes == 48 * 8 * 8 * 3
    clock.advance(59.0)
    assert sessions.num_resumable == 1
    clock.advance(2.0)
    assert sessions.num_resumable == sessions.held_bytes == 0
    late = Client(service, sessions, config)
    late.send(Open(session_id=opened.session_id, resume_token=opened.resume_token))
    with pytest.raises(NotFoundError):
        await late.rest()


async def test_memory_for_frames_is_bounded_over_all_sessions(clock: ManualClock, service: EchoService) -> None:
    window = 48 * 8 * 8 * 3
    config = limits(max_held_bytes=2 * window)
    sessions = SessionRegistry(config, clock)
    clients = [Client(service, sessions, config) for _ in range(3)]
    for client in clients:
        await client.open()
        client.send(*frames(range(1)))
    await clients[0].acknowledged(0)
    await clients[1].acknowledged(0)
    refused = await clients[2].next(Refused)
    assert (refused.code, refused.frame) == ("RESOURCE_EXHAUSTED", 0)
    assert "sessions.max_held_bytes" in refused.reason
    await clients[0].events.aclose()  # lost: its frames give way
    clients[2].send(*frames([1.0]))
    await clients[2].acknowledged(1)
    assert sessions.held_bytes == 2 * window
    assert sessions.num_resumable == 0
    for client in clients:
        await client.events.aclose()


async def test_a_broken_input_ends_the_stream_with_its_error(service: EchoService, sessions: SessionRegistry) -> None:
    async def broken() -> AsyncIterator[Input]:
        yield Open()
        raise ConnectionResetError("gone")

    with pytest.raises(ConnectionResetError):
        async for _ in watch(broken(), service, sessions, Client.config, caller="anna"):
            pass
    assert sessions.num_attached == 0
    assert sessions.num_resumable == 1


@pytest.mark.parametrize("num_events", range(1, 9))
async def test_a_stream_can_be_closed_at_any_event(
    client: Client, service: EchoService, sessions: SessionRegistry, num_events: int
) -> None:
    """The fixture looks for what is left over."""
    client.send(
        Open(prompt="?"), *frames(range(3)), Ask(prompt="a b c"), *frames(range(3, 6)), Ask(prompt="d"), Ask(prompt="e")
    )
    for _ in range(num_events):
        await anext(client.events)
    await client.events.aclose()
    assert not service.open
    assert sessions.num_attached == 0


async def test_cancelling_the_task_that_reads_leaves_nothing_behind(
    service: EchoService, sessions: SessionRegistry
) -> None:
    client = Client(service, sessions)
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="?"))
    reading = asyncio.create_task(client.rest())
    await settle()
    assert service.open
    reading.cancel()
    await asyncio.wait({reading})
    assert reading.cancelled()
    assert not service.open
    assert sessions.num_attached == 0
    await settle()
    assert not [task for task in asyncio.all_tasks() if "sessions" in repr(task.get_coro())]
