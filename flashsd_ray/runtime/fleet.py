"""Starts lanes, encoders and drafters where there is room for them, watches over them, and replaces what is lost."""

from __future__ import annotations

import asyncio
import logging
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from flashsd_ray.actors.service import ModelCard
from flashsd_ray.config import Config, PlacementConfig
from flashsd_ray.errors import FlashSDError, UnavailableError
from flashsd_ray.runtime.clients import errors_of
from flashsd_ray.runtime.parts import EncoderPart, LanePart

log = logging.getLogger(__name__)

POLL_S = 20.0  # a question for a newer roster is answered after so long even when nothing changed


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roster:
    """Who is there."""

    version: int
    card: ModelCard | None = None  # None until the first lane is up
    lanes: tuple[tuple[str, Any], ...] = ()  # name and actor handle
    encoders: tuple[tuple[str, Any], ...] = ()
    degraded: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class _Member:
    """A part that was started."""

    name: str
    handle: Any
    group: PlacementGroup


class Fleet:
    """Owns every actor of the pipeline; they end with it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lanes: dict[str, _Member] = {}
        self._encoders: dict[str, _Member] = {}
        self._roster = Roster(version=0)
        self._changed = asyncio.Event()
        self._num_started = 0
        self._failures: dict[str, str] = {}
        self._keeper: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """The parts are being started; the roster fills as they come up."""
        if self._keeper is None:
            self._keeper = asyncio.create_task(self._keep())

    async def roster(self, known_version: int = -1) -> Roster:
        """The roster as soon as it is newer than the known one, or after a while as it is."""
        await self.start()
        if self._roster.version <= known_version:
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._changed.wait(), POLL_S)
        return self._roster

    async def replace(self, lane_id: str) -> None:
        """A lane that somebody could not reach is looked after now, not at the next round of health checks."""
        if lane_id in self._lanes:
            await self._check(self._lanes, lane_id)

    async def close(self) -> None:
        """Every actor has ended and its place is free."""
        if self._keeper is not None:
            self._keeper.cancel()
            await asyncio.gather(self._keeper, return_exceptions=True)
        for members in (self._lanes, self._encoders):
            for member in list(members.values()):
                self._end(members, member)

    async def _keep(self) -> None:
        placement = self._config.placement
        while True:
            missing_lanes = placement.num_lanes - len(self._lanes)
            missing_encoders = max(1, placement.num_encoders) - len(self._encoders)
            starts = [self._start_encoder() for _ in range(missing_encoders)]
            starts += [self._start_lane() for _ in range(missing_lanes)]
            await asyncio.gather(*starts)
            await asyncio.sleep(placement.health_period_s)
            checks = [self._check(self._lanes, name) for name in list(self._lanes)]
            checks += [self._check(self._encoders, name) for name in list(self._encoders)]
            await asyncio.gather(*checks)

    async def _start_lane(self) -> None:
        placement = self._config.placement
        bundle = _bundle(placement.lane_cpus, placement.lane_gpus)
        member = await self._start("lane", LanePart, bundle)
        if member is not None:
            self._lanes[member.name] = member
            self._publish(self._roster.card or await member.handle.card.remote())

    async def _start_encoder(self) -> None:
        placement = self._config.placement
        bundle = _bundle(placement.encoder_cpus, placement.encoder_gpus)
        member = await self._start("encoder", EncoderPart, bundle)
        if member is not None:
            self._encoders[member.name] = member
            self._publish(self._roster.card)

    async def _start(self, kind: str, part: type, bundle: dict[str, float]) -> _Member | None:
        """A new member that answers; None, and the reason in the roster, when it does not come up."""
        name = f"{kind}-{self._num_started}"
        self._num_started += 1
        group = placement_group([bundle], strategy="PACK", name=f"flashsd-{name}")
        try:
            await asyncio.wait_for(group.ready(), self._config.placement.start_timeout_s)
            strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
            handle = (
                ray.remote(part)
                .options(
                    num_cpus=bundle.get("CPU", 0),
                    num_gpus=bundle.get("GPU", 0),
                    scheduling_strategy=strategy,
                    max_concurrency=1000,
                )
                .remote(self._config, name)
            )
            with errors_of(name):
                await asyncio.wait_for(handle.status.remote(), self._config.placement.start_timeout_s)
        except (FlashSDError, asyncio.TimeoutError) as error:
            remove_placement_group(group)
            reason = str(error) or f"did not start within placement.start_timeout_s ({bundle})"
            log.error("%s: %s", name, reason)
            self._failures[kind] = f"a {kind} cannot be started: {reason}"
            self._publish(self._roster.card)
            return None
        self._failures.pop(kind, None)
        return _Member(name, handle, group)

    async def _check(self, members: dict[str, _Member], name: str) -> None:
        """A member that is dead, or silent for too long, is out of the roster and its place is free."""
        member, placement = members[name], self._config.placement
        try:
            with errors_of(name):
                await asyncio.wait_for(member.handle.status.remote(), placement.health_timeout_s)
        except (UnavailableError, asyncio.TimeoutError) as error:
            if members.get(name) is member:
                log.warning("%s is replaced: %s", name, error or "it hangs")
                self._end(members, member)
                self._publish(self._roster.card)

    def _end(self, members: dict[str, _Member], member: _Member) -> None:
        members.pop(member.name, None)
        ray.kill(member.handle)
        remove_placement_group(member.group)

    def _publish(self, card: ModelCard | None) -> None:
        wanted = self._config.placement
        missing = []
        if len(self._lanes) < wanted.num_lanes and self._roster.version:
            missing.append(f"{len(self._lanes)} of {wanted.num_lanes} lanes are up")
        self._roster = Roster(
            version=self._roster.version + 1,
            card=card,
            lanes=tuple((member.name, member.handle) for member in self._lanes.values()),
            encoders=tuple((member.name, member.handle) for member in self._encoders.values()),
            degraded=(*missing, *self._failures.values()),
        )
        self._changed.set()
        self._changed = asyncio.Event()


def _bundle(cpus: float, gpus: float) -> dict[str, float]:
    # A bundle must hold something: a part that is said to need nothing gets a sliver.
    wanted = {"CPU": cpus, "GPU": gpus}
    return {key: value for key, value in wanted.items() if value > 0} or {"CPU": 0.01}


def cpus_needed(placement: PlacementConfig) -> float:
    """CPUs that the whole fleet reserves."""
    lane = placement.lane_cpus + (placement.drafter_cpus if placement.kind == "dedicated" else 0.0)
    return placement.num_lanes * lane + max(1, placement.num_encoders) * placement.encoder_cpus
