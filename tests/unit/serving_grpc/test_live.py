"""Live video over a real stream: every kind of message there and back, and what happens to those that are none."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import grpc
import numpy as np
import pytest

from flashsd_ray.serving.grpc.live_events import event_message
from flashsd_ray.serving.grpc.live_inputs import LiveReader
from flashsd_ray.sessions import events as ev
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import FinishReason, SamplingParams
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from tests.fake_service import EchoService
from tests.media_files import make_picture, make_video, numbered_frame, shown_numbers
from tests.unit.serving_grpc.conftest import Served, configured, error_of, question, serving, until

OPEN = pb.StreamVideoRequest(open=pb.Open(prompt="what now"))
END = pb.StreamVideoRequest(end=pb.End())


class Conversation:
    """One stream, as a client sees it."""

    def __init__(self, call: Any) -> None:
        self.call = call

    async def send(self, *messages: pb.StreamVideoRequest) -> None:
        for message in messages:
            await self.call.write(message)

    async def until(self, kind: str) -> Any:
        """The next event of this kind; others before it are passed over."""
        while (event := await self.call.read()) is not grpc.aio.EOF:
            if event.WhichOneof("event") == kind:
                return getattr(event, kind)
        raise AssertionError(f"the stream ended with {await self.call.code()} before {kind}")

    async def rest(self) -> list[pb.StreamVideoEvent]:
        """Everything up to the end."""
        events = []
        while (event := await self.call.read()) is not grpc.aio.EOF:
            events.append(event)
        return events


@asynccontextmanager
async def conversing(service: EchoService, *settings: str, **options: Any) -> AsyncIterator[Conversation]:
    async with serving(service, *settings, **options) as served:
        yield Conversation(served.stub.StreamVideo())


def frame(number: int, **fields: Any) -> pb.StreamVideoRequest:
    encoded = make_picture("PNG", numbered_frame(number))
    return pb.StreamVideoRequest(frame=pb.Frame(image=pb.Image(encoded=encoded), **fields))


def ask(**fields: Any) -> pb.StreamVideoRequest:
    return pb.StreamVideoRequest(ask=pb.Ask(**fields))


def _frames_seen(service: EchoService) -> list[int]:
    """The numbers that the pictures of the last question show."""
    visuals = service.asked[-1].conversation.visuals
    return [number for visual in visuals for number in shown_numbers(visual.frames)]


async def test_a_question_about_a_video_that_is_filmed_is_answered(service: EchoService) -> None:
    async with conversing(service) as client:
        await client.send(OPEN, frame(1, timestamp_s=0.5), frame(2, timestamp_s=1.0), ask(ask_id="first"))
        opened = await client.until("opened")
        assert opened.model == "echo"
        assert opened.session_id
        started = await client.until("answer_started")
        assert (started.ask_id, started.num_frames, started.end_s) == ("first", 2, 1.0)
        assert (await client.until("answer_delta")).delta.text == "2"
        finished = await client.until("answer_finished")
        assert (finished.ask_id, finished.text) == ("first", "2 frames: what now")
        assert finished.finish_reason == pb.FINISH_REASON_STOP
        assert finished.statistics.num_new_tokens == 4
        await client.send(END)
        closed = await client.until("closed")
        assert (closed.reason, closed.frames_seen, closed.answers) == (pb.Closed.REASON_END, 2, 1)
        assert await client.rest() == []
    assert _frames_seen(service) == [1, 2]


async def test_frames_come_as_files_pixels_addresses_and_containers(service: EchoService) -> None:
    async def fetch(url: str, config: object, *, max_bytes: int) -> bytes:
        assert (url, max_bytes) == ("https://example.org/7.png", 100_000)
        return make_picture("PNG", numbered_frame(7))

    raw = pb.RawFrame(width=80, height=48, rgb=numbered_frame(6).tobytes())
    frames = [
        frame(5),
        pb.StreamVideoRequest(frame=pb.Frame(image=pb.Image(raw=raw))),
        pb.StreamVideoRequest(frame=pb.Frame(image=pb.Image(url="https://example.org/7.png"))),
    ]
    async with conversing(service, "sessions.max_frame_bytes=100000", fetch=fetch) as client:
        await client.send(OPEN, *frames, ask())
        await client.until("answer_finished")
    assert _frames_seen(service) == [5, 6, 7]
    data = make_video("libx264", "matroska", num_frames=20, fps=10)
    async with conversing(service) as client:
        halves = [pb.VideoChunk(data=data[:3000], fps=5), pb.VideoChunk(data=data[3000:], is_last=True)]
        await client.send(OPEN, *(pb.StreamVideoRequest(chunk=half) for half in halves), ask())
        await client.until("answer_finished")
    assert _frames_seen(service) == list(range(0, 20, 2))


async def test_one_message_that_cannot_be_used_does_not_end_the_session(service: EchoService) -> None:
    bad = [
        (pb.StreamVideoRequest(), "INVALID_ARGUMENT", "", None),
        (pb.StreamVideoRequest(frame=pb.Frame(image=pb.Image(encoded=b"no picture"))), "INVALID_ARGUMENT", "", 0),
        (pb.StreamVideoRequest(frame=pb.Frame()), "INVALID_ARGUMENT", "", 1),
        (pb.StreamVideoRequest(frame=pb.Frame(image=pb.Image(url="file:///x"))), "PERMISSION_DENIED", "", 2),
        (ask(ask_id="hot", sampling=pb.Sampling(temperature=-1)), "INVALID_ARGUMENT", "hot", None),
        (OPEN, "FAILED_PRECONDITION", "", None),
    ]
    async with conversing(service) as client:
        await client.send(OPEN)
        for message, code, ask_id, index in bad:
            await client.send(message)
            refused = await client.until("refused")
            assert (refused.code, refused.ask_id) == (code, ask_id)
            assert (refused.frame if refused.HasField("frame") else None) == index
            assert refused.reason
        await client.send(frame(1), ask(prompt="and now"))
        assert (await client.until("answer_finished")).text == "1 frames: and now"


async def _raw_stream(served: Served) -> Conversation:
    call = served.channel.stream_stream("/flashsd.v1.Captioning/StreamVideo", bytes, pb.StreamVideoEvent.FromString)()
    return Conversation(call)


async def test_bytes_that_are_no_message_are_refused_and_the_session_goes_on(service: EchoService) -> None:
    chance = random.Random(0)
    async with serving(service) as served:
        client = await _raw_stream(served)
        await client.call.write(OPEN.SerializeToString())
        await client.call.write(b"\xff\xff")
        refused = await client.until("refused")
        assert (refused.code, "StreamVideoRequest" in refused.reason) == ("INVALID_ARGUMENT", True)
        for _ in range(100):
            await client.call.write(b"\x12" + chance.randbytes(chance.randrange(1, 30)))
        await client.call.write(frame(1).SerializeToString())
        await client.call.write(ask(prompt="still there", ask_id="last").SerializeToString())
        while (finished := await client.until("answer_finished")).ask_id != "last":
            pass
        assert finished.text.endswith("frames: still there")


async def test_a_stream_that_does_not_begin_with_open_ends_with_the_reason(service: EchoService) -> None:
    async with serving(service) as served:
        for first, code in (
            (frame(1).SerializeToString(), "FAILED_PRECONDITION"),
            (b"\xff\xff", "INVALID_ARGUMENT"),
            (pb.StreamVideoRequest(open=pb.Open(model="other")).SerializeToString(), "NOT_FOUND"),
            (pb.StreamVideoRequest(open=pb.Open(mode=9)).SerializeToString(), "INVALID_ARGUMENT"),  # type: ignore[arg-type]
            (pb.StreamVideoRequest(open=pb.Open(session_id="a")).SerializeToString(), "NOT_FOUND"),
        ):
            client = await _raw_stream(served)
            await client.call.write(first)
            assert (await error_of(client.rest())).code().name == code
        client = await _raw_stream(served)
        await client.call.done_writing()
        assert await client.rest() == []


@pytest.mark.parametrize("leaves", ["cancel", "half-close"])
async def test_a_client_that_leaves_without_end_frees_what_was_answered(service: EchoService, leaves: str) -> None:
    service.gate.clear()
    async with conversing(service) as client:
        await client.send(OPEN, frame(1), ask())
        await until(lambda: bool(service.open))
        if leaves == "cancel":
            client.call.cancel()
        else:
            await client.call.done_writing()
        await until(lambda: not service.open)


async def test_a_lost_client_takes_its_session_up_again_and_nobody_else_does(
    service: EchoService, tmp_path: Path
) -> None:
    keys = tmp_path / "keys"
    keys.write_text("alice:aaa\nbob:bbb\n")
    alice, bob = [(("authorization", f"Bearer {key}"),) for key in ("aaa", "bbb")]
    async with serving(service, f"serving.keys_file={keys}") as served:
        client = Conversation(served.stub.StreamVideo(metadata=alice))
        await client.send(OPEN, frame(1), ask())
        opened = await client.until("opened")
        await client.until("answer_finished")
        await client.call.done_writing()
        await client.rest()
        again = pb.StreamVideoRequest(open=pb.Open(session_id=opened.session_id, resume_token=opened.resume_token))
        stranger = Conversation(served.stub.StreamVideo(metadata=bob))
        await stranger.send(again)
        assert (await error_of(stranger.rest())).code().name == "NOT_FOUND"
        client = Conversation(served.stub.StreamVideo(metadata=alice))
        await client.send(again, frame(2), ask())
        assert (await client.until("opened")).next_frame == 1
        assert (await client.until("answer_finished")).text == "2 frames: what now"


async def test_an_edge_that_stops_closes_its_sessions_after_their_answers(service: EchoService) -> None:
    async with serving(service) as served:
        client = Conversation(served.stub.StreamVideo())
        service.gate.clear()
        await client.send(OPEN, frame(1), ask())
        await until(lambda: bool(service.open))
        stopping = asyncio.create_task(served.edge.stop(600))
        service.gate.set()
        assert (await client.until("answer_finished")).text == "1 frames: what now"
        assert (await client.until("closed")).reason == pb.Closed.REASON_DRAINING
        await stopping


async def test_sessions_count_among_open_requests(service: EchoService) -> None:
    async with serving(service, "serving.max_open_requests=1") as served:
        client = Conversation(served.stub.StreamVideo())
        await client.send(OPEN)
        await client.until("opened")
        with pytest.raises(grpc.aio.AioRpcError, match=r"serving\.max_open_requests"):
            await served.stub.Caption(question())
        await client.send(END)
        await client.rest()
        await served.stub.Caption(question())


async def _input_of(message: pb.StreamVideoRequest) -> ev.Input:
    async def messages() -> AsyncIterator[pb.StreamVideoRequest]:
        yield message

    async def fetch(url: str, config: object, *, max_bytes: int) -> bytes:
        raise AssertionError

    reader = LiveReader(configured(), max_new_tokens=7, fetch=fetch)
    return await anext(reader.inputs(messages()))


async def test_every_field_of_a_message_reaches_the_session() -> None:
    opening = pb.Open(
        model="m",
        session_id="s",
        resume_token="t",
        mode=pb.Open.MODE_CHANGES,
        period_s=2.5,
        prompt="p",
        sampling=pb.Sampling(top_k=3),
        keep_first=1,
        max_frames=9,
        draft_length=0,
    )
    assert await _input_of(pb.StreamVideoRequest(open=opening)) == ev.Open(
        model="m",
        session_id="s",
        resume_token="t",
        mode=ev.Mode.CHANGES,
        period_s=2.5,
        prompt="p",
        sampling=SamplingParams(top_k=3, max_new_tokens=7),
        keep_first=1,
        max_frames=9,
        draft_length=0,
    )
    assert await _input_of(pb.StreamVideoRequest(open=pb.Open())) == ev.Open()
    assert await _input_of(ask(prompt="p", ask_id="a", keep_history=True)) == ev.Ask(
        prompt="p", ask_id="a", keep_history=True
    )
    set_prompt = pb.StreamVideoRequest(set_prompt=pb.SetPrompt(prompt="p"))
    assert await _input_of(set_prompt) == ev.SetPrompt(prompt="p")
    assert await _input_of(pb.StreamVideoRequest(cancel=pb.Cancel(ask_id="a"))) == ev.Cancel(ask_id="a")
    assert await _input_of(END) == ev.End()
    chunk = await _input_of(pb.StreamVideoRequest(chunk=pb.VideoChunk(data=b"x", is_last=True, fps=2)))
    assert isinstance(chunk, ev.PushChunk)
    assert (chunk.data, chunk.is_last, chunk.fps) == (b"x", True, 2.0)
    raw = pb.RawFrame(width=2, height=1, rgb=bytes(range(6)))
    pushed = await _input_of(pb.StreamVideoRequest(frame=pb.Frame(image=pb.Image(raw=raw), timestamp_s=0)))
    assert isinstance(pushed, ev.PushFrame)
    assert isinstance(pushed.image, np.ndarray)
    assert (pushed.image.tolist(), pushed.timestamp_s) == ([[[0, 1, 2], [3, 4, 5]]], 0.0)


def test_every_field_of_an_event_reaches_the_client() -> None:
    ack = ev.FrameAck(frame=5, frames_held=4, frames_dropped=2, tokens_cached=99)
    assert event_message(ack).frame_ack == pb.FrameAck(frame=5, frames_held=4, frames_dropped=2, tokens_cached=99)
    finished = ev.AnswerFinished(
        ask_id="a",
        text="t",
        finish_reason=FinishReason.LENGTH,
        stats=SpeculationStats.of_prefill(),
        num_prompt_tokens=3,
        num_cached_tokens=2,
        seconds_to_first_text=0.5,
        is_unchanged=True,
    )
    message = event_message(finished).answer_finished
    assert (message.ask_id, message.text, message.finish_reason) == ("a", "t", pb.FINISH_REASON_LENGTH)
    assert (message.seconds_to_first_text, message.is_unchanged) == (0.5, True)
    assert (message.statistics.num_prompt_tokens, message.statistics.num_cached_tokens) == (3, 2)
    opened = ev.Opened(
        session_id="s",
        resume_token="t",
        model="m",
        keep_first=1,
        max_frames=2,
        max_waiting_frames=3,
        next_frame=4,
    )
    assert event_message(opened).opened == pb.Opened(
        session_id="s",
        resume_token="t",
        model="m",
        keep_first=1,
        max_frames=2,
        max_waiting_frames=3,
        next_frame=4,
    )
    started = ev.AnswerStarted(ask_id="a", request_id="r", start_s=1, end_s=2, num_frames=3)
    assert event_message(started).answer_started == pb.AnswerStarted(
        ask_id="a", request_id="r", start_s=1, end_s=2, num_frames=3
    )
    reasons = {reason: event_message(ev.Closed(reason=reason, frames_seen=0, answers=0)) for reason in ev.CloseReason}
    names = {reason: pb.Closed.Reason.Name(message.closed.reason) for reason, message in reasons.items()}
    assert names == {reason: f"REASON_{reason.name}" for reason in ev.CloseReason}
