"""A request that kills lanes or encoders is found and refused; those that were there with it have their answers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from typing import TypeVar

import pytest

from flashsd_ray.actors.encoder_host import EncoderHost
from flashsd_ray.actors.in_process import LocalEncoding, LocalLane
from flashsd_ray.actors.lane_host import LaneHost
from flashsd_ray.actors.quarantine import MAX_ENTRIES, Quarantine, fingerprint
from flashsd_ray.actors.router import Encoded, Router
from flashsd_ray.config import Config, EncodingConfig, SchedulingConfig, SpeculationConfig
from flashsd_ray.engine.lane import Lane
from flashsd_ray.errors import DeadlineError, QuarantinedError, UnavailableError
from flashsd_ray.types import CaptionRequest, Conversation, EncodedPrompt, SamplingParams
from tests.fake_service import CARD
from tests.fakes import ScriptDrafter, TableTarget
from tests.unit.actors.test_router import (
    LOGITS,
    LetterEncoding,
    answer,
    asking,
    drafts,
    encoded,
    expected,
    letters,
    tokens_of,
)

T = TypeVar("T")
LIMIT_S = 60.0
CONFIG = Config(
    scheduling=SchedulingConfig(max_running=6, max_waiting=100), speculation=SpeculationConfig(draft_length=3)
)
POISON = "x"  # a prompt that begins so


class Killed(BaseException):
    """No part outlives it."""


class MortalTarget(TableTarget):
    """A poison ends its thread, some rounds after it was opened if it is a slow one."""

    def __init__(self) -> None:
        super().__init__(LOGITS, max_rows=10**6)
        self.most_together = 0

    def verify(self, blocks: Sequence, fills: Sequence = ()) -> list:  # type: ignore[type-arg]
        self.most_together = max(self.most_together, len(self.sessions))
        for session in self.sessions.values():
            if session.token_ids[0] == (ord(POISON) % 26):
                raise Killed
        return super().verify(blocks, fills)


class Ensemble:
    """Lanes that are replaced when they die, as a fleet does it."""

    def __init__(self, count: int) -> None:
        self.router = Router(CARD, patience_s=30.0, on_lost=self._lost)
        self.encoder = LetterEncoding()
        self.router.set_encoders([self.encoder])
        self.count = count
        self.hosts: dict[str, LaneHost] = {}
        self.num_deaths = 0
        self.all_hosts: list[LaneHost] = []
        self.refill()

    def refill(self) -> None:
        while len(self.hosts) < self.count:
            name = f"lane-{len(self.all_hosts)}"
            lane = Lane(None, MortalTarget(), ScriptDrafter(drafts, 3), CONFIG, eos_token_ids=(25,), detokenize=letters)
            self.hosts[name] = LaneHost(lane, lane_id=name)
            self.all_hosts.append(self.hosts[name])
        self.router.set_lanes([LocalLane(host, "test") for host in self.hosts.values()])

    def _lost(self, name: str) -> None:
        if self.hosts.pop(name, None) is not None:
            self.num_deaths += 1
            self.refill()


@asynccontextmanager
async def ensemble(count: int) -> AsyncIterator[Ensemble]:
    made = Ensemble(count)
    try:
        yield made
    finally:
        await made.router.close()
        for host in made.all_hosts:
            await host.close()


def poison(number: int) -> CaptionRequest:
    return replace(asking(1000 + number), prompt=f"{POISON}{number}")


async def outcomes(router: Router, requests: Sequence[CaptionRequest]) -> list:  # type: ignore[type-arg]
    works = (answer(router, request) for request in requests)
    return await asyncio.wait_for(asyncio.gather(*works, return_exceptions=True), LIMIT_S)


@pytest.mark.parametrize(("num_lanes", "num_poisons"), [(1, 1), (2, 1), (3, 2)])
async def test_the_poison_is_refused_and_everybody_else_is_answered(num_lanes: int, num_poisons: int) -> None:
    async with ensemble(num_lanes) as made:
        innocents = [asking(number, tokens=60) for number in range(20)]
        poisons = [poison(number) for number in range(num_poisons)]
        found = await outcomes(made.router, [*innocents[:9], *poisons, *innocents[9:]])
        refused = [one for one in found if isinstance(one, BaseException)]
        assert [type(one) for one in refused] == [QuarantinedError] * num_poisons
        right = [one for one in found if not isinstance(one, BaseException)]
        assert [tokens_of(chunks) for chunks in right] == [expected(request) for request in innocents]
        # Its like is refused without another death; whoever is told something else is answered.
        (again, other) = await outcomes(made.router, [replace(poisons[0], request_id="again"), asking(77)])
        assert isinstance(again, QuarantinedError)
        assert tokens_of(other) == expected(asking(77))
        assert num_poisons <= made.num_deaths <= 4 * num_poisons


async def test_who_leaves_while_it_waits_for_its_place_leaves_nothing_behind() -> None:
    host = LaneHost(
        Lane(None, MortalTarget(), ScriptDrafter(drafts, 3), CONFIG, eos_token_ids=(25,), detokenize=letters)
    )
    feed = host.feed("edge")
    await anext(feed)
    await host.reserve("edge", "first", 1)
    second = asyncio.create_task(host.reserve("edge", "second", 1))
    third = asyncio.create_task(host.reserve("edge", "third", 1))
    assert (await host.status()).has_suspects
    assert not second.done()
    await host.cancel("second")
    with pytest.raises(UnavailableError):
        await second
    await host.cancel("first")
    await asyncio.wait_for(third, LIMIT_S)
    await feed.aclose()  # an edge that is lost takes its places with it
    assert not (await host.status()).has_suspects
    await host.close()


async def test_suspects_run_in_the_company_that_they_may_have() -> None:
    target = MortalTarget()
    host = LaneHost(Lane(None, target, ScriptDrafter(drafts, 3), CONFIG, eos_token_ids=(25,), detokenize=letters))
    feed = host.feed("edge")
    await anext(feed)

    async def run(name: str, company: int) -> None:
        await host.reserve("edge", name, company)
        request = CaptionRequest(request_id=name, prompt="p", sampling=SamplingParams(max_new_tokens=30))
        await host.submit("edge", request, encoded(Conversation.of("p", ())))

    plain = CaptionRequest(request_id="plain", prompt="p", sampling=SamplingParams(max_new_tokens=30))
    running = [asyncio.create_task(run(f"s{number}", 2)) for number in range(5)]
    await asyncio.sleep(0)
    await host.submit("edge", plain, encoded(Conversation.of("p", ())))
    ended: list[str] = []
    while len(ended) < 6:
        chunks = (await asyncio.wait_for(anext(feed), LIMIT_S)).chunks
        ended += [chunk.request_id for chunk in chunks if chunk.finish_reason is not None]
    await asyncio.gather(*running)
    assert target.most_together <= 2
    assert ended[-1] == "plain"  # it is decoded when they are through
    assert not (await host.status()).has_suspects
    await feed.aclose()
    await host.close()


async def test_the_time_of_who_waits_behind_suspects_runs() -> None:
    host = LaneHost(Lane(None, MortalTarget(), ScriptDrafter(drafts, 3), CONFIG, eos_token_ids=(25,)))
    feed = host.feed("edge")
    await anext(feed)
    await host.reserve("edge", "suspect", 1)  # and it never comes
    late = replace(asking(1), request_id="late", timeout_s=0.05)
    await host.submit("edge", late, encoded(late.conversation))
    (chunk,) = (await asyncio.wait_for(anext(feed), LIMIT_S)).chunks
    assert isinstance(chunk.error, DeadlineError)
    await feed.aclose()
    await host.close()


class MortalEncoder:
    """Encodes letters; a poison in a turn ends the encoder."""

    num_frames = num_frames_encoded = 0

    def encode_each(self, conversations: Sequence[Conversation]) -> Sequence[EncodedPrompt]:
        for conversation in conversations:
            if str(conversation.turns[0].parts[-1]).startswith(POISON):
                raise Killed
        return [encoded(conversation) for conversation in conversations]


class MortalEncoding:
    """A way to an encoder in a process of its own: everybody who waits learns that it died."""

    def __init__(self, encoder_id: str) -> None:
        self.encoder_id = encoder_id
        self._dead = asyncio.Event()
        outer = self

        class Watched(MortalEncoder):
            def encode_each(self, conversations: Sequence[Conversation]) -> Sequence[EncodedPrompt]:
                try:
                    return super().encode_each(conversations)
                except Killed:
                    outer.loop.call_soon_threadsafe(outer._dead.set)
                    raise RuntimeError("killed") from None

        self.loop = asyncio.get_running_loop()
        self._way = LocalEncoding(EncoderHost(Watched(), EncodingConfig(batch_wait_s=0.01)))  # type: ignore[arg-type]

    async def reserve(self, ticket: str) -> None:
        await self._alive(self._way.reserve(ticket))

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> Encoded:
        return await self._alive(self._way.encode(conversation, trace, ticket))

    async def look(self) -> None:
        if self._dead.is_set():
            raise UnavailableError(f"{self.encoder_id} is lost")

    async def _alive(self, work: Awaitable[T]) -> T:
        working, dying = asyncio.ensure_future(work), asyncio.ensure_future(self._dead.wait())
        await asyncio.wait((working, dying), return_when=asyncio.FIRST_COMPLETED)
        if dying.done() or isinstance(working.exception(), BaseException):
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            raise UnavailableError(f"{self.encoder_id} is lost")
        dying.cancel()
        return working.result()


async def test_a_poison_of_encoders_is_refused_and_everybody_else_is_answered() -> None:
    async with ensemble(1) as made:
        lost: list[str] = []

        def replaced(name: str) -> None:
            if name not in lost:
                lost.append(name)
                made.router.set_encoders([MortalEncoding(f"encoder-{len(lost)}")])

        made.router._on_lost = replaced
        made.router.set_encoders([MortalEncoding("encoder-0")])
        innocents = [asking(number, tokens=20) for number in range(10)]
        found = await outcomes(made.router, [*innocents[:5], poison(1), *innocents[5:]])
        assert isinstance(found.pop(5), QuarantinedError)
        assert [tokens_of(chunks) for chunks in found] == [expected(request) for request in innocents]
        assert 1 <= len(lost) <= 4


async def test_an_encoder_waits_for_nobody_for_ever(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashsd_ray.actors.encoder_host.REDEEM_S", 0.01)
    host = EncoderHost(MortalEncoder(), EncodingConfig(batch_wait_s=0.0))  # type: ignore[arg-type]
    await host.reserve("mine")  # and nobody comes with it
    assert await asyncio.wait_for(host.encode(Conversation.of("a", ())), LIMIT_S)
    with pytest.raises(UnavailableError, match="over"):
        await host.encode(Conversation.of("a", ()), "mine")
    await host.close()


def test_quarantine_is_for_a_while_and_for_its_like() -> None:
    now = [0.0]
    quarantine = Quarantine(10.0, lambda: now[0])
    quarantine.check(asking(1))
    quarantine.add(asking(1))
    with pytest.raises(QuarantinedError):
        quarantine.check(replace(asking(1), request_id="other", sampling=replace(asking(1).sampling, seed=5)))
    quarantine.check(asking(2))
    now[0] = 11.0
    quarantine.check(asking(1))
    assert fingerprint(asking(1)) != fingerprint(replace(asking(1), prompt="prompt1 "))


def test_what_one_edge_found_is_refused_by_another_for_as_long_as_is_left() -> None:
    now = [0.0]
    found, told = Quarantine(10.0, lambda: now[0]), Quarantine(10.0, lambda: now[0])
    key = found.add(asking(1))
    now[0] = 4.0
    told.learn(found.left_s())
    assert told.left_s() == {key: 6.0}
    told.learn({key: 1.0})  # nobody is let go early
    with pytest.raises(QuarantinedError):
        told.check(asking(1))
    now[0] = 10.0
    told.check(asking(1))
    assert told.left_s() == {}


def test_a_quarantine_that_is_full_forgets_what_would_be_let_go_first() -> None:
    quarantine = Quarantine(10.0, lambda: 0.0)
    quarantine.learn({f"{number}": 1.0 + number / MAX_ENTRIES for number in range(2 * MAX_ENTRIES)})
    assert len(quarantine.left_s()) == MAX_ENTRIES
    assert "0" not in quarantine.left_s()
