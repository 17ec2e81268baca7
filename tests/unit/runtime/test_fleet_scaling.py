"""A fleet brings its parts to the numbers that are wanted. No Ray runs here, and time is the test's."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from typing import Any

import pytest

from flashsd_ray.actors.encoder_host import EncoderStatus
from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.config import AutoscalingConfig, Config, PlacementConfig
from flashsd_ray.errors import CheckpointError
from flashsd_ray.runtime import draining, fleet, gang, load
from flashsd_ray.runtime.fleet import Fleet
from flashsd_ray.runtime.members import Look, Member
from flashsd_ray.runtime.parts import EncoderReport
from flashsd_ray.runtime.starting import LaneMember
from tests.fake_service import CARD

LIMIT_S = 5.0
CONFIG = Config(
    placement=PlacementConfig(health_period_s=0.01),
    autoscaling=AutoscalingConfig(
        min_lanes=0,
        max_lanes=3,
        max_encoders=2,
        target_requests_per_lane=2,
        upscale_delay_s=0,
        smoothing_s=0,
        downscale_delay_s=0,
        downscale_to_zero_delay_s=0,
        interval_s=0.01,
    ),
)


class Remote:
    def __init__(self, call: Callable[..., Any]) -> None:
        self._call = call

    async def remote(self, *arguments: Any) -> Any:
        return self._call(*arguments)


class FakePart:
    """Stands for the actor of a lane or an encoder."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.num_running = 0
        self.num_waiting_frames = 0
        self.is_draining = False
        self.status, self.drain, self.card = Remote(self._status), Remote(self._drain), Remote(lambda: CARD)

    def _status(self) -> LaneStatus | EncoderReport:
        if self.name.startswith("lane"):
            return LaneStatus(lane_id=self.name, num_running=self.num_running, is_draining=self.is_draining)
        frames = self.num_waiting_frames
        status = EncoderStatus(
            num_waiting=frames, num_waiting_frames=frames, num_running=0, num_frames=0, num_cached_frames=0, busy_s=0.0
        )
        return EncoderReport(status=status)

    def _drain(self) -> None:
        self.is_draining = True


class Cluster:
    """Starts parts at once, or when it is told to."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.parts: dict[str, FakePart] = {}
        self.ended: list[str] = []
        self.has_room = asyncio.Event()
        self.has_room.set()
        self.failure: Exception | None = None
        monkeypatch.setattr(fleet, "Starter", lambda *_: self)
        monkeypatch.setattr(fleet, "look_at", self._look_at)
        monkeypatch.setattr(gang, "look_at", self._look_at)
        monkeypatch.setattr(load, "look_at", self._look_at)
        monkeypatch.setattr(draining, "FAREWELL_S", 0.0)
        monkeypatch.setattr(draining, "LOOK_S", 0.01)
        monkeypatch.setattr(Member, "remove", lambda member: self.ended.append(member.name))
        monkeypatch.setattr(LaneMember, "remove", lambda member: self.ended.append(member.name))

    async def lane(self, name: str) -> LaneMember:
        return LaneMember(name, await self._part(name), None)  # type: ignore[arg-type]

    async def encoder(self, name: str) -> Member:
        return Member(name, await self._part(name), None)  # type: ignore[arg-type]

    async def _part(self, name: str) -> FakePart:
        await self.has_room.wait()
        if self.failure is not None:
            raise self.failure
        self.parts[name] = FakePart(name)
        return self.parts[name]

    async def _look_at(self, member: Member, timeout_s: float) -> Look:
        await asyncio.sleep(0)
        return Look(await member.handle.status.remote())


@pytest.fixture
async def cluster(monkeypatch: pytest.MonkeyPatch) -> Cluster:
    return Cluster(monkeypatch)


@pytest.fixture
async def running(cluster: Cluster) -> AsyncIterator[Fleet]:
    running = Fleet(CONFIG)
    await running.start()
    yield running
    await running.close()


async def until(holds: Callable[[], bool]) -> None:
    async def watching() -> None:
        while not holds():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.005)

    await asyncio.wait_for(watching(), LIMIT_S)


def names(running: Fleet) -> set[str]:
    return {name for name, _ in running._roster.lanes}


async def test_lanes_follow_the_requests_up_and_down_to_none(running: Fleet) -> None:
    await until(lambda: running._roster.card is not None and not names(running))
    assert running._roster.starts_on_demand
    await running.report("edge", 5)
    await until(lambda: len(names(running)) == 3)
    await running.report("edge", 3)
    await until(lambda: len(names(running)) == 2)
    await running.report("edge", 0)
    await until(lambda: not names(running))
    lanes, encoders = running._roster.scales
    assert (lanes.desired, lanes.actual, lanes.draining) == (0, 0, 0)
    assert lanes.ups >= 1
    assert lanes.downs >= 3
    assert encoders.desired == 1


async def test_the_first_lane_is_waited_for_although_nobody_asks(cluster: Cluster) -> None:
    cluster.has_room.clear()
    running = Fleet(CONFIG)
    await running.start()
    await until(lambda: running.scales[0].starting == 1)
    await asyncio.sleep(10 * CONFIG.autoscaling.interval_s)
    assert running.scales[0].starting == 1
    cluster.has_room.set()
    await until(lambda: running._roster.card is not None)
    await running.close()


async def test_a_lane_that_goes_finishes_what_it_has_while_nothing_new_comes(running: Fleet, cluster: Cluster) -> None:
    await running.report("edge", 6)
    await until(lambda: len(names(running)) == 3)
    lanes = [cluster.parts[name] for name in sorted(names(running))]
    for number, lane in enumerate(lanes, start=1):
        lane.num_running = number
    await running.report("edge", 0)  # only what lanes themselves say counts, which is 6: nothing changes
    lanes[2].num_running = 1
    await until(lambda: bool(running._roster.draining))
    (leaving,) = running._roster.draining
    assert leaving in {lanes[0].name, lanes[2].name}, "one of the idlest"
    assert cluster.parts[leaving].is_draining
    assert leaving in names(running), "its answers must still be heard"
    assert leaving not in cluster.ended
    cluster.parts[leaving].num_running = 0
    await until(lambda: leaving in cluster.ended)
    assert leaving not in names(running)


async def test_one_that_does_not_finish_ends_when_its_time_is_over(cluster: Cluster) -> None:
    limits = replace(CONFIG.autoscaling, drain_timeout_s=0.05)
    running = Fleet(replace(CONFIG, autoscaling=limits))
    await running.start()
    await until(lambda: len(names(running)) == 1)
    await running.report("edge", 3)
    await until(lambda: len(names(running)) == 2)
    for part in cluster.parts.values():
        part.num_running = 1
    await running.report("edge", 0)
    await until(lambda: len(names(running)) == 1)
    assert len(cluster.ended) == 1
    await running.close()


async def test_starts_that_are_not_needed_any_more_are_given_up(running: Fleet, cluster: Cluster) -> None:
    await until(lambda: running._roster.card is not None and not names(running))
    cluster.has_room.clear()  # no node is there yet
    await running.report("edge", 6)
    await until(lambda: running.scales[0].starting == 3)
    await running.report("edge", 0)
    await until(lambda: running.scales[0].starting == 0)
    cluster.has_room.set()
    assert not names(running)


async def test_encoders_follow_the_frames_that_wait(running: Fleet, cluster: Cluster) -> None:
    await until(lambda: len(running._roster.encoders) == 1)
    first = next(part for name, part in cluster.parts.items() if name.startswith("encoder"))
    first.num_waiting_frames = 100
    await until(lambda: len(running._roster.encoders) == 2)
    first.num_waiting_frames = 0
    await until(lambda: len(running._roster.encoders) == 1)
    assert running._roster.scales[1].reason in ("idle", "requests")


async def test_what_no_node_can_load_ends_the_waiting_for_a_first_lane(cluster: Cluster) -> None:
    cluster.failure = CheckpointError("no such model")
    running = Fleet(CONFIG)
    roster = await running.roster()
    while roster.failure is None:
        roster = await asyncio.wait_for(running.roster(roster.version), LIMIT_S)
    assert roster.failure is cluster.failure
    await running.close()
