"""Asks lanes how they are, and knows since when each has said nothing."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from contextlib import suppress

from flashsd_ray.actors.service import LaneStatus
from flashsd_ray.actors.ways import LaneClient
from flashsd_ray.errors import FlashSDError
from flashsd_ray.scheduling.silence import is_quiet

SHORTEST_LOOK_S = 0.05


class LaneWatch:
    """The lanes of one router; one question to a lane is open at a time."""

    def __init__(
        self,
        period_s: float,  # between two looks
        clock: Callable[[], float],
        sleep: Callable[[float], Awaitable[None]],
        on_status: Callable[[LaneStatus], None],  # told what a lane answers
    ) -> None:
        self.period_s = max(period_s, SHORTEST_LOOK_S)
        self._clock = clock
        self._sleep = sleep
        self._on_status = on_status
        self._lanes: dict[str, LaneClient] = {}
        self._heard_s: dict[str, float] = {}
        self._looks: dict[str, asyncio.Task[None]] = {}

    def begin(self, lane: LaneClient) -> None:
        """The lane is watched; it counts as heard of now."""
        self._lanes[lane.lane_id] = lane
        self._heard_s[lane.lane_id] = self._clock()

    def end(self, lane_id: str) -> None:
        """The lane is watched no more."""
        self._lanes.pop(lane_id, None)
        self._heard_s.pop(lane_id, None)
        look = self._looks.pop(lane_id, None)
        if look is not None:
            look.cancel()

    def heard(self, lane_id: str) -> bool:
        """The lane gave a sign of life; returns whether it had been quiet."""
        was_quiet = self.is_quiet(lane_id)
        if lane_id in self._lanes:
            self._heard_s[lane_id] = self._clock()
        return was_quiet

    def silent_s(self, lane_id: str) -> float:
        """Seconds since the last sign of life."""
        return self._clock() - self._heard_s.get(lane_id, self._clock())

    def is_quiet(self, lane_id: str) -> bool:
        """Whether the lane is to be given nothing new."""
        return is_quiet(self.silent_s(lane_id), self.period_s)

    async def run(self, on_look: Callable[[], None]) -> None:
        """Every lane is asked again and again; before that, whoever draws conclusions is called."""
        while True:
            slept_s = self._clock()
            await self._sleep(self.period_s)
            if is_quiet(self._clock() - slept_s, self.period_s):
                self._heard_s = dict.fromkeys(self._lanes, self._clock())  # it was this process that stood still
            on_look()
            for lane_id, lane in self._lanes.items():
                if lane_id not in self._looks:
                    self._looks[lane_id] = asyncio.create_task(self._look(lane))

    async def _look(self, lane: LaneClient) -> None:
        with suppress(FlashSDError):  # its feed tells that it is lost
            self._on_status(await lane.status())
        if self._looks.get(lane.lane_id) is asyncio.current_task():
            del self._looks[lane.lane_id]
