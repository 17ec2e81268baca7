"""Lanes that hang are told from lanes that are slow, and edges that are gone from edges that are quiet."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Sequence

import pytest

from flashsd_ray.actors import lane_host
from flashsd_ray.actors.lane_host import LaneHost
from flashsd_ray.actors.router import Encoded, Router
from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.config import PlacementConfig
from flashsd_ray.engine.lane import Lane
from flashsd_ray.errors import DeadlineError, UnavailableError
from flashsd_ray.types import Conversation
from tests.fake_service import CARD
from tests.fakes import ScriptDrafter, TableTarget
from tests.unit.actors.test_poison import CONFIG
from tests.unit.actors.test_router import LOGITS, answer, asking, drafts, encoded, tokens_of
from tests.unit.actors.test_router_faults import Encoding, ScriptedLane, said

LIMIT_S = 30.0
PLACEMENT = PlacementConfig(health_period_s=2.0, health_timeout_s=30.0)


class Hands:
    """A clock that a test turns; whoever sleeps wakes when it is time."""

    def __init__(self) -> None:
        self.now_s = 100.0
        self._turned = asyncio.Condition()

    def __call__(self) -> float:
        return self.now_s

    async def sleep(self, seconds: float) -> None:
        until_s = self.now_s + seconds
        async with self._turned:
            await self._turned.wait_for(lambda: self.now_s >= until_s)

    async def turn(self, seconds: float, step_s: float = 1.0) -> None:
        for _ in range(round(seconds / step_s)):
            async with self._turned:
                self.now_s += step_s
                self._turned.notify_all()
            for _ in range(10):
                await asyncio.sleep(0)


class StuckTarget(TableTarget):
    """Its rounds end when the test says so."""

    def __init__(self) -> None:
        super().__init__(LOGITS, max_rows=10**6)
        self.is_in_round, self.may_end = threading.Event(), threading.Event()

    def verify(self, blocks: Sequence, fills: Sequence = ()) -> list:  # type: ignore[type-arg]
        self.is_in_round.set()
        assert self.may_end.wait(LIMIT_S)
        return super().verify(blocks, fills)


def hosted(target: TableTarget, clock: Hands | None = None, **limits: float) -> LaneHost:
    lane = Lane(None, target, ScriptDrafter(drafts, 3), CONFIG, eos_token_ids=(25,))
    return LaneHost(lane, **({"clock": clock} if clock else {}), **limits)  # type: ignore[arg-type]


async def test_a_long_round_is_no_hang_and_an_endless_one_is(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lane_host, "LOOK_S", 0.01)
    target, hands = StuckTarget(), Hands()
    host = hosted(target, hands, round_timeout_s=300.0)
    feed = host.feed("edge")
    await anext(feed)
    await host.submit("edge", asking(1, tokens=5), encoded(Conversation.of("p", ())))
    assert await asyncio.to_thread(target.is_in_round.wait, LIMIT_S)
    hands.now_s += 299.0
    assert (await host.status()).lane_id == "lane-0"  # a long prefill
    hands.now_s += 2.0
    with pytest.raises(UnavailableError, match=r"placement\.round_timeout_s"):
        await host.status()
    target.may_end.set()
    ended = None
    while ended is None:
        ended = (await asyncio.wait_for(anext(feed), LIMIT_S)).chunks[-1].finish_reason
    assert (await host.status()).num_running == 0
    await feed.aclose()
    await host.close()


async def test_an_edge_that_is_gone_takes_its_requests_with_it_and_one_that_asks_stays() -> None:
    hands, target = Hands(), TableTarget(LOGITS)
    host = hosted(target, hands, edge_timeout_s=30.0)
    lost, there = host.feed("lost"), host.feed("there")
    await anext(lost)
    await anext(there)
    await host.reserve("lost", "suspect", 1)
    await host.submit("lost", asking(1, tokens=3000), encoded(Conversation.of("p", ())))
    for _ in range(5):
        hands.now_s += 10.0
        status = await host.status("there")
    status = await host.status("there")
    assert (status.num_running, status.num_waiting, status.has_suspects) == (0, 0, False)
    assert not target.sessions
    while await asyncio.wait_for(anext(lost, None), LIMIT_S) is not None:
        pass
    await host.submit("there", asking(2, tokens=3), encoded(Conversation.of("p", ())))
    assert (await asyncio.wait_for(anext(there), LIMIT_S)).chunks
    await there.aclose()
    await host.close()


class SilentLane(ScriptedLane):
    """Takes requests and says nothing any more, as a process that is stopped."""

    def __init__(self, lane_id: str) -> None:
        super().__init__(lane_id)
        self.speaks = asyncio.Event()
        self.speaks.set()

    async def status(self) -> LaneStatus:
        await self.speaks.wait()
        return self.now


async def routed(hands: Hands, *lanes: ScriptedLane) -> tuple[Router, list[str]]:
    lost: list[str] = []
    router = Router(CARD, placement=PLACEMENT, clock=hands, sleep=hands.sleep, on_lost=lost.append)
    router.set_encoders([Encoding()])
    router.set_lanes(lanes)
    for _ in range(10):
        await asyncio.sleep(0)
    return router, lost


@pytest.mark.parametrize("timeout_s", [None, 40.0])
async def test_requests_leave_a_silent_lane_before_their_deadline(timeout_s: float | None) -> None:
    hands, silent, other = Hands(), SilentLane("lane-1"), ScriptedLane("lane-2")
    router, lost = await routed(hands, silent, other)
    asked = asyncio.create_task(answer(router, asking(1, timeout_s=timeout_s)))
    await asyncio.wait_for(silent.submitted.get(), LIMIT_S)
    silent.say(said("r1", 1, 2))
    silent.speaks.clear()
    await hands.turn(6.0)
    assert other.submitted.empty()
    await hands.turn(10.0 if timeout_s else 30.0)
    await asyncio.wait_for(other.submitted.get(), LIMIT_S)
    assert lost == ([] if timeout_s else ["lane-1"])
    other.say(said("r1", 1, 2), said("r1", 3, ends=True))
    assert tokens_of(await asyncio.wait_for(asked, LIMIT_S)) == (1, 2, 3)
    await router.close()


async def test_a_silent_lane_gets_nothing_new_until_it_speaks() -> None:
    hands, silent = Hands(), SilentLane("lane-1")
    router, _ = await routed(hands, silent)
    silent.speaks.clear()
    await hands.turn(10.0)
    asked = asyncio.create_task(answer(router, asking(1)))
    await hands.turn(2.0)
    assert silent.submitted.empty()
    silent.speaks.set()
    await asyncio.wait_for(silent.submitted.get(), LIMIT_S)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await router.close()


async def test_an_edge_that_stood_still_itself_loses_no_lane() -> None:
    hands, lane = Hands(), ScriptedLane("lane-1")
    router, lost = await routed(hands, lane)
    await hands.turn(100.0, step_s=100.0)
    assert lost == []
    asked = asyncio.create_task(answer(router, asking(1)))
    await asyncio.wait_for(lane.submitted.get(), LIMIT_S)
    asked.cancel()
    await asyncio.gather(asked, return_exceptions=True)
    await router.close()


async def test_a_deadline_holds_although_the_lane_says_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("flashsd_ray.actors.router.GRACE_S", 0.01)
    router, _ = await routed(Hands(), ScriptedLane("lane-1"))
    with pytest.raises(DeadlineError, match="said nothing"):
        await asyncio.wait_for(answer(router, asking(1, timeout_s=0.05)), LIMIT_S)
    await router.close()


class SilentEncoding(Encoding):
    """Takes conversations and says nothing any more."""

    def __init__(self, encoder_id: str) -> None:
        super().__init__()
        self.encoder_id = encoder_id
        self.asked: asyncio.Queue[None] = asyncio.Queue()

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> Encoded:
        self.asked.put_nowait(None)
        return await super().encode(conversation, trace, ticket)

    async def look(self) -> None:
        await self.gate.wait()


@pytest.mark.parametrize("timeout_s", [None, 40.0])
async def test_requests_leave_a_silent_encoder_before_their_deadline(timeout_s: float | None) -> None:
    hands, lane = Hands(), ScriptedLane("lane-1")
    router, lost = await routed(hands, lane)
    other, silent = SilentEncoding("other"), SilentEncoding("silent")
    router.set_encoders([other, silent])  # the second one has the first turn
    silent.gate.clear()
    asked = asyncio.create_task(answer(router, asking(1, timeout_s=timeout_s)))
    await asyncio.wait_for(silent.asked.get(), LIMIT_S)
    await hands.turn(6.0)
    assert other.asked.empty()
    await hands.turn(10.0 if timeout_s else 30.0)
    await asyncio.wait_for(other.asked.get(), LIMIT_S)
    assert lost == ["silent"]
    await asyncio.wait_for(lane.submitted.get(), LIMIT_S)
    lane.say(said("r1", 1, ends=True))
    assert tokens_of(await asyncio.wait_for(asked, LIMIT_S)) == (1,)
    await router.close()


async def test_a_silent_encoder_gets_nothing_new_while_another_one_speaks() -> None:
    hands, lane = Hands(), ScriptedLane("lane-1")
    router, _ = await routed(hands, lane)
    silent, other = SilentEncoding("silent"), SilentEncoding("other")
    router.set_encoders([silent, other])
    silent.gate.clear()
    await hands.turn(10.0)
    for number in range(4):
        asked = asyncio.create_task(answer(router, asking(number)))
        await asyncio.wait_for(lane.submitted.get(), LIMIT_S)
        lane.say(said(f"r{number}", 1, ends=True))
        assert tokens_of(await asyncio.wait_for(asked, LIMIT_S)) == (1,)
    assert silent.asked.empty()
    await router.close()


class DeafLane(ScriptedLane):
    """Orders do not reach it."""

    async def submit(self, request: object, encoded: object) -> None:
        await super().submit(request, encoded)  # type: ignore[arg-type]
        await asyncio.Event().wait()


async def test_a_lane_that_is_lost_while_it_takes_a_request_holds_nobody() -> None:
    deaf, other = DeafLane("lane-1"), ScriptedLane("lane-2")
    router, _ = await routed(Hands(), deaf, other)
    asked = asyncio.create_task(answer(router, asking(1)))
    await asyncio.wait_for(deaf.submitted.get(), LIMIT_S)
    router.set_lanes([other])
    await asyncio.wait_for(other.submitted.get(), LIMIT_S)
    other.say(said("r1", 5, ends=True))
    assert tokens_of(await asyncio.wait_for(asked, LIMIT_S)) == (5,)
    await router.close()
