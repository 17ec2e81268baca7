"""A session goes on at another edge as if nothing had happened: the same frames, the same captions, each once."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from itertools import pairwise

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.config import Config, StoresConfig
from flashsd_ray.errors import FlashSDError, NotFoundError, UnavailableError
from flashsd_ray.sessions.events import (
    AnswerDelta,
    AnswerFinished,
    AnswerStarted,
    Ask,
    Closed,
    End,
    FrameAck,
    Mode,
    Open,
    Opened,
    PushFrame,
    Refused,
)
from flashsd_ray.sessions.keeper import SessionKeeper
from flashsd_ray.sessions.registry import SessionRegistry
from flashsd_ray.sessions.settings import Settings
from flashsd_ray.stores.memory import MemoryStore
from flashsd_ray.stores.redis_store import RedisStore
from flashsd_ray.stores.store import Store
from tests.fake_service import CARD, EchoService
from tests.media_files import make_picture
from tests.redis_server import RedisServer, needs_redis
from tests.unit.sessions.harness import Client, frames, limits, shades, texts

LIMIT_S = 30.0


class Shared(MemoryStore):
    """Stands for a store that edges share."""

    @property
    def is_shared(self) -> bool:
        return True


class Edge:
    """One edge process; it dies by being left alone."""

    def __init__(self, store: Store, config: Config | None = None) -> None:
        self.config = config or Config()
        self.service = EchoService()
        self.keeper = SessionKeeper(store, self.config)
        self.sessions = SessionRegistry(self.config, keeper=self.keeper)
        self.clients: list[Client] = []

    def client(self, caller: str = "anna") -> Client:
        self.clients.append(Client(self.service, self.sessions, self.config, caller=caller))
        return self.clients[-1]

    async def close(self) -> None:
        for client in self.clients:
            await client.events.aclose()


@pytest.fixture
def store() -> Shared:
    return Shared(StoresConfig())


async def resumed(edge: Edge, opened: Opened, **wishes: object) -> tuple[Client, Opened]:
    client = edge.client()
    back = await client.open(session_id=opened.session_id, resume_token=opened.resume_token, **wishes)
    return client, back


async def test_a_question_is_answered_about_the_frames_of_its_time(store: Shared) -> None:
    first, second = Edge(store), Edge(store)
    before = first.client()
    opened = await before.open()
    first.service.gate.clear()
    before.send(*frames(range(3)), Ask(prompt="what?", ask_id="q"))
    await before.next(AnswerStarted)
    before.send(*frames([3.0, 4.0]))
    await before.acknowledged(4)
    after, back = await resumed(second, opened)
    assert (back.session_id, back.next_frame) == (opened.session_id, 5)
    after.send(Ask(prompt="ignored", ask_id="q", is_again=True), Ask(prompt="and now?"), *frames([5.0]))
    assert (await after.answer())[0] == "3 frames: what?"
    assert (await after.answer())[0] == "5 frames: and now?"
    assert shades(second.service.asked[0]) == shades(first.service.asked[0])
    # What was answered may be asked again once more: the last words may have been lost.
    third = Edge(store)
    last, _ = await resumed(third, opened)
    last.send(Ask(ask_id="q", is_again=True), Ask(prompt="what?", ask_id="new"))
    assert (await last.answer())[0] == "3 frames: what?"
    assert (await last.answer())[0] == "6 frames: what?"
    for edge in (first, second, third):
        await edge.close()


@pytest.mark.parametrize(("received", "expected"), [(None, [2, 3]), (1, [2, 3]), (0, [1, 2, 3])])
async def test_captions_that_the_client_does_not_have_come_again(
    store: Shared, received: int | None, expected: list[int]
) -> None:
    first, second = Edge(store), Edge(store)
    before = first.client()
    opened = await before.open(mode=Mode.PERIODIC, period_s=2.0, prompt="caption")
    before.send(*frames(range(3)))
    await before.next(AnswerFinished)
    first.service.gate.clear()
    before.send(*frames([3.0, 4.0]))
    await before.next(AnswerStarted)
    await before.acknowledged(4)
    after, _ = await resumed(second, opened, captions_received=received)
    events = await after.end()
    ended = {event.ask_id: event.text for event in events if isinstance(event, AnswerFinished)}
    told = {1: "2 frames: caption", 2: "2 frames: caption", 3: "1 frames: caption"}
    assert ended == {f"caption-{number}": told[number] for number in expected}
    (closed,) = [event for event in events if isinstance(event, Closed)]
    assert closed.answers == 3
    for edge in (first, second):
        await edge.close()


async def test_what_was_said_goes_with_the_session_and_each_answer_stands_behind_what_was_said_before_it(
    store: Shared,
) -> None:
    first, second = Edge(store), Edge(store)
    before = first.client()
    opened = await before.open(prompt="the session's")
    before.send(*frames(range(2)), Ask(prompt="one?", keep_history=True))
    await before.answer()
    before.send(*frames([2.0]), Ask(ask_id="two", keep_history=True))
    await before.answer()
    after, _ = await resumed(second, opened)
    after.send(*frames([3.0]), Ask(prompt="three?"))
    await after.answer()
    assert texts(second.service.asked[0]) == [
        "one?", "2 frames: one?", "the session's", "3 frames: the session's", "three?",
    ]  # fmt: skip
    after.send(Ask(ask_id="two", is_again=True))
    await after.answer()
    assert texts(second.service.asked[1]) == ["one?", "2 frames: one?", "the session's"]
    for edge in (first, second):
        await edge.close()


async def test_nobody_else_gets_the_session_and_an_ended_one_nobody(store: Shared) -> None:
    first, second = Edge(store), Edge(store)
    before = first.client()
    opened = await before.open()
    before.send(*frames(range(1)))
    await before.acknowledged(0)
    for caller, token in (("eve", opened.resume_token), ("anna", "guess")):
        stranger = second.client(caller)
        with pytest.raises(NotFoundError):
            await stranger.open(session_id=opened.session_id, resume_token=token)
    await before.end()
    with pytest.raises(NotFoundError):
        await resumed(second, opened)
    for edge in (first, second):
        await edge.close()


async def test_who_comes_back_to_an_edge_finds_what_happened_at_another(store: Shared) -> None:
    first, second = Edge(store), Edge(store)
    before = first.client()
    opened = await before.open()
    before.send(*frames(range(2)))
    await before.acknowledged(1)
    before.lose()
    await before.rest()
    between, _ = await resumed(second, opened)
    between.send(*frames([2.0, 3.0]))
    await between.acknowledged(3)
    after, back = await resumed(first, opened)
    assert back.next_frame == 4
    after.send(Ask(prompt="?"))
    assert (await after.answer())[0] == "4 frames: ?"
    for edge in (first, second):
        await edge.close()


async def test_frames_as_files_come_back_as_they_were(store: Shared) -> None:
    first, second = Edge(store), Edge(store)
    before = first.client()
    opened = await before.open()
    pictures = [make_picture("JPEG", size=(24, 16)) for _ in range(2)]
    before.send(*(PushFrame(image=data) for data in pictures), Ask(prompt="?"))
    await before.answer()
    after, _ = await resumed(second, opened)
    after.send(Ask(prompt="?"))
    await after.answer()
    (mine,), (theirs,) = (edge.service.asked[0].conversation.visuals for edge in (first, second))
    assert mine.digest == theirs.digest
    for edge in (first, second):
        await edge.close()


async def test_a_store_that_is_lost_costs_the_way_back_and_nothing_else(store: Shared) -> None:
    first, second = Edge(store), Edge(store)
    before = first.client()
    opened = await before.open()
    store.close()
    before.send(*frames(range(3)), Ask(prompt="?"))
    assert (await before.answer())[0] == "3 frames: ?"
    with pytest.raises(UnavailableError):
        await resumed(second, opened)
    for edge in (first, second):
        await edge.close()


async def test_a_question_whose_frames_are_gone_is_refused_and_the_session_goes_on(store: Shared) -> None:
    config = limits(max_frames=4, keep_first=1, drop_frames=2)
    first, second = Edge(store, config), Edge(store, config)
    before = first.client()
    opened = await before.open()
    first.service.gate.clear()
    before.send(*frames(range(4)), Ask(prompt="?", ask_id="q"))
    await before.next(AnswerStarted)
    before.send(*frames([4.0]))  # frame 1 leaves the window
    await before.acknowledged(4)
    store.delete(f"sessions:{opened.session_id}:frames:1")
    after, _ = await resumed(second, opened)
    after.send(Ask(ask_id="q", is_again=True), Ask(prompt="now?"))
    assert (await after.next(Refused)).code == UnavailableError.grpc_status
    assert (await after.answer())[0] == "4 frames: now?"
    for edge in (first, second):
        await edge.close()


async def test_frames_of_a_long_session_do_not_expire() -> None:
    now = [0.0]
    stores = StoresConfig(session_ttl_s=100.0)
    store = Shared(stores, clock=lambda: now[0])
    config = replace(Config(), stores=stores)
    first, second = Edge(store, config), Edge(store, config)
    for edge in (first, second):
        edge.keeper = edge.sessions._keeper = SessionKeeper(store, config, clock=lambda: now[0])
    before = first.client()
    opened = await before.open()
    for second_s in range(12):
        now[0] = 40.0 * second_s
        before.send(*frames([float(second_s)]))
        await before.acknowledged(second_s)
    now[0] += 90.0
    after, back = await resumed(second, opened)
    assert back.next_frame == 12
    after.send(Ask(prompt="?"))
    assert (await after.answer())[0] == "12 frames: ?"
    for edge in (first, second):
        await edge.close()


@needs_redis
async def test_the_same_over_redis() -> None:
    with RedisServer() as server:
        config = replace(Config(), stores=StoresConfig(url=server.url, timeout_s=20.0))
        stores = [RedisStore(config.stores) for _ in range(2)]
        first, second = (Edge(one, config) for one in stores)
        before = first.client()
        opened = await before.open(mode=Mode.CHANGES, period_s=1.0, prompt="caption")
        before.send(*frames(range(3)))
        await before.acknowledged(2)
        after, back = await resumed(second, opened, captions_received=0)
        assert back.next_frame == 3
        events = await after.end()
        ended = [event.ask_id for event in events if isinstance(event, AnswerFinished)]
        assert ended == ["caption-1", "caption-2", "caption-3"]
        for edge in (first, second):
            await edge.close()
        for one in stores:
            one.close()


async def captions_of(num_frames: int, cuts: Sequence[int], mode: Mode) -> list[tuple[str, bool]]:
    """What a client has of a session whose edge dies after these frames; captions by their number."""
    store, edges = Shared(StoresConfig()), []
    config = limits(max_frames=6, keep_first=1, drop_frames=2)
    opened: Opened | None = None
    told: dict[str, tuple[str, bool]] = {}
    bounds = [0, *sorted({cut for cut in cuts if 0 < cut < num_frames}), num_frames]
    for start, stop in pairwise(bounds):
        edge = Edge(store, config)
        edges.append(edge)
        client = edge.client()
        if opened is None:
            opened = await client.open(mode=mode, period_s=2.5, prompt="caption")
        else:
            await client.open(
                session_id=opened.session_id, resume_token=opened.resume_token, captions_received=len(told)
            )
        client.send(*frames(range(num_frames))[start:stop])
        if stop == num_frames:
            client.send(End())
        pieces: dict[str, str] = {}
        async for event in client.events:
            if isinstance(event, AnswerDelta):
                pieces[event.ask_id] = pieces.get(event.ask_id, "") + event.chunk.text
            if isinstance(event, AnswerFinished):
                assert event.ask_id not in told
                assert event.is_unchanged or event.text == pieces[event.ask_id]
                told[event.ask_id] = (event.text, event.is_unchanged)
            if isinstance(event, FrameAck) and event.frame == stop - 1 and stop < num_frames:
                break  # the edge is lost, whatever it was doing
    for edge in edges:
        await edge.close()
    return [told[f"caption-{number}"] for number in range(1, len(told) + 1)]


@settings(max_examples=25)
@given(
    num_frames=st.integers(1, 14),
    cuts=st.lists(st.integers(1, 13), max_size=3),
    mode=st.sampled_from([Mode.PERIODIC, Mode.CHANGES]),
)
def test_however_often_the_edge_is_lost_the_captions_are_the_same(num_frames: int, cuts: list[int], mode: Mode) -> None:
    async def both() -> None:
        undisturbed = await captions_of(num_frames, (), mode)
        assert await captions_of(num_frames, cuts, mode) == undisturbed

    asyncio.run(asyncio.wait_for(both(), LIMIT_S))


async def test_what_is_kept_of_another_version_opens_nothing(store: Shared) -> None:
    edge = Edge(store)
    session_id, token = await edge.keeper.create("anna", Settings.of(Open(prompt="?"), CARD, edge.config))
    record = edge.keeper._records[session_id]
    edge.keeper._sessions.put(replace(record, settings={"settings": {"mode": "unknown"}}))
    with pytest.raises(FlashSDError):
        await edge.client().open(session_id=session_id, resume_token=token)
    await edge.close()
