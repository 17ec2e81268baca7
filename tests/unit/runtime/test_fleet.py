"""The fleet's keeper goes on whatever happens, and edges keep following it. No Ray runs here."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from ray.exceptions import RaySystemError
from ray.serve._private.common import DeploymentID
from ray.serve.exceptions import DeploymentUnavailableError

from flashsd_ray.actors.encoder_host import EncoderStatus
from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.actors.subscription import Feed
from flashsd_ray.config import Config, PlacementConfig
from flashsd_ray.errors import UnavailableError
from flashsd_ray.runtime import clients, fleet, gang, starting
from flashsd_ray.runtime.fleet import Fleet
from flashsd_ray.runtime.members import Look, Member
from flashsd_ray.runtime.parts import DrafterAddress, EncoderReport
from flashsd_ray.runtime.roster import Roster
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.runtime.starting import Drafting, LaneMember
from tests.fake_service import CARD

CONFIG = Config(placement=PlacementConfig(num_lanes=2, health_period_s=0.01))
LIMIT_S = 3.0
IDLE = EncoderStatus(num_waiting=0, num_waiting_frames=0, num_running=0, num_frames=0, num_cached_frames=0, busy_s=0.0)


class FakeMember(Member):
    def __init__(self, name: str) -> None:
        super().__init__(name, None, None)  # type: ignore[arg-type]

    def kill(self) -> None:
        pass

    def remove(self) -> None:
        pass


async def until(holds: Callable[[], bool]) -> None:
    async def watching() -> None:
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)

    await asyncio.wait_for(watching(), LIMIT_S)


class Cluster:
    """Stands for Ray under a fleet."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dead: set[str] = set()
        self.without_room: set[str] = set()  # kinds
        self.started: list[str] = []
        monkeypatch.setattr(starting, "reserve", self.reserve)
        monkeypatch.setattr(starting, "launch", self.launch)
        monkeypatch.setattr(starting, "remove_placement_group", lambda group: None)
        monkeypatch.setattr(fleet, "look_at", self.look_at)
        monkeypatch.setattr(gang, "look_at", self.look_at)
        monkeypatch.setattr(LaneMember, "remove", lambda member: None)

    async def reserve(self, name: str, *_: Any) -> str:
        if name.split("-")[0] in self.without_room:
            await asyncio.sleep(300)
        return name

    async def launch(self, part: type, name: str, *_: Any) -> Member:
        self.started.append(name)
        member = FakeMember(name)
        member.handle = self
        return member

    async def look_at(self, member: Member, timeout_s: float) -> Look:
        await asyncio.sleep(0)
        if member.name in self.dead:
            return Look(loss="dead")
        return Look(EncoderReport(status=IDLE) if member.name.startswith("encoder") else None)

    @property
    def card(self) -> Any:
        return self

    async def remote(self) -> Any:
        return CARD


async def test_a_lane_without_room_holds_up_nobody_else(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    running = Fleet(CONFIG)
    await running.start()
    try:
        await until(lambda: len(running._roster.lanes) == 2 and len(running._roster.encoders) == 1)
        # A node is lost: a lane that finds no room any more, then the encoder, for which there is room.
        cluster.without_room.add("lane")
        (lane, _), ((encoder, _),) = running._roster.lanes[0], running._roster.encoders
        cluster.dead.add(lane)
        await running.replace(lane)
        await until(lambda: len(running._roster.lanes) == 1)
        await asyncio.sleep(0.05)  # its successor is being started
        cluster.dead.add(encoder)
        await running.replace(encoder)
        await until(lambda: [name for name, _ in running._roster.encoders] not in ([], [encoder]))
    finally:
        await running.close()


async def test_the_keeper_outlives_a_part_that_goes_between_two_looks(monkeypatch: pytest.MonkeyPatch) -> None:
    Cluster(monkeypatch)
    running = Fleet(CONFIG)
    await running.start()
    try:
        await until(lambda: len(running._roster.lanes) == 2)
        gather = asyncio.gather

        def gathering(*works: Any, **options: Any) -> Any:
            if works and works[0].__name__ == "_check_lane" and running._lanes:
                running._end(next(iter(running._lanes)))  # as an edge's `replace` does that ends just now
                monkeypatch.setattr(fleet.asyncio, "gather", gather)
            return gather(*works, **options)

        monkeypatch.setattr(fleet.asyncio, "gather", gathering)
        await until(lambda: len(running._lanes) < 2)
        await until(lambda: len(running._lanes) == 2)
    finally:
        monkeypatch.setattr(fleet.asyncio, "gather", gather)
        await running.close()


@pytest.mark.parametrize("ticks", range(6))
async def test_a_fleet_that_is_asked_to_look_while_it_is_closed_is_closed(
    ticks: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    Cluster(monkeypatch)
    running = Fleet(replace(CONFIG, placement=PlacementConfig(num_lanes=1, health_period_s=1.0)))
    await running.start()
    await until(lambda: len(running._roster.lanes) == 1 and len(running._roster.encoders) == 1)
    await running.replace("lane-of-yesterday")  # an edge could not reach it
    for _ in range(ticks):
        await asyncio.sleep(0)
    await asyncio.wait_for(running.close(), LIMIT_S)
    assert not running._lanes


async def test_complaints_about_a_drafter_end_with_its_lane(monkeypatch: pytest.MonkeyPatch) -> None:
    cluster = Cluster(monkeypatch)
    running = Fleet(CONFIG)
    running._card = CARD
    drafting = Drafting(FakeMember("drafter-of-lane-1"), DrafterAddress(address="unix:x", key=b""))
    running._lanes["lane-1"] = lane = LaneMember("lane-1", None, None, drafting)  # type: ignore[arg-type]
    cluster.dead |= {"lane-1", "drafter-of-lane-1"}

    async def launch(*_: Any) -> Member:
        raise UnavailableError("no room")

    monkeypatch.setattr(starting, "launch", launch)
    await running._check_drafter(lane)
    await running._check_lane("lane-1")
    running._publish()
    assert not [sentence for sentence in running._roster.degraded if "decodes without drafts" in sentence]


class Remote:
    def __init__(self, call: Callable[..., Any]) -> None:
        self.remote = call

    def options(self, **_: Any) -> Remote:
        return self


class FakeFleet:
    """A handle of a fleet, scripted; the last roster stays."""

    def __init__(self, *answers: Roster | Exception) -> None:
        self._answers = list(answers)
        self.roster, self.replace, self.report = Remote(self._roster), Remote(self._replace), Remote(self._report)
        self.replaced: list[str] = []

    async def _roster(self, known_version: int) -> Roster:
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, Exception):
            raise answer
        await asyncio.sleep(0.01)
        return answer

    async def _report(self, edge: str, num_open: int) -> None:
        return

    async def _replace(self, name: str) -> None:
        self.replaced.append(name)


async def test_an_edge_goes_on_following_after_an_error_of_serve() -> None:
    first = Roster(version=1, card=CARD)
    away = DeploymentUnavailableError(DeploymentID(name="Fleet"))
    service = await FleetService.connect(
        FakeFleet(first, away, replace(first, version=2, degraded=("new",))), timeout_s=5
    )
    try:
        await until(lambda: service._router.degraded == ("new",))
    finally:
        await service.close()


class FakeLane:
    """A handle of a lane that lives although its first feed breaks off."""

    def __init__(self) -> None:
        self.num_feeds = 0
        self.feed = Remote(self._feed)

    async def _feed(self, subscriber: str) -> Any:
        self.num_feeds += 1
        is_first = self.num_feeds == 1

        async def status() -> Feed:
            return Feed(chunks=(), status=LaneStatus(lane_id="lane-1"))

        yield status()
        if is_first:
            raise RaySystemError("an object was lost")
        await asyncio.Event().wait()


async def test_a_lane_that_lives_is_listened_to_again_when_its_feed_broke(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(clients.ray, "cancel", lambda stream: None)
    lane = FakeLane()
    there = FakeFleet(Roster(version=1, card=CARD, lanes=(("lane-1", lane),)))
    service = await FleetService.connect(there, timeout_s=5)
    try:
        await until(lambda: there.replaced == ["lane-1"])
        # The fleet finds the lane alive, so its roster stays as it is.
        await until(lambda: lane.num_feeds == 2)
    finally:
        await service.close()
