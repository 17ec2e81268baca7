"""Sessions that caption by themselves."""

from __future__ import annotations

import itertools
from collections.abc import AsyncGenerator, Callable

import pytest

from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import UnavailableError
from flashsd_ray.sessions.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    Ask,
    Cancel,
    FrameAck,
    Mode,
    Output,
    PushFrame,
    Refused,
    SetPrompt,
)
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.types import CaptionRequest, FinishReason
from tests.fake_service import EchoService
from tests.unit.sessions.harness import Client, ManualClock, frames, picture, settle, shades, texts


def cues(events: list[Output]) -> list[tuple[float, float, str]]:
    """The captions as subtitles: from, to, text."""
    finished = {event.ask_id: event.text for event in events if isinstance(event, AnswerFinished)}
    return [
        (event.start_s, event.end_s, finished[event.ask_id]) for event in events if isinstance(event, AnswerStarted)
    ]


async def test_every_period_has_a_caption_of_its_own_frames(client: Client, service: EchoService) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=2.0, prompt="what happens?")
    client.send(*frames([10.0, 10.5, 11.5, 12.0, 13.9, 17.0]))
    events = await client.end()
    assert cues(events) == [
        (10.0, 12.0, "3 frames: what happens?"),
        (12.0, 14.0, "2 frames: what happens?"),
        (16.0, 17.0, "1 frames: what happens?"),  # nothing was filmed from 14 to 16; 17 is the end of the video
    ]
    assert [shades(request) for request in service.asked] == [[0, 1, 2], [3, 4], [5]]
    assert service.asked[1].conversation.visuals[0].timestamps_s.tolist() == [12.0, 13.9]


async def test_the_last_caption_ends_with_the_video(client: Client) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=10.0, prompt="?")
    client.send(*frames([0.0, 4.0]))
    assert cues(await client.end()) == [(0.0, 4.0, "2 frames: ?")]


async def test_a_session_without_frames_has_no_caption(client: Client) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=10.0, prompt="?")
    assert cues(await client.end()) == []


async def test_the_frames_of_a_period_are_prefetched_as_they_arrive(client: Client, service: EchoService) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=2.0, prompt="?")
    for number in range(5):
        client.send(PushFrame(image=picture(number), timestamp_s=number))
        await client.next(FrameAck)
    assert [shades(request) for request in service.prefetched] == [[0], [0, 1], [2], [2, 3], [4]]
    assert all(texts(request) == [] for request in service.prefetched)


async def test_a_period_of_many_frames_is_thinned_and_stays_whole(
    client: Client, service: EchoService, clock: ManualClock
) -> None:
    opened = await client.open(mode=Mode.PERIODIC, period_s=1.0, prompt="?", max_frames=10, keep_first=2)
    assert opened.max_frames == 10
    events: list[Output] = []
    for number in range(91):
        clock.advance(1 / 30)
        client.send(PushFrame(image=picture(number), timestamp_s=number / 30))
        events.append(await client.next(FrameAck))
    events += await client.end()
    assert [shades(request) for request in service.asked][:3] == [
        [0, 6, 12, 18, 24],
        [30, 36, 42, 48, 54],
        [60, 66, 72, 78, 84],
    ]
    last = next(event for event in reversed(events) if isinstance(event, FrameAck))
    assert last.frames_held + last.frames_dropped == 91
    assert last.frames_held <= 10
    assert len(service.prefetched) == 16  # one for each frame that was taken, none for the others


async def test_a_slow_model_holds_frames_back_and_no_caption_is_lost(client: Client, service: EchoService) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=1.0, prompt="?")
    service.gate.clear()
    client.send(*frames(range(6)))
    await settle(200)
    # One caption is being given, one waits, and the frame that ends the third period is held back.
    assert len(service.asked) == 1
    assert shades(service.prefetched[-1]) == [2]
    service.gate.set()
    assert len(cues(await client.end())) == 6


async def test_a_question_between_captions_looks_at_the_whole_window(client: Client, service: EchoService) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=1.0, prompt="caption")
    client.send(*frames(range(3)), Ask(prompt="question", ask_id="q"))
    events = await client.end()
    (asked,) = [request for request in service.asked if "question" in texts(request)]
    assert shades(asked) == [0, 1, 2]
    assert [event.ask_id for event in events if isinstance(event, AnswerFinished)].count("q") == 1


async def test_captions_do_not_see_the_conversation(client: Client, service: EchoService) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=1.0, prompt="caption")
    client.send(*frames(range(1)), Ask(prompt="question", keep_history=True))
    await client.answer()
    await client.end()
    assert texts(service.asked[-1]) == ["caption"]


async def test_captions_ask_what_was_set_last(client: Client) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=1.0, prompt="one")
    client.send(*frames(range(2)), SetPrompt(prompt="two"), SetPrompt(prompt=""))
    events = await client.end()
    assert [text for _, _, text in cues(events)] == ["1 frames: one", "1 frames: two"]
    assert [event.code for event in events if isinstance(event, Refused)] == ["INVALID_ARGUMENT"]


async def test_a_caption_can_be_cancelled(client: Client, service: EchoService) -> None:
    await client.open(mode=Mode.PERIODIC, period_s=1.0, prompt="?")
    service.gate.clear()
    client.send(*frames(range(2)))
    started = await client.next(AnswerStarted)
    client.send(Cancel(ask_id=started.ask_id))
    assert (await client.answer())[1].finish_reason is FinishReason.CANCELLED
    service.gate.set()
    assert len(cues(await client.end())) == 1


class Describer(EchoService):
    """Says of the frames what the test wants."""

    def __init__(self, describe: Callable[[list[int]], str]) -> None:
        super().__init__()
        self.describe = describe

    def stream(self, request: CaptionRequest) -> AsyncGenerator[Chunk, None]:
        said = CaptionRequest(
            request_id=request.request_id, prompt=self.describe(shades(request)), sampling=request.sampling
        )
        return super().stream(said)


async def changes(clock: ManualClock, scenes: list[str]) -> list[Output]:
    """All events of a session of MODE_CHANGES whose n-th period shows the n-th scene."""
    service = Describer(lambda numbers: scenes[numbers[0]])
    client = Client(service, SessionRegistry(Client.config, clock))
    await client.open(mode=Mode.CHANGES, period_s=1.0, prompt="?")
    client.send(*frames(range(len(scenes))))
    return await client.end()


async def test_a_caption_equal_to_the_last_one_is_not_sent(clock: ManualClock) -> None:
    events = await changes(clock, ["a hen", "a hen", "a hen sits", "a hen", "a cow", "a cow"])
    finished = [event for event in events if isinstance(event, AnswerFinished)]
    assert [event.is_unchanged for event in finished] == [False, True, False, False, False, True]
    sent: dict[str, str] = {}
    for event in events:
        if isinstance(event, AnswerDelta):
            sent[event.ask_id] = sent.get(event.ask_id, "") + event.chunk.text
    assert [sent.get(event.ask_id, "") for event in finished] == [
        "" if event.is_unchanged else event.text for event in finished
    ]
    assert all(event.text for event in finished)  # the whole text is told in any case
    assert len([event for event in events if isinstance(event, AnswerStarted)]) == 6  # so a cue can be drawn out


async def test_a_caption_that_failed_is_not_compared_with(clock: ManualClock) -> None:
    service = Describer(lambda numbers: "a hen")
    service.fails = lambda request: UnavailableError("no") if len(service.asked) == 2 else None
    client = Client(service, SessionRegistry(Client.config, clock))
    await client.open(mode=Mode.CHANGES, period_s=1.0, prompt="?")
    client.send(*frames(range(3)))
    events = await client.end()
    assert [event.is_unchanged for event in events if isinstance(event, AnswerFinished)] == [False, True]
    assert [event.ask_id for event in events if isinstance(event, Refused)] == ["caption-2"]


async def test_answers_to_questions_are_sent_even_if_they_repeat_a_caption(clock: ManualClock) -> None:
    service = Describer(lambda numbers: "a hen")
    client = Client(service, SessionRegistry(Client.config, clock))
    await client.open(mode=Mode.CHANGES, period_s=1.0, prompt="?")
    client.send(*frames(range(2)))
    await client.answer()
    client.send(Ask(prompt="?"))
    text, finished = await client.answer()
    assert text == finished.text
    assert not finished.is_unchanged
    await client.events.aclose()


@pytest.mark.parametrize("mode", [Mode.PERIODIC, Mode.CHANGES])
async def test_captions_depend_on_the_video_alone(clock: ManualClock, mode: Mode) -> None:
    """However fast frames come and answers go, the same periods get the same requests."""
    found = []
    for pause in (0, 3, 100):
        service = EchoService()
        client = Client(service, SessionRegistry(Client.config, clock))
        await client.open(mode=mode, period_s=1.5, prompt="?")
        for message in frames([number / 4 for number in range(30)]):
            client.send(message)
            await settle(pause)
        await client.end()
        found.append([shades(request) for request in service.asked])
    assert found[0] == found[1] == found[2]
    assert list(itertools.chain(*found[0])) == list(range(30))
