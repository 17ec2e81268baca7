"""Questions about frames that are still arriving."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest

from flashsd_ray.actors.service import ModelCard
from flashsd_ray.config import Config, MediaConfig, ServingConfig
from flashsd_ray.errors import (
    DeadlineError,
    FlashSDError,
    InvalidRequestError,
    NotFoundError,
    SequenceError,
    UnavailableError,
)
from flashsd_ray.sessions.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    Ask,
    Cancel,
    Closed,
    CloseReason,
    FrameAck,
    Input,
    Mode,
    Open,
    PushFrame,
    Refused,
    SetPrompt,
    Unusable,
)
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.types import CaptionRequest, FinishReason, SamplingParams
from tests.fake_service import EchoService
from tests.media_files import make_animation, make_picture, make_video, numbered_frame, shown_numbers
from tests.unit.sessions.harness import Client, ManualClock, SlowService, frames, limits, picture, settle, shades, texts


async def test_a_question_is_answered_about_the_frames_before_it(client: Client, service: EchoService) -> None:
    opened = await client.open(prompt="what is this?")
    assert (opened.model, opened.max_frames, opened.keep_first, opened.next_frame) == ("echo", 48, 4, 0)
    client.send(*frames(range(3)), Ask(ask_id="q"), *frames([3.0]))
    started = await client.next(AnswerStarted)
    assert (started.ask_id, started.start_s, started.end_s, started.num_frames) == ("q", 0.0, 2.0, 3)
    text, finished = await client.answer()
    assert text == finished.text == "3 frames: what is this?"
    assert finished.finish_reason is FinishReason.STOP
    assert finished.num_cached_tokens == 3
    assert not finished.is_unchanged
    assert service.asked[0].request_id == started.request_id
    assert shades(service.asked[0]) == [0, 1, 2]
    assert service.asked[0].visuals == ()
    (visual,) = service.asked[0].conversation.visuals
    assert visual.kind == "video"
    assert visual.timestamps_s.tolist() == [0.0, 1.0, 2.0]


async def test_frames_are_prefetched_as_they_arrive_and_acknowledged_then(client: Client, service: EchoService) -> None:
    await client.open()
    for number in range(3):
        client.send(PushFrame(image=picture(number), timestamp_s=number))
        ack = await client.next(FrameAck)
        assert ack == FrameAck(frame=number, frames_held=number + 1, frames_dropped=0, tokens_cached=4 * (number + 1))
    assert [shades(request) for request in service.prefetched] == [[0], [0, 1], [0, 1, 2]]
    client.send(Ask(prompt="and?"))
    await client.answer()
    # The request begins as the last prefetch did, to the pixel.
    prefetched, asked = service.prefetched[-1].turns[0], service.asked[0].turns[0]
    assert prefetched.parts[0].digest == asked.parts[0].digest  # type: ignore[union-attr]
    assert (prefetched.parts[1:], asked.parts[1:]) == ((), ("and?",))


async def test_frames_that_arrive_during_a_prefetch_share_the_next(sessions: SessionRegistry) -> None:
    service = SlowService()
    client = Client(service, sessions)
    await client.open()
    client.send(*frames(range(1)))
    await settle()
    for number in range(1, 5):
        client.send(PushFrame(image=picture(number)))
        await settle()
    client.send(Ask(prompt="now?"))
    await settle()
    assert len(service.prefetched) == 1
    assert service.asked == []  # it waits for the prefetch, whose work it would do again
    service.door.set()
    acks = [await client.next(FrameAck), await client.next(FrameAck)]
    assert [ack.frame for ack in acks] == [0, 4]
    await client.answer()
    assert len(service.prefetched) == 2
    assert shades(service.prefetched[1]) == shades(service.asked[0]) == [0, 1, 2, 3, 4]
    await client.events.aclose()


async def test_a_prefetch_that_fails_loses_nothing(sessions: SessionRegistry) -> None:
    class Full(EchoService):
        async def prefetch(self, request: CaptionRequest) -> int:
            raise UnavailableError("no lane")

    client = Client(Full(), sessions)
    await client.open()
    client.send(*frames(range(1)), Ask(prompt="now?"))
    assert (await client.next(FrameAck)).tokens_cached == 0
    assert (await client.answer())[0] == "1 frames: now?"
    await client.events.aclose()


async def test_frames_without_times_stand_for_the_servers_frame_rate(client: Client, service: EchoService) -> None:
    await client.open()
    client.send(
        PushFrame(image=picture()),
        PushFrame(image=picture()),
        PushFrame(image=picture(), timestamp_s=7.0),
        PushFrame(image=picture()),
        Ask(prompt="?"),
    )
    await client.answer()
    assert service.asked[0].conversation.visuals[0].timestamps_s.tolist() == [0.0, 0.5, 7.0, 7.5]


async def test_picture_files_are_decoded(client: Client, service: EchoService) -> None:
    await client.open()
    client.send(
        PushFrame(image=make_picture("PNG", numbered_frame(5))),
        PushFrame(image=make_picture("JPEG", numbered_frame(6), quality=95)),
        Ask(prompt="?"),
    )
    await client.answer()
    assert shown_numbers(service.asked[0].conversation.visuals[0].frames) == [5, 6]


async def test_the_window_drops_frames_and_says_so(client: Client, service: EchoService) -> None:
    opened = await client.open(max_frames=8, keep_first=2)
    assert (opened.max_frames, opened.keep_first) == (8, 2)
    for number in range(9):
        client.send(PushFrame(image=picture(number), timestamp_s=number))
        ack = await client.next(FrameAck)
    assert (ack.frame, ack.frames_held, ack.frames_dropped) == (8, 6, 3)
    client.send(Ask(prompt="?"))
    await client.answer()
    assert shades(service.asked[0]) == [0, 1, 5, 6, 7, 8]


async def test_the_models_context_bounds_the_window(sessions: SessionRegistry) -> None:
    class Short(EchoService):
        @property
        def card(self) -> ModelCard:
            return replace(super().card, context_length=1000, num_vision_tokens=74)

    client = Client(Short(), sessions)
    assert (await client.open()).max_frames == 10  # (1000 - 1000 / 4) / (74 + 1)
    await client.events.aclose()


async def test_questions_are_answered_in_order_while_frames_go_on(client: Client, service: EchoService) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="one", ask_id="a"), *frames([1.0]), Ask(prompt="two", ask_id="b"))
    await client.acknowledged(1)
    client.send(*frames([2.0, 3.0]))
    await client.acknowledged(3)  # taken over although no answer goes on
    assert len(service.open) == 1
    service.gate.set()
    answers = [await client.answer(), await client.answer()]
    assert [(text, finished.ask_id) for text, finished in answers] == [("1 frames: one", "a"), ("2 frames: two", "b")]


async def test_an_answer_sees_the_frames_that_were_held_when_it_was_asked(client: Client, service: EchoService) -> None:
    await client.open(max_frames=8, keep_first=2)
    service.gate.clear()
    client.send(*frames(range(8)), Ask(prompt="first"), Ask(prompt="second"))
    await client.acknowledged(7)
    for number in range(8, 16):
        client.send(PushFrame(image=picture(100 + number), timestamp_s=number))
    await client.acknowledged(15)
    service.gate.set()
    assert [(await client.answer())[0] for _ in range(2)] == ["8 frames: first", "8 frames: second"]
    assert [shades(request) for request in service.asked] == [list(range(8))] * 2


async def test_a_conversation_goes_on_while_the_window_holds(client: Client, service: EchoService) -> None:
    await client.open(max_frames=8, keep_first=2)
    client.send(*frames(range(2)), Ask(prompt="what?", keep_history=True))
    await client.answer()
    client.send(PushFrame(image=picture(2), timestamp_s=2.0))
    await client.acknowledged(2)
    await settle()
    client.send(Ask(prompt="and now?"))
    await client.answer()
    assert texts(service.asked[1]) == ["what?", "2 frames: what?", "and now?"]
    assert [turn.role for turn in service.asked[1].turns] == ["user", "assistant", "user"]
    # The prefetch before it told the conversation up to the question, with the new frame in its place.
    assert texts(service.prefetched[-1]) == ["what?", "2 frames: what?"]
    assert shades(service.prefetched[-1]) == shades(service.asked[1]) == [0, 1, 2]
    client.send(Ask(prompt="still?"))
    await client.answer()
    assert "and now?" not in texts(service.asked[2])  # it was not to be kept
    for number in range(3, 9):
        client.send(PushFrame(image=picture(number), timestamp_s=number))
    client.send(Ask(prompt="forgotten?"))
    await client.answer()
    assert texts(service.asked[3]) == ["forgotten?"]
    # An answer is in the cache when it has been given: there is nothing to prefetch without a new frame.
    assert {request.turns[-1].role for request in service.prefetched} == {"user"}


async def test_frames_that_came_during_an_answer_are_prefetched_behind_it(client: Client, service: EchoService) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(2)), Ask(prompt="what?", keep_history=True), *frames([2.0]))
    await client.acknowledged(2)
    assert texts(service.prefetched[-1]) == []
    service.gate.set()
    await client.answer()
    await settle()
    assert texts(service.prefetched[-1]) == ["what?", "2 frames: what?"]
    assert len(service.prefetched[-1].turns) == 3


async def test_a_history_that_fills_its_room_begins_afresh(sessions: SessionRegistry, service: EchoService) -> None:
    config = limits(reserved_tokens=2)
    client = Client(service, SessionRegistry(config, sessions.clock), config)
    await client.open()
    client.send(*frames(range(1)), Ask(prompt="what?", keep_history=True), Ask(prompt="next?"))
    await client.answer()
    await client.answer()
    assert texts(service.asked[1]) == ["next?"]
    await client.events.aclose()


async def test_set_prompt_holds_from_its_place_on(client: Client) -> None:
    await client.open(prompt="before")
    client.send(*frames(range(1)), Ask(), SetPrompt(prompt="after"), Ask())
    assert [(await client.answer())[0] for _ in range(2)] == ["1 frames: before", "1 frames: after"]


async def test_an_answer_that_is_being_given_can_be_cancelled(client: Client, service: EchoService) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="one", ask_id="a"), Ask(prompt="two", ask_id="b"))
    await client.next(AnswerStarted)
    await settle()
    assert len(service.open) == 1
    client.send(Cancel(ask_id="a"))
    _, finished = await client.answer()
    assert (finished.ask_id, finished.finish_reason, finished.text) == ("a", FinishReason.CANCELLED, "")
    service.gate.set()
    assert (await client.answer())[1].ask_id == "b"
    closed = (await client.end())[-1]
    assert closed == Closed(reason=CloseReason.END, frames_seen=1, answers=1)


async def test_a_question_that_waits_can_be_cancelled(client: Client, service: EchoService) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="one", ask_id="a"), Ask(prompt="two", ask_id="b"), Cancel(ask_id="b"))
    await client.next(AnswerStarted)
    service.gate.set()
    ended = [(await client.answer())[1] for _ in range(2)]
    assert [one.finish_reason for one in ended] == [FinishReason.STOP, FinishReason.CANCELLED]
    assert len(service.asked) == 1


async def test_cancelling_what_has_ended_does_nothing(client: Client) -> None:
    await client.open()
    client.send(*frames(range(1)), Ask(prompt="one", ask_id="a"))
    await client.answer()
    client.send(Cancel(ask_id="a"), Cancel(ask_id="never"), Ask(prompt="two", ask_id="a"))
    assert (await client.answer())[1].finish_reason is FinishReason.STOP


async def test_an_answer_that_fails_is_refused_and_the_session_goes_on(client: Client, service: EchoService) -> None:
    service.fails = lambda request: UnavailableError("no lane") if "bad" in texts(request) else None
    await client.open()
    client.send(*frames(range(1)), Ask(prompt="bad", ask_id="a"), Ask(prompt="good", ask_id="b"))
    refused = await client.next(Refused)
    assert refused == Refused(reason="no lane", code="UNAVAILABLE", ask_id="a")
    assert (await client.answer())[0] == "1 frames: good"


async def test_what_a_session_asks_for_reaches_the_service(client: Client, service: EchoService) -> None:
    session, own = SamplingParams(max_new_tokens=2), SamplingParams(max_new_tokens=1)
    await client.open(sampling=session, draft_length=3)
    client.send(*frames(range(1)), Ask(prompt="a"), Ask(prompt="b", sampling=own))
    ended = [(await client.answer())[1] for _ in range(2)]
    assert [one.text for one in ended] == ["1 frames:", "1"]
    assert [request.sampling for request in service.asked] == [session, own]
    assert {request.draft_length for request in service.asked} == {3}
    assert {request.timeout_s for request in service.asked} == {ServingConfig().request_timeout_s}


async def test_seconds_to_the_first_text_count_from_the_question(
    client: Client, service: EchoService, clock: ManualClock
) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="a"))
    await client.next(AnswerStarted)
    clock.advance(2.5)
    service.gate.set()
    assert (await client.answer())[1].seconds_to_first_text == 2.5


REFUSED_FRAMES: list[tuple[PushFrame, str, str]] = [
    (PushFrame(image=picture(size=9)), "INVALID_ARGUMENT", "9x9 pixels"),
    (PushFrame(image=picture(), timestamp_s=0.5), "INVALID_ARGUMENT", "the frame before was at 1 s"),
    (PushFrame(image=picture(), timestamp_s=float("nan")), "INVALID_ARGUMENT", "must be 0 or more"),
    (PushFrame(image=picture(), timestamp_s=-1.0), "INVALID_ARGUMENT", "must be 0 or more"),
    (PushFrame(image=np.zeros((8, 8), np.uint8)), "INVALID_ARGUMENT", r"frame 1: must be \[H, W, 3\]"),
    (PushFrame(image=np.zeros((8, 8, 3), np.float32)), "INVALID_ARGUMENT", "float32"),
    (PushFrame(image=np.zeros((300, 300, 3), np.uint8)), "INVALID_ARGUMENT", "sessions.max_frame_bytes allows 100000"),
    (PushFrame(image=bytes(100_001)), "INVALID_ARGUMENT", "sessions.max_frame_bytes allows 100000"),
    (PushFrame(image=np.zeros((101, 100, 3), np.uint8)), "INVALID_ARGUMENT", "media.max_pixels allows 10000"),
    (PushFrame(image=np.zeros((90, 90, 3), np.uint8)), "INVALID_ARGUMENT", r"media.max_decoded_bytes \(1000000\)"),
    (PushFrame(image=b""), "INVALID_ARGUMENT", "frame 1: is no picture"),
    (PushFrame(image=make_picture()[:40]), "INVALID_ARGUMENT", "frame 1: "),
    (PushFrame(image=make_animation()), "INVALID_ARGUMENT", "is an animation"),
    (PushFrame(image=make_video(num_frames=2)), "INVALID_ARGUMENT", "a video is sent as chunks"),
]


@pytest.mark.parametrize(("frame", "code", "reason"), REFUSED_FRAMES)
async def test_a_frame_that_cannot_be_used_is_refused_and_counted(
    service: EchoService, clock: ManualClock, frame: PushFrame, code: str, reason: str
) -> None:
    config = replace(limits(max_frame_bytes=100_000), media=MediaConfig(max_pixels=10_000, max_decoded_bytes=1_000_000))
    client = Client(service, SessionRegistry(config, clock), config)
    await client.open()
    client.send(PushFrame(image=picture(), timestamp_s=1.0), frame)
    refused = await client.next(Refused)
    assert (refused.code, refused.frame, refused.ask_id) == (code, 1, "")
    with pytest.raises(AssertionError, match=reason):
        raise AssertionError(refused.reason)
    client.send(PushFrame(image=picture(), timestamp_s=2.0))
    assert (await client.acknowledged(2)).frames_held == 2
    await client.events.aclose()


async def test_frames_that_could_not_be_mapped_are_counted_too(client: Client) -> None:
    await client.open()
    error = InvalidRequestError("no rgb")
    client.send(*frames(range(1)), Unusable(error=error, kind="frame"), Unusable(error=error, ask_id="q"))
    refused = [await client.next(Refused), await client.next(Refused)]
    assert [(one.frame, one.ask_id) for one in refused] == [(1, ""), (None, "q")]
    client.send(*frames([1.0]))
    await client.acknowledged(2)


@pytest.mark.parametrize(
    ("messages", "code"),
    [
        ([Open()], "FAILED_PRECONDITION"),
        ([Ask(prompt="too early")], "FAILED_PRECONDITION"),
        ([*frames(range(1)), Ask()], "INVALID_ARGUMENT"),
        ([*frames(range(1)), Ask(prompt="x" * 100_001)], "INVALID_ARGUMENT"),
        ([SetPrompt(prompt="x" * 100_001)], "INVALID_ARGUMENT"),
    ],
)
async def test_other_messages_that_cannot_be_used_are_refused(client: Client, messages: list[Input], code: str) -> None:
    await client.open()
    client.send(*messages)
    assert (await client.next(Refused)).code == code
    client.send(*frames([5.0]), Ask(prompt="good"))
    assert (await client.answer())[0].endswith("good")
    assert isinstance((await client.end())[-1], Closed)


async def test_a_name_is_taken_while_its_question_is_open(client: Client, service: EchoService) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="a", ask_id="q"), Ask(prompt="b", ask_id="q"))
    refused = await client.next(Refused)
    assert (refused.ask_id, refused.code) == ("q", "INVALID_ARGUMENT")


async def test_names_that_the_server_makes_are_not_in_use(client: Client, service: EchoService) -> None:
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), Ask(prompt="a", ask_id="ask-1"), Ask(prompt="b"), Ask(prompt="c"))
    await client.next(AnswerStarted)
    service.gate.set()
    names = [(await client.answer())[1].ask_id for _ in range(3)]
    assert len(set(names)) == 3


async def test_only_so_many_questions_wait(sessions: SessionRegistry, service: EchoService) -> None:
    config = limits(max_waiting_asks=2)
    client = Client(service, SessionRegistry(config, sessions.clock), config)
    await client.open()
    service.gate.clear()
    client.send(*frames(range(1)), *(Ask(prompt="p", ask_id=str(number)) for number in range(5)))
    refused = [await client.next(Refused) for _ in range(2)]
    assert [(one.ask_id, one.code) for one in refused] == [("3", "RESOURCE_EXHAUSTED"), ("4", "RESOURCE_EXHAUSTED")]
    assert "sessions.max_waiting_asks" in refused[0].reason
    service.gate.set()
    assert [(await client.answer())[1].ask_id for _ in range(3)] == ["0", "1", "2"]
    await client.events.aclose()


@pytest.mark.parametrize(
    ("first", "error"),
    [
        (PushFrame(image=picture()), SequenceError),
        (Ask(prompt="?"), SequenceError),
        (Open(model="gpt"), NotFoundError),
        (Open(mode=Mode.PERIODIC, period_s=1.0), InvalidRequestError),
        (Open(mode=Mode.PERIODIC, prompt="?"), InvalidRequestError),
        (Open(mode=Mode.CHANGES, prompt="?", period_s=float("nan")), InvalidRequestError),
        (Open(max_frames=49), InvalidRequestError),
        (Open(sampling=SamplingParams(max_new_tokens=257)), InvalidRequestError),
        (Open(session_id="unknown", resume_token="guess"), NotFoundError),
        (Unusable(error=DeadlineError("mapped")), DeadlineError),
    ],
)
async def test_a_stream_without_a_good_beginning_ends_with_an_error(
    client: Client, sessions: SessionRegistry, first: Input, error: type[FlashSDError]
) -> None:
    client.send(first)
    with pytest.raises(error):
        await client.rest()
    assert sessions.num_attached == sessions.num_resumable == 0


async def test_a_stream_may_end_before_it_begins(client: Client) -> None:
    client.lose()
    assert await client.rest() == []


async def test_every_answer_starts_then_speaks_then_ends(client: Client, service: EchoService) -> None:
    await client.open()
    service.fails = lambda request: UnavailableError("no") if "3" in texts(request) else None
    client.send(*frames(range(2)), *(Ask(prompt=str(number), ask_id=str(number)) for number in range(6)))
    events = await client.end()
    for name in map(str, range(6)):
        kinds = [type(event) for event in events if getattr(event, "ask_id", None) == name]
        spoken = [kind for kind, _ in itertools.groupby(kinds)]
        assert spoken == ([AnswerStarted, Refused] if name == "3" else [AnswerStarted, AnswerDelta, AnswerFinished])


async def test_the_servers_name_for_the_model_is_known(service: EchoService, clock: ManualClock) -> None:
    config = replace(Config(), serving=ServingConfig(model_name="captions"))
    client = Client(service, SessionRegistry(config, clock), config)
    assert (await client.open(model="captions")).model == "captions"
    await client.events.aclose()


async def test_a_fault_of_the_service_ends_the_stream_with_it(sessions: SessionRegistry) -> None:
    class Broken(EchoService):
        async def prefetch(self, request: CaptionRequest) -> int:
            raise ZeroDivisionError

    client = Client(Broken(), sessions)
    await client.open()
    client.send(*frames(range(1)))
    with pytest.raises(ZeroDivisionError):
        await client.rest()
    assert sessions.num_attached == 0
