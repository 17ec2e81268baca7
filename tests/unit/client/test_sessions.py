"""Live video: frames out, answers in, and nothing lost when the connection is."""

from __future__ import annotations

import asyncio
from contextlib import aclosing

import grpc
import numpy as np
import pytest

from flashsd_ray.client import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    AsyncClient,
    AsyncSession,
    Closed,
    Refused,
    Resumed,
    Retries,
)
from flashsd_ray.errors import (
    AuthenticationError,
    DeadlineError,
    InvalidRequestError,
    NotFoundError,
    SequenceError,
    UnavailableError,
)
from flashsd_ray.types import FinishReason, SamplingParams
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from tests.unit.client.conftest import FakeTime
from tests.unit.client.scripted import STATISTICS, Line, Servicer

Status = grpc.StatusCode


def frame(number: int) -> np.ndarray:
    return np.full((2, 2, 3), number, np.uint8)


def number_of(message: pb.Frame) -> int:
    return message.image.raw.rgb[0]


async def soon(event: asyncio.Event) -> None:
    await asyncio.wait_for(event.wait(), 30)


async def test_frames_are_taken_over_and_a_question_is_answered(client: AsyncClient, servicer: Servicer) -> None:
    seen = []

    async def script(line: Line) -> None:
        await line.opened()
        for index in range(3):
            sent = await line.read("frame")
            seen.append((number_of(sent), sent.timestamp_s))
            await line.say(frame_ack=pb.FrameAck(frame=index, frames_held=index + 1, frames_dropped=0, tokens_cached=9))
        ask = await line.read("ask")
        assert (ask.prompt, ask.keep_history, ask.sampling.max_new_tokens) == ("What?", True, 4)
        await line.answer(ask.ask_id, "a ", "dog")
        await line.read("end")
        await line.close()

    servicer.lines.append(script)
    async with client.watch(prompt="Look.", sampling=SamplingParams(seed=3)) as session:
        for number in range(3):
            await session.send(frame(number), number / 10)
        ask = session.ask("What?", sampling=SamplingParams(max_new_tokens=4), keep_history=True)
        events = [event async for event in ask]
    assert seen == [(0, 0.0), (1, 0.1), (2, 0.2)]
    started, *deltas, finished = events
    assert isinstance(started, AnswerStarted)
    assert (started.end_s, started.num_frames) == (2.0, 3)
    assert [event.text for event in deltas if isinstance(event, AnswerDelta)] == ["a ", "dog"]
    assert isinstance(finished, AnswerFinished)
    assert (finished.text, finished.finish_reason) == ("a dog", FinishReason.STOP)
    assert (finished.seconds_to_first_text, finished.statistics.tau) == (0.25, 2.5)
    assert (session.progress.num_sent, session.progress.num_acknowledged) == (3, 3)
    assert (session.progress.num_held, session.progress.tokens_cached) == (3, 9)
    assert not servicer.cancelled.is_set(), "the call ended by itself"


async def test_the_opening_says_what_is_wanted(client: AsyncClient, servicer: Servicer) -> None:
    openings = []

    async def script(line: Line) -> None:
        await line.opened(next_frame=5)
        openings.append(line.opening)
        await line.read("end")
        await line.close()

    servicer.lines.append(script)
    async with client.watch(
        prompt="Look.",
        mode="changes",
        period_s=2.0,
        keep_first=1,
        max_frames=8,
        draft_length=0,
        session_id="old",
        resume_token="proof",
    ) as session:
        assert session.next_frame == 5
        assert (session.session_id, session.resume_token) == ("session", "token")
    (opening,) = openings
    assert (opening.mode, opening.period_s, opening.prompt) == (pb.Open.MODE_CHANGES, 2.0, "Look.")
    assert (opening.keep_first, opening.max_frames, opening.draft_length) == (1, 8, 0)
    assert (opening.session_id, opening.resume_token) == ("old", "proof")
    assert opening.HasField("draft_length")
    assert not opening.HasField("sampling")


@pytest.mark.parametrize(
    "options",
    [
        {"mode": "sometimes"},
        {"period_s": -1.0},
        {"period_s": float("nan")},
        {"keep_first": -1},
        {"session_id": "alone"},
        {"draft_length": -2},
    ],
)
async def test_an_opening_that_makes_no_sense_is_refused_here(options: dict[str, object], client: AsyncClient) -> None:
    with pytest.raises(InvalidRequestError):
        client.watch(**options)  # type: ignore[arg-type]


async def test_a_server_that_refuses_the_session(client: AsyncClient, servicer: Servicer, time: FakeTime) -> None:
    async def script(line: Line) -> None:
        await line.drop(Status.UNAUTHENTICATED, "who are you?")

    servicer.lines.append(script)
    with pytest.raises(AuthenticationError, match="who are you"):
        async with client.watch():
            pass
    assert time.waits_s == []


async def test_a_session_that_is_not_opened_in_time(address: str, servicer: Servicer) -> None:
    async def script(line: Line) -> None:
        await asyncio.Event().wait()

    servicer.lines.append(script)
    async with AsyncClient(address, timeout_s=0.2) as client:
        with pytest.raises(DeadlineError, match="not opened within"):
            async with client.watch():
                pass
    await soon(servicer.cancelled)


async def test_sending_waits_while_the_server_is_behind(client: AsyncClient, servicer: Servicer) -> None:
    third_was_sent, may_acknowledge = asyncio.Event(), asyncio.Event()

    async def script(line: Line) -> None:
        await line.opened(max_waiting_frames=2)
        await line.read("frame")
        await line.read("frame")
        await may_acknowledge.wait()
        await line.say(frame_ack=pb.FrameAck(frame=0, frames_held=1))
        await line.read("frame")
        third_was_sent.set()
        await line.read("end")
        await line.close()

    servicer.lines.append(script)
    async with client.watch() as session:
        await session.send(frame(0))
        await session.send(frame(1))
        third = asyncio.create_task(session.send(frame(2)))
        done, _ = await asyncio.wait({third}, timeout=0.05)
        assert not done
        may_acknowledge.set()
        await third
        await soon(third_was_sent)


async def test_captions_that_the_session_makes_by_itself(client: AsyncClient, servicer: Servicer) -> None:
    async def script(line: Line) -> None:
        await line.opened()
        await line.read("frame")
        await line.answer("caption-1", "a dog")
        unchanged = pb.AnswerFinished(ask_id="caption-2", text="a dog", is_unchanged=True, statistics=STATISTICS)
        await line.say(answer_finished=unchanged)
        await line.read("end")
        await line.answer("caption-3", "a cat")
        await line.close()

    servicer.lines.append(script)
    async with client.watch(prompt="Look.", mode="periodic", period_s=1.0) as session:
        await session.send(frame(0))
        await session.end()
        events = [event async for event in session.events()]
        assert [event async for event in session.events()] == [], "nothing follows the close"
    finished = [event for event in events if isinstance(event, AnswerFinished)]
    assert [(event.text, event.is_unchanged) for event in finished] == [
        ("a dog", False),
        ("a dog", True),
        ("a cat", False),
    ]
    assert events[-1] == Closed(reason="end", frames_seen=3, answers=1)


class TestRefusals:
    """What the server cannot use costs nothing else."""

    async def test_a_frame(self, client: AsyncClient, servicer: Servicer) -> None:
        async def script(line: Line) -> None:
            await line.opened(max_waiting_frames=1)
            await line.read("frame")
            await line.say(refused=pb.Refused(reason="too fast", code="RESOURCE_EXHAUSTED", frame=0))
            await line.read("frame")
            await line.say(frame_ack=pb.FrameAck(frame=1, frames_held=1))
            await line.read("end")
            await line.close()

        servicer.lines.append(script)
        async with client.watch() as session:
            await session.send(frame(0))
            await session.send(frame(1))
            await session.end()
            refused, closed = [event async for event in session.events()]
        assert refused == Refused(reason="too fast", code="RESOURCE_EXHAUSTED", frame=0)
        assert isinstance(closed, Closed)
        assert (session.progress.num_refused, session.progress.num_acknowledged) == (1, 1)

    async def test_a_question(self, client: AsyncClient, servicer: Servicer) -> None:
        async def script(line: Line) -> None:
            await line.opened()
            ask = await line.read("ask")
            await line.say(refused=pb.Refused(reason="no frame yet", code="FAILED_PRECONDITION", ask_id=ask.ask_id))
            ask = await line.read("ask")
            await line.answer(ask.ask_id, "a dog")
            await line.read("end")
            await line.close()

        servicer.lines.append(script)
        async with client.watch() as session:
            with pytest.raises(SequenceError, match="no frame yet"):
                await session.answer("What?")
            assert (await session.answer("What?")).text == "a dog"

    async def test_a_caption_of_the_session(self, client: AsyncClient, servicer: Servicer) -> None:
        async def script(line: Line) -> None:
            await line.opened()
            await line.say(refused=pb.Refused(reason="no room", code="RESOURCE_EXHAUSTED", ask_id="caption-1"))
            await line.say(refused=pb.Refused(reason="prompt too long", code="INVALID_ARGUMENT"))
            await line.read("end")
            await line.close()

        servicer.lines.append(script)
        async with client.watch(mode="periodic") as session:
            await session.end()
            caption, prompt, _closed = [event async for event in session.events()]
        assert isinstance(caption, Refused)
        assert isinstance(prompt, Refused)
        assert (caption.ask_id, caption.frame) == ("caption-1", None)
        assert (prompt.ask_id, prompt.frame) == ("", None)
        assert type(prompt.error) is InvalidRequestError

    async def test_a_frame_that_is_no_picture(self, client: AsyncClient, servicer: Servicer) -> None:
        servicer.lines.append(_polite)
        async with client.watch() as session:
            with pytest.raises(InvalidRequestError, match="an image is"):
                await session.send(np.zeros((2, 2, 3)))
            assert session.progress.num_sent == 0


async def _polite(line: Line) -> None:
    await line.opened()
    await line.read("end")
    await line.close()


class TestLeaving:
    """The server is told when a client goes."""

    async def test_nobody_waits_for_an_answer_any_more(self, client: AsyncClient, servicer: Servicer) -> None:
        was_told = asyncio.Event()

        async def script(line: Line) -> None:
            await line.opened()
            ask = await line.read("ask")
            await line.say(answer_delta=pb.AnswerDelta(ask_id=ask.ask_id, delta=pb.Delta(text="a")))
            assert (await line.read("cancel")).ask_id == ask.ask_id
            # What was under way when the client changed its mind belongs to nobody.
            await line.say(answer_delta=pb.AnswerDelta(ask_id=ask.ask_id, delta=pb.Delta(text="b")))
            await line.say(answer_finished=pb.AnswerFinished(ask_id=ask.ask_id, finish_reason=3))
            was_told.set()
            await line.read("end")
            await line.close()

        servicer.lines.append(script)
        async with client.watch() as session:
            async with aclosing(session.ask("What?")) as events:
                assert isinstance(await events.__anext__(), AnswerDelta)
            await soon(was_told)
            await session.end()
            assert [type(event) async for event in session.events()] == [Closed]

    async def test_an_error_in_the_block_ends_the_session_politely(
        self, client: AsyncClient, servicer: Servicer
    ) -> None:
        messages = []

        async def script(line: Line) -> None:
            await line.opened()
            ask = await line.read("ask")
            await line.say(answer_delta=pb.AnswerDelta(ask_id=ask.ask_id, delta=pb.Delta(text="a")))
            messages.append(await line.read("cancel"))
            messages.append(await line.read("end"))
            await line.close()

        servicer.lines.append(script)

        async def work() -> None:
            async with client.watch() as session:
                async for _event in session.ask("What?"):
                    raise ZeroDivisionError

        with pytest.raises(ZeroDivisionError):
            await work()
        assert len(messages) == 2

    async def test_nothing_is_sent_after_the_end(self, client: AsyncClient, servicer: Servicer) -> None:
        servicer.lines.append(_polite)
        async with client.watch() as session:
            await session.end()
            with pytest.raises((SequenceError, UnavailableError)):
                await session.send(frame(0))
        with pytest.raises(UnavailableError, match=r"closed the session \(end\)"):
            await session.send(frame(0))

    async def test_nothing_is_sent_before_the_start(self, client: AsyncClient) -> None:
        with pytest.raises(SequenceError, match="opened by"):
            await client.watch().send(frame(0))

    async def test_a_session_that_the_server_gave_up(self, client: AsyncClient, servicer: Servicer) -> None:
        async def script(line: Line) -> None:
            await line.opened()
            await line.close(pb.Closed.REASON_IDLE)

        servicer.lines.append(script)
        async with client.watch() as session:
            assert [event async for event in session.events()] == [Closed(reason="idle", frames_seen=3, answers=1)]
            with pytest.raises(UnavailableError, match=r"closed the session \(idle\)"):
                await session.send(frame(0))

    async def test_closing_the_client_ends_its_sessions(self, address: str, servicer: Servicer) -> None:
        async def script(line: Line) -> None:
            await line.opened()
            await asyncio.Event().wait()

        servicer.lines.append(script)
        client = AsyncClient(address)
        session = await client.watch().__aenter__()
        await client.close()
        with pytest.raises(UnavailableError, match="was closed"):
            await session.answer("What?")
        await soon(servicer.cancelled)


class TestLostConnections:
    """The session goes on where it was: nothing is lost, nothing is answered twice."""

    async def test_unacknowledged_frames_are_sent_again(
        self, client: AsyncClient, servicer: Servicer, time: FakeTime
    ) -> None:
        openings: list[pb.Open] = []

        async def first(line: Line) -> None:
            await line.opened()
            for _ in range(4):
                await line.read("frame")
            await line.say(frame_ack=pb.FrameAck(frame=0, frames_held=1))
            await line.drop()

        async def second(line: Line) -> None:
            await line.opened(next_frame=2)
            openings.append(line.opening)
            assert [number_of(await line.read("frame")) for _ in range(3)] == [2, 3, 4]
            await line.say(frame_ack=pb.FrameAck(frame=4, frames_held=5))
            await line.read("end")
            await line.close()

        servicer.lines.extend([first, second])
        async with client.watch(prompt="Look.") as session:
            for number in range(4):
                await session.send(frame(number))
            events = session.events()
            assert await events.__anext__() == Resumed(next_frame=2)
            await session.send(frame(4))
            await session.end()
            assert isinstance(await events.__anext__(), Closed)
        (opening,) = openings
        assert (opening.session_id, opening.resume_token, opening.prompt) == ("session", "token", "Look.")
        assert session.progress.num_acknowledged == session.progress.num_sent == 5
        assert time.waits_s == [0.1]

    async def test_frames_that_the_server_lost_are_counted(self, client: AsyncClient, servicer: Servicer) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            for _ in range(3):
                await line.read("frame")
            await line.say(frame_ack=pb.FrameAck(frame=1, frames_held=2))
            await line.drop()

        async def second(line: Line) -> None:
            await line.opened(next_frame=0)
            assert number_of(await line.read("frame")) == 2
            await line.say(frame_ack=pb.FrameAck(frame=0, frames_held=1))
            await line.read("end")
            await line.close()

        servicer.lines.extend([first, second])
        async with client.watch() as session:
            for number in range(3):
                await session.send(frame(number))
            assert await session.events().__anext__() == Resumed(next_frame=0, num_lost=2)

    async def test_a_question_without_an_answer_is_asked_again(self, client: AsyncClient, servicer: Servicer) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            ask = await line.read("ask")
            await line.say(answer_started=pb.AnswerStarted(ask_id=ask.ask_id))
            await line.drop()

        async def second(line: Line) -> None:
            await line.opened()
            ask = await line.read("ask")
            assert ask.prompt == "What?"
            await line.answer(ask.ask_id, "a dog")
            await line.read("end")
            await line.close()

        servicer.lines.extend([first, second])
        async with client.watch() as session:
            assert (await session.answer("What?")).text == "a dog"

    async def test_half_an_answer_is_continued_where_it_was(self, client: AsyncClient, servicer: Servicer) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            ask = await line.read("ask")
            assert not ask.is_again
            await line.say(answer_started=pb.AnswerStarted(ask_id=ask.ask_id))
            await line.say(answer_delta=pb.AnswerDelta(ask_id=ask.ask_id, delta=pb.Delta(text="a ")))
            await line.drop()

        async def second(line: Line) -> None:
            await line.opened()
            ask = await line.read("ask")
            assert ask.is_again
            await line.answer(ask.ask_id, "a", " big", " dog")
            await line.read("end")
            await line.close()

        servicer.lines.extend([first, second])
        async with client.watch() as session:
            events = [event async for event in session.ask("What?")]
        assert [type(event) for event in events][::4] == [AnswerStarted, AnswerFinished]
        assert [event.text for event in events if isinstance(event, AnswerDelta)] == ["a ", "big", " dog"]

    async def test_an_answer_that_comes_out_differently_is_not_continued(
        self, client: AsyncClient, servicer: Servicer
    ) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            ask = await line.read("ask")
            await line.say(answer_delta=pb.AnswerDelta(ask_id=ask.ask_id, delta=pb.Delta(text="a cat")))
            await line.drop()

        async def second(line: Line) -> None:
            await line.opened()
            await line.answer((await line.read("ask")).ask_id, "a dog")
            await line.read("end")
            await line.close()

        servicer.lines.extend([first, second])
        async with client.watch() as session:
            events = session.ask("What?")
            assert isinstance(await events.__anext__(), AnswerDelta)
            with pytest.raises(UnavailableError, match="differently"):
                await events.__anext__()

    async def test_captions_go_on_where_they_were(self, client: AsyncClient, servicer: Servicer) -> None:
        openings = []

        async def first(line: Line) -> None:
            await line.opened()
            await line.answer("caption-1", "one")
            await line.say(answer_started=pb.AnswerStarted(ask_id="caption-2"))
            await line.say(answer_delta=pb.AnswerDelta(ask_id="caption-2", delta=pb.Delta(text="tw")))
            await line.drop()

        async def second(line: Line) -> None:
            await line.opened()
            openings.append(line.opening)
            for number, texts in enumerate((("one",), ("t", "wo"), ("three",)), 1):
                await line.answer(f"caption-{number}", *texts)  # the first is one too many
            await line.close()

        servicer.lines.extend([first, second])
        async with client.watch(mode="periodic", period_s=1.0, prompt="?") as session:
            events = [event async for event in session.events()]
        assert openings[0].captions_received == 1
        told = dict.fromkeys(("caption-1", "caption-2", "caption-3"), "")
        for event in events:
            if isinstance(event, AnswerDelta):
                told[event.ask_id] += event.text
        assert list(told.values()) == ["one", "two", "three"]
        ended = [event.ask_id for event in events if isinstance(event, AnswerFinished)]
        assert ended == list(told)

    async def test_the_new_connection_has_the_new_prompt(self, client: AsyncClient, servicer: Servicer) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            assert (await line.read("set_prompt")).prompt == "And now?"
            await line.drop()

        async def second(line: Line) -> None:
            await line.opened()
            assert (await line.read("set_prompt")).prompt == "And now?"
            await line.read("end")
            await line.close()

        servicer.lines.extend([first, second])
        async with client.watch(prompt="Look.") as session:
            await session.set_prompt("And now?")
            await session.end()
            assert [type(event) async for event in session.events()] == [Resumed, Closed]

    async def test_a_server_that_drains_hands_over(self, client: AsyncClient, servicer: Servicer) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            await line.read("frame")
            await line.close(pb.Closed.REASON_DRAINING)

        async def second(line: Line) -> None:
            await line.opened()
            assert number_of(await line.read("frame")) == 7
            await line.read("end")
            await line.close()

        servicer.lines.extend([first, second])
        async with client.watch() as session:
            await session.send(frame(7))
            assert await session.events().__anext__() == Resumed(next_frame=0)

    async def test_the_end_is_told_to_the_new_connection(self, client: AsyncClient, servicer: Servicer) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            await line.read("end")
            await line.drop()

        servicer.lines.extend([first, _polite])
        async with client.watch() as session:
            await session.end()
            assert [type(event) async for event in session.events()] == [Resumed, Closed]

    async def test_tries_are_bounded(self, address: str, servicer: Servicer, time: FakeTime) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            await line.read("frame")
            await line.drop(details="gone")

        async def others(line: Line) -> None:
            await line.opened()
            await line.drop(details="gone again")

        servicer.lines.extend([first, others])
        client = AsyncClient(address, timing=time.timing, retries=Retries(attempts=3))
        async with client, client.watch() as session:
            await session.send(frame(0))
            with pytest.raises(UnavailableError, match="gone again"):
                async for _event in session.events():
                    pass
            with pytest.raises(UnavailableError, match="gone again"):
                await session.send(frame(1))
        assert len(servicer.requests) == 3

    async def test_tries_count_anew_when_something_came_through(
        self, address: str, servicer: Servicer, time: FakeTime
    ) -> None:
        def script(number: int) -> object:
            async def one(line: Line) -> None:
                await line.opened(next_frame=number)
                await line.read("frame")
                await line.say(frame_ack=pb.FrameAck(frame=number, frames_held=1))
                await line.drop()

            return one

        servicer.lines.extend([*(script(number) for number in range(5)), _polite])  # type: ignore[misc]
        client = AsyncClient(address, timing=time.timing, retries=Retries(attempts=2))
        async with client, client.watch() as session:
            for number in range(5):
                await session.send(frame(number))
            resumed = [await _next_event(session) for _ in range(5)]
        assert [type(event) for event in resumed] == [Resumed] * 5

    async def test_a_session_that_the_server_has_forgotten(self, client: AsyncClient, servicer: Servicer) -> None:
        async def first(line: Line) -> None:
            await line.opened()
            await line.read("ask")
            await line.drop()

        async def second(line: Line) -> None:
            await line.drop(Status.NOT_FOUND, "no such session")

        servicer.lines.extend([first, second])
        async with client.watch() as session:
            with pytest.raises(NotFoundError, match="no such session"):
                await session.answer("What?")
            with pytest.raises(NotFoundError, match="no such session"):
                await session.send(frame(0))


async def _next_event(session: AsyncSession) -> object:
    return await session.events().__anext__()
