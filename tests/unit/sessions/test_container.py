"""Container files that arrive in chunks."""

from __future__ import annotations

import itertools
import threading

import pytest

from flashsd_ray.config import Config
from flashsd_ray.sessions.events import (
    AnswerFinished,
    AnswerStarted,
    Ask,
    Closed,
    CloseReason,
    FrameAck,
    Mode,
    PushChunk,
    PushFrame,
    Refused,
    SetPrompt,
)
from flashsd_ray.sessions.registry import SessionRegistry
from tests.fake_service import EchoService
from tests.media_files import make_picture, make_video, numbered_frame, shown_numbers
from tests.unit.sessions.harness import Client, ManualClock, SlowService, limits, picture


def chunks(data: bytes, chunk_bytes: int = 4000, *, fps: float = 0.0, is_whole: bool = True) -> list[PushChunk]:
    starts = range(0, len(data), chunk_bytes)
    return [
        PushChunk(
            data=data[start : start + chunk_bytes],
            fps=fps if start == 0 else 0.0,
            is_last=is_whole and start + chunk_bytes >= len(data),
        )
        for start in starts
    ]


def shown(service: EchoService) -> list[int]:
    """The numbers on the frames of the last question."""
    return [number for visual in service.asked[-1].conversation.visuals for number in shown_numbers(visual.frames)]


async def test_frames_are_taken_at_the_servers_rate(client: Client, service: EchoService) -> None:
    await client.open()
    video = make_video(container="matroska", num_frames=61, fps=30)
    client.send(*chunks(video), Ask(prompt="?"))
    await client.answer()
    assert shown(service) == [0, 15, 30, 45, 60]
    assert service.asked[0].conversation.visuals[0].timestamps_s.tolist() == [0.0, 0.5, 1.0, 1.5, 2.0]


async def test_frames_are_taken_at_the_clients_rate(client: Client, service: EchoService) -> None:
    await client.open()
    client.send(*chunks(make_video(container="mpegts", num_frames=30, fps=30), fps=10.0), Ask(prompt="?"))
    await client.answer()
    assert shown(service) == [0, 3, 6, 9, 12, 15, 18, 21, 24, 27]


async def test_frames_of_a_container_are_numbered_and_acknowledged(client: Client) -> None:
    await client.open()
    client.send(*chunks(make_video(container="matroska", num_frames=10, fps=10), fps=10.0))
    ack = await client.acknowledged(9)
    assert (ack.frame, ack.frames_held) == (9, 10)
    assert (await client.end())[-1] == Closed(reason=CloseReason.END, frames_seen=10, answers=0)


async def test_a_question_sees_what_the_bytes_before_it_hold(client: Client, service: EchoService) -> None:
    await client.open()
    video = make_video(container="mpegts", num_frames=50, fps=10, codec_options={"g": "5", "bf": "0"})
    parts = chunks(video, len(video) // 2 + 1, fps=10.0)
    client.send(parts[0], Ask(prompt="half?"), parts[1], Ask(prompt="all?"))
    await client.answer()
    half = shown(service)
    await client.answer()
    assert 0 < len(half) < 48
    assert shown(service)[:4] == half[:4] == [0, 1, 2, 3]
    assert shown(service)[-1] == 49


async def test_captions_of_a_container_follow_its_time(client: Client) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=1.0, prompt="?")
    client.send(*chunks(make_video(container="matroska", num_frames=25, fps=10), fps=5.0))
    events = await client.end()
    spans = [(event.start_s, event.end_s) for event in events if isinstance(event, AnswerStarted)]
    assert spans == [(0.0, 1.0), (1.0, 2.0), (2.0, 2.4)]
    assert [event.text for event in events if isinstance(event, AnswerFinished)] == [
        "5 frames: ?",
        "5 frames: ?",
        "3 frames: ?",
    ]


async def test_more_frames_in_one_chunk_than_may_wait_are_no_deadlock(clock: ManualClock) -> None:
    config, service = limits(max_waiting_frames=2), SlowService()
    service.door.set()
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open()
    client.send(*chunks(make_video(container="matroska", num_frames=40, fps=40), 10**7, fps=40.0))
    events = await client.end()
    acks = [event.frame for event in events if isinstance(event, FrameAck)]
    assert acks[-1] == 39
    assert all(later - earlier <= 2 for earlier, later in itertools.pairwise(acks))


async def test_the_window_follows_a_long_container(client: Client, service: EchoService) -> None:
    await client.open(max_frames=8, keep_first=2)
    client.send(*chunks(make_video(container="matroska", num_frames=50, fps=50), fps=50.0), Ask(prompt="?"))
    await client.answer()
    assert shown(service)[:2] == [0, 1]
    assert shown(service)[-1] == 49
    assert len(shown(service)) <= 8


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (make_video(), "index at the end"),
        (make_picture(), "send it as a frame"),
        (b"#EXTM3U\n", "HLS playlist"),
        (b"plain words", "is text"),
        (make_video(container="matroska", size=(8000, 8000), num_frames=1), "media.max_decoded_bytes"),
    ],
)
async def test_a_container_that_cannot_be_used_is_refused_once(client: Client, data: bytes, reason: str) -> None:
    await client.open()
    client.send(*chunks(data, 10**6, is_whole=False), PushChunk(data=b"", is_last=True))
    refused = await client.next(Refused)
    assert reason in refused.reason
    assert (refused.code, refused.frame) == ("INVALID_ARGUMENT", None)
    client.send(PushChunk(data=b"more"))
    while (refused := await client.next(Refused)).code != "FAILED_PRECONDITION":
        pass
    assert "open another stream" in refused.reason
    await client.end()


async def test_chunks_that_are_too_large_or_too_late_are_refused(clock: ManualClock, service: EchoService) -> None:
    config = limits(max_frame_bytes=10_000)
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open()
    client.send(*chunks(make_video(container="matroska", num_frames=3)), PushChunk(data=b"late"))
    assert "has ended" in (await client.next(Refused)).reason
    await client.end()
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open()
    client.send(PushChunk(data=bytes(10_001)))
    assert "sessions.max_frame_bytes" in (await client.next(Refused)).reason
    await client.end()


@pytest.mark.parametrize("fps", [-1.0, float("nan"), float("inf")])
async def test_the_rate_must_be_one(client: Client, fps: float) -> None:
    await client.open()
    client.send(PushChunk(data=b"x", fps=fps))
    assert "fps must be positive" in (await client.next(Refused)).reason


async def test_frames_and_chunks_do_not_mix(client: Client, service: EchoService) -> None:
    await client.open()
    video = chunks(make_video(container="matroska", num_frames=3))
    client.send(video[0], PushFrame(image=picture()), *video[1:], Ask(prompt="?"))
    refused = await client.next(Refused)
    assert (refused.code, refused.frame) == ("FAILED_PRECONDITION", None)
    await client.answer()
    assert shown(service) == [0]


async def test_a_container_continues_the_time_of_a_session(sessions: SessionRegistry, service: EchoService) -> None:
    client = Client(service, sessions)
    opened = await client.open()
    client.send(PushFrame(image=numbered_frame(7), timestamp_s=10.0))
    await client.acknowledged(0)
    client.lose()
    await client.rest()
    again = Client(service, sessions)
    await again.open(session_id=opened.session_id, resume_token=opened.resume_token)
    again.send(*chunks(make_video(container="matroska", num_frames=2, fps=1), fps=1.0), Ask(prompt="?"))
    await again.answer()
    assert shown(service) == [7, 0, 1]
    assert service.asked[0].conversation.visuals[0].timestamps_s.tolist() == [10.0, 10.5, 11.5]
    await again.end()


@pytest.mark.parametrize("how", ["lost", "closed", "ended", "drained"])
async def test_a_container_that_breaks_off_leaves_no_thread(
    client: Client, sessions: SessionRegistry, how: str
) -> None:
    await client.open()
    client.send(*chunks(make_video(container="mpegts", num_frames=60, fps=30))[:-1], SetPrompt(prompt="x"))
    await client.next(FrameAck)
    if how == "lost":
        client.lose()
        await client.rest()
    elif how == "ended":
        assert isinstance((await client.end())[-1], Closed)
    elif how == "drained":
        sessions.drain()
        await client.rest()
    await client.events.aclose()
    assert not [thread for thread in threading.enumerate() if thread.name == "flashsd-container"]


async def test_a_frame_of_another_size_than_the_container_ends_it(
    sessions: SessionRegistry, service: EchoService
) -> None:
    client = Client(service, sessions)
    opened = await client.open()
    client.send(PushFrame(image=picture()))
    await client.acknowledged(0)
    await client.events.aclose()
    again = Client(service, sessions, Config())
    await again.open(session_id=opened.session_id, resume_token=opened.resume_token)
    again.send(*chunks(make_video(container="matroska", num_frames=9), 10**6))
    assert "80x48 pixels" in (await again.next(Refused)).reason
    assert isinstance((await again.end())[-1], Closed)
