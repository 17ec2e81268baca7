"""Starts lanes, encoders and drafters where there is room for them, watches over them, and replaces what is lost."""

from __future__ import annotations

import asyncio
import logging
import secrets
import tempfile
from collections import Counter
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import ray

from flashsd_ray.actors.service import LaneStatus, ModelCard
from flashsd_ray.config import Config, PlacementConfig
from flashsd_ray.errors import FlashSDError, UnavailableError
from flashsd_ray.runtime.clients import errors_of
from flashsd_ray.runtime.members import Member, bundle, is_alive, launch, nodes_of, reserve
from flashsd_ray.runtime.parts import DrafterAddress, DrafterPart, EncoderPart, LanePart

log = logging.getLogger(__name__)

DRAIN_LOOK_S = 0.1
AGAIN_S = 5.0  # between two attempts to start a part that cannot be started
POLL_S = 2.0  # a question for a newer roster is answered after so long even when nothing changed: Serve waits for it


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class Roster:
    """Who is there."""

    version: int
    card: ModelCard | None = None  # None until the first lane is up
    lanes: tuple[tuple[str, Any], ...] = ()  # name and actor handle
    encoders: tuple[tuple[str, Any], ...] = ()
    degraded: tuple[str, ...] = ()


@dataclass(slots=True, eq=False)
class _Drafting:
    """The dedicated drafter of a lane."""

    member: Member
    address: DrafterAddress


class Fleet:
    """Owns every actor of the pipeline; they end with it."""

    def __init__(self, config: Config) -> None:
        self._config = config
        self._lanes: dict[str, Member] = {}
        self._encoders: dict[str, Member] = {}
        self._drafters: dict[str, _Drafting] = {}  # by the name of their lane
        self._card: ModelCard | None = None
        self._roster = Roster(version=0)
        self._changed = asyncio.Event()
        self._is_urgent = asyncio.Event()  # something was lost: the next look at everything is now
        self._num_started = 0
        self._complaints: dict[str, str] = {}  # by part
        self._keeper: asyncio.Task[None] | None = None
        self._starting: Counter[str] = Counter()
        self._starts: set[asyncio.Task[None]] = set()

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

    async def parts(self) -> dict[str, Any]:
        """Every actor that runs now, by its name: for whoever wants to look at one, or to take it away."""
        members = [*self._lanes.values(), *self._encoders.values(), *(one.member for one in self._drafters.values())]
        return {member.name: member.handle for member in members}

    async def replace(self, name: str) -> None:
        """A lane or an encoder that somebody could not reach is looked after now, not with the next health checks."""
        if name in self._lanes:
            await self._check_lane(name)
        elif name in self._encoders:
            await self._check_encoder(name)
        self._is_urgent.set()

    async def close(self, drain_s: float = 0.0) -> None:
        """Lanes have finished what was open, or used up the time for it; every actor has ended and its place is free."""
        ending = [*self._starts, *([self._keeper] if self._keeper is not None else [])]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        with suppress(asyncio.TimeoutError):
            await asyncio.wait_for(asyncio.gather(*map(_drained, self._lanes.values())), drain_s)
        for lane_id in list(self._lanes):
            self._end_lane(lane_id)
        for encoder_id in list(self._encoders):
            self._encoders.pop(encoder_id).remove()

    async def _keep(self) -> None:
        placement = self._config.placement
        while True:
            # Not awaited: one that waits for room must not keep the others from being looked after.
            for _ in range(placement.num_encoders - len(self._encoders) - self._starting["encoder"]):
                self._begin("encoder", self._start_encoder)
            for _ in range(placement.num_lanes - len(self._lanes) - self._starting["lane"]):
                self._begin("lane", self._start_lane)
            self._is_urgent.clear()
            with suppress(asyncio.TimeoutError):
                await asyncio.wait_for(self._is_urgent.wait(), placement.health_period_s)
            checks = [self._check_lane(lane_id) for lane_id in list(self._lanes)]
            checks += [self._check_encoder(encoder_id) for encoder_id in list(self._encoders)]
            checks += [self._check_drafter(lane_id) for lane_id in list(self._drafters)]
            for outcome in await asyncio.gather(*checks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("a look at a part failed", exc_info=outcome)

    def _begin(self, kind: str, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        self._starting[kind] += 1
        task = asyncio.create_task(self._guarded(kind, start()))
        self._starts.add(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._starts.discard(task)
            self._starting[kind] -= 1

        task.add_done_callback(ended)

    async def _guarded(self, kind: str, starting: Any) -> None:
        """A part that cannot be started is a complaint, and another attempt some time later."""
        try:
            await starting
            self._complain(kind, "")
            return
        except UnavailableError as error:
            log.error("a %s cannot be started: %s", kind, error)
            self._complain(kind, f"a {kind} cannot be started: {error}")
        except Exception:
            log.exception("a %s cannot be started", kind)
            self._complain(kind, f"a {kind} cannot be started; the log of the fleet says why")
        await asyncio.sleep(AGAIN_S)  # what failed at once will fail at once again

    async def _start_lane(self) -> None:
        placement, name = self._config.placement, self._new_name("lane")
        resources = bundle(placement.lane_cpus, placement.lane_gpus)
        is_dedicated = placement.kind == "dedicated"
        bundles = [resources, bundle(placement.drafter_cpus, placement.drafter_gpus)] if is_dedicated else [resources]
        group = await reserve(name, bundles, placement.start_timeout_s)
        member = Member(name, None, group)
        try:
            drafting = await self._start_drafter(member, bundles[1]) if is_dedicated else None
            arguments = (self._config, name, drafting.address if drafting else None)
            member = await launch(LanePart, name, group, 0, resources, arguments, placement.start_timeout_s)
            self._card = self._card or await member.handle.card.remote()
        except BaseException:
            ray.util.remove_placement_group(group)  # with whatever runs in it
            raise
        self._lanes[name] = member
        if drafting is not None:
            self._drafters[name] = drafting
        self._publish()

    async def _start_drafter(self, lane: Member, resources: dict[str, float]) -> _Drafting:
        address = DrafterAddress(address=_address_for(lane), key=secrets.token_bytes(32))
        name = f"drafter-of-{lane.name}"
        arguments = (self._config, name, address)
        timeout_s = self._config.placement.start_timeout_s
        member = await launch(DrafterPart, name, lane.group, 1, resources, arguments, timeout_s)
        # Where it listens on another node, the port is known only now.
        where = await member.handle.status.remote()
        return _Drafting(member, DrafterAddress(address=where, key=address.key))

    async def _start_encoder(self) -> None:
        placement, name = self._config.placement, self._new_name("encoder")
        resources = bundle(placement.encoder_cpus, placement.encoder_gpus)
        group = await reserve(name, [resources], placement.start_timeout_s)
        arguments = (self._config, name)
        try:
            member = await launch(EncoderPart, name, group, 0, resources, arguments, placement.start_timeout_s)
        except BaseException:
            ray.util.remove_placement_group(group)
            raise
        self._encoders[name] = member
        self._publish()

    async def _check_lane(self, lane_id: str) -> None:
        """A lane that is dead, or silent for too long, is out of the roster and its place is free."""
        member = self._lanes[lane_id]
        lives, reason = await is_alive(member, self._config.placement.health_timeout_s)
        if not lives and self._lanes.get(lane_id) is member:
            log.warning("%s is replaced: %s", lane_id, reason)
            self._end_lane(lane_id)
            self._publish()

    async def _check_encoder(self, encoder_id: str) -> None:
        member = self._encoders[encoder_id]
        lives, complaint = await is_alive(member, self._config.placement.health_timeout_s)
        if lives:
            self._complain("store", complaint)
        elif self._encoders.get(encoder_id) is member:
            log.warning("%s is replaced: %s", encoder_id, complaint)
            self._encoders.pop(encoder_id).remove()
            self._publish()

    async def _check_drafter(self, lane_id: str) -> None:
        """A drafter that is lost is started again in its place; its lane decodes plainly until then."""
        drafting, placement = self._drafters[lane_id], self._config.placement
        lives, reason = await is_alive(drafting.member, placement.health_timeout_s)
        if lives or self._drafters.get(lane_id) is not drafting:
            self._complain(f"drafter of {lane_id}", "")
            return
        log.warning("the drafter of %s is replaced: %s", lane_id, reason)
        self._complain(f"drafter of {lane_id}", f"{lane_id} decodes without drafts until its drafter is back")
        if not self._starting[f"drafter of {lane_id}"]:
            drafting.member.kill()
            self._begin(f"drafter of {lane_id}", partial(self._restart_drafter, drafting))

    async def _restart_drafter(self, drafting: _Drafting) -> None:
        placement, lost = self._config.placement, drafting.member
        resources = bundle(placement.drafter_cpus, placement.drafter_gpus)
        arguments = (self._config, lost.name, drafting.address)
        timeout_s = placement.start_timeout_s
        drafting.member = await launch(DrafterPart, lost.name, lost.group, 1, resources, arguments, timeout_s)

    def _end_lane(self, lane_id: str) -> None:
        drafting = self._drafters.pop(lane_id, None)
        if drafting is not None:
            drafting.member.kill()
        self._lanes.pop(lane_id).remove()
        self._complaints.pop(f"drafter of {lane_id}", None)

    def _new_name(self, kind: str) -> str:
        self._num_started += 1
        return f"{kind}-{self._num_started}"

    def _complain(self, part: str, sentence: str) -> None:
        if self._complaints.get(part, "") != sentence:
            self._complaints[part] = sentence
            self._publish()

    def _publish(self) -> None:
        wanted = self._config.placement.num_lanes
        missing = [f"{len(self._lanes)} of {wanted} lanes are up"] if self._card and len(self._lanes) < wanted else []
        self._roster = Roster(
            version=self._roster.version + 1,
            card=self._card,
            lanes=tuple((member.name, member.handle) for member in self._lanes.values()),
            encoders=tuple((member.name, member.handle) for member in self._encoders.values()),
            degraded=(*missing, *filter(None, self._complaints.values())),
        )
        self._changed.set()
        self._changed = asyncio.Event()


async def _drained(lane: Member) -> None:
    """The lane takes no new requests, and has finished those that it had."""
    with suppress(FlashSDError), errors_of(lane.name):
        await lane.handle.drain.remote()
        while True:
            status: LaneStatus = await lane.handle.status.remote()
            if status.num_running + status.num_waiting == 0:
                return
            await asyncio.sleep(DRAIN_LOOK_S)


def _address_for(lane: Member) -> str:
    """A socket file where lane and drafter share a node, else a port of the drafter's node."""
    lane_node, drafter_node = nodes_of(lane.group)
    if lane_node == drafter_node:
        return f"unix:{Path(tempfile.gettempdir()) / f'flashsd-{secrets.token_hex(8)}.sock'}"
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    host = next(node["NodeManagerAddress"] for node in nodes if node["NodeID"] == drafter_node)
    return f"tcp:{host}:0"


def cpus_needed(placement: PlacementConfig) -> float:
    """CPUs that the whole fleet reserves."""
    lane = placement.lane_cpus + (placement.drafter_cpus if placement.kind == "dedicated" else 0.0)
    return placement.num_lanes * lane + placement.num_encoders * placement.encoder_cpus
