"""What the parts of a fleet carry, as signals for scheduling/autoscaling.py."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Container, Sequence
from dataclasses import dataclass
from typing import Any

from flashsd_ray.actors.encoder_host import EncoderStatus
from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.config import Config
from flashsd_ray.runtime.members import Member, look_at
from flashsd_ray.runtime.starting import LaneMember
from flashsd_ray.scheduling.autoscaling import Signal

UNREPORTED_S = 10.0  # an edge that is silent for so long has no requests any more


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What one kind of part carries together."""

    signals: tuple[Signal, ...]
    is_urgent: bool = False


def lane_load(
    statuses: Sequence[LaneStatus],
    num_open: int,  # requests as edges count them: on their way to a lane, waiting for one to come up, or in one
    drafter_share: float,  # time that dedicated drafters are busy over time that passes, summed
    config: Config,
) -> Load:
    """What lanes carry: requests, rows of the KV cache, work for their drafters."""
    limits = config.autoscaling
    target = limits.target_requests_per_lane or 0.75 * config.scheduling.max_running
    requests = max(num_open, sum(map(_num_requests, statuses)))
    shares = (1 - status.free_rows / status.total_rows for status in statuses if status.total_rows)
    signals = (
        Signal("requests", requests, target),
        Signal("cache rows", sum(shares), limits.target_cache_share),
        Signal("drafter busy", drafter_share, limits.target_busy_share),
    )
    # Every lane must be late: one that is crowded because of a prefix is no lack of lanes.
    waits = [status.wait_s if status.num_waiting else 0.0 for status in statuses]
    return Load(signals=signals, is_urgent=bool(waits) and min(waits) > limits.max_queue_wait_s)


def encoder_load(
    statuses: Sequence[EncoderStatus],
    num_open: int,  # requests as edges count them
    busy_share: float,  # time that encoders are busy over time that passes, summed
    config: Config,
) -> Load:
    """What encoders carry: frames that wait, time that they are busy, and at least one request where there is any."""
    limits = config.autoscaling
    frames = sum(status.num_waiting_frames for status in statuses)
    signals = (
        Signal("frames", frames, limits.target_frames_per_encoder),
        Signal("encoder busy", busy_share, limits.target_busy_share),
        Signal("requests", min(num_open, 1), 1.0),
    )
    return Load(signals=signals)


class LoadMeter:
    """Asks the parts of a fleet what they carry."""

    def __init__(self, config: Config, clock: Callable[[], float] = time.monotonic) -> None:
        self._config = config
        self._clock = clock
        self._busy = BusyShares()
        self._reports: dict[str, tuple[float, int]] = {}  # by edge: when it said so, and how many
        self._open: dict[str, int] = {}  # requests by lane

    def report(self, edge: str, num_open: int) -> None:
        """An edge has so many open requests."""
        self._reports[edge] = (self._clock(), num_open)

    def num_open(self, lane_id: str) -> int:
        """Requests of a lane when it was asked last."""
        return self._open.get(lane_id, 0)

    async def lanes(self, members: Sequence[LaneMember], retiring: Container[str]) -> Load:
        """What these lanes carry; the requests of those that retire are nobody else's."""
        statuses: list[LaneStatus] = [status for status in await self._statuses(members) if status is not None]
        self._open = {status.lane_id: _num_requests(status) for status in statuses}
        staying = [status for status in statuses if status.lane_id not in retiring]
        num_leaving = sum(map(_num_requests, statuses)) - sum(map(_num_requests, staying))
        drafting = await self._drafter_share([lane for lane in members if lane.name not in retiring])
        return lane_load(staying, self._num_open() - num_leaving, drafting, self._config)

    async def encoders(self, members: Sequence[Member]) -> Load:
        """What these encoders carry."""
        reports = zip(members, await self._statuses(members), strict=True)
        statuses = {member.name: report.status for member, report in reports if report is not None}
        now_s = self._clock()
        busy = sum(self._busy.share(name, status.busy_s, now_s) for name, status in statuses.items())
        return encoder_load(list(statuses.values()), self._num_open(), busy, self._config)

    async def _statuses(self, members: Sequence[Member]) -> list[Any]:
        timeout_s = self._config.placement.health_timeout_s
        looks = await asyncio.gather(*(look_at(member, timeout_s) for member in members))
        return [look.answer for look in looks]  # None of one that does not answer: health checks see to it

    async def _drafter_share(self, lanes: Sequence[LaneMember]) -> float:
        drafters = [lane.drafting.member for lane in lanes if lane.drafting is not None]
        reports = zip(drafters, await self._statuses(drafters), strict=True)
        now_s = self._clock()
        return sum(self._busy.share(member.name, report.busy_s, now_s) for member, report in reports if report)

    def _num_open(self) -> int:
        now_s = self._clock()
        self._reports = {edge: one for edge, one in self._reports.items() if now_s - one[0] < UNREPORTED_S}
        return sum(count for _, count in self._reports.values())


def _num_requests(status: LaneStatus) -> int:
    return status.num_running + status.num_waiting


class BusyShares:
    """From totals of busy seconds to the share of the time since one was told last."""

    def __init__(self) -> None:
        self._before: dict[str, tuple[float, float]] = {}

    def share(self, name: str, busy_s: float, now_s: float) -> float:
        """The share in 0..1; 0 for a name that is new."""
        before_s, before_busy_s = self._before.get(name, (now_s, busy_s))
        self._before[name] = (now_s, busy_s)
        passed_s = now_s - before_s
        return min(1.0, max(0.0, busy_s - before_busy_s) / passed_s) if passed_s > 0 else 0.0
