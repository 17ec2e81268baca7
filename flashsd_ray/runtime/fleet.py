"""Keeps as many lanes and encoders as are wanted: starts what is missing, replaces what is lost, retires what is too many.

How a part is started is in starting.py, how many are wanted in scaling.py, what they carry in load.py.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Coroutine, Mapping
from contextlib import suppress
from dataclasses import replace
from itertools import chain
from typing import Any, TypeVar

from flashsd_ray.actors.quarantine import Quarantine
from flashsd_ray.actors.service import ModelCard, RoleScale
from flashsd_ray.config import Config
from flashsd_ray.errors import CheckpointError, ConfigError, FlashSDError, UnavailableError
from flashsd_ray.runtime.draining import drained, farewell, rested, stopped
from flashsd_ray.runtime.gang import look_at_gang
from flashsd_ray.runtime.load import LoadMeter
from flashsd_ray.runtime.members import Member, look_at
from flashsd_ray.runtime.roster import Roster
from flashsd_ray.runtime.scaling import encoder_scaling, lane_scaling
from flashsd_ray.runtime.starting import Kinds, LaneMember, Starter
from flashsd_ray.timeouts import within

log = logging.getLogger(__name__)

AGAIN_S = 5.0  # between two attempts to start a part that cannot be started
POLL_S = 2.0  # a question for a newer roster is answered after so long even when nothing changed: Serve waits for it


M = TypeVar("M", bound=Member)


class Fleet:
    """Owns every actor of the pipeline; they end with it."""

    def __init__(self, config: Config, kinds: Kinds | None = None) -> None:
        self._config = config
        self._starter = Starter(config, kinds)
        self._load = LoadMeter(config)
        self._quarantine = Quarantine(config.placement.quarantine_s, time.monotonic)
        self._lane_scaling, self._encoder_scaling = lane_scaling(config), encoder_scaling(config)
        self._lanes: dict[str, LaneMember] = {}
        self._encoders: dict[str, Member] = {}
        self._retiring: dict[str, asyncio.Task[None]] = {}  # by part: it takes nothing new, and ends
        self._card: ModelCard | None = None
        self._failure: FlashSDError | None = None
        self._roster = Roster(version=0)
        self._changed = asyncio.Event()
        self._is_urgent = asyncio.Event()  # the next look at everything is now
        self._is_asked_for = asyncio.Event()  # the next look at the load is now
        self._num_started = 0
        self._complaints: dict[str, str] = {}  # by part
        self._tasks: list[asyncio.Task[None]] = []
        self._starting: defaultdict[str, list[asyncio.Task[None]]] = defaultdict(list)  # by kind of part

    async def start(self) -> None:
        """The parts are being started; the roster fills as they come up."""
        if not self._tasks:
            self._tasks = [asyncio.create_task(self._keep()), asyncio.create_task(self._follow_load())]

    async def roster(self, known_version: int = -1) -> Roster:
        """The roster as soon as it is newer than the known one, or after a while as it is."""
        await self.start()
        if self._roster.version <= known_version:
            with suppress(asyncio.TimeoutError):
                await within(POLL_S, self._changed.wait())
        return replace(self._roster, quarantined=self._quarantine.left_s())

    async def report(self, edge: str, num_open: int) -> None:
        """An edge has so many open requests; where nobody is there for them, somebody is started now."""
        self._load.report(edge, num_open)
        if num_open and not (self._lane_scaling.wanted and self._encoder_scaling.wanted):
            self._is_asked_for.set()

    async def quarantine(self, key: str) -> None:
        """Every edge refuses requests with this fingerprint, which one of them found to be a poison."""
        self._quarantine.learn({key: self._config.placement.quarantine_s})
        self._publish()

    async def parts(self) -> dict[str, Any]:
        """Every actor that runs now, by its name: for whoever wants to look at one, or to take it away."""
        drafters = [lane.drafting.member for lane in self._lanes.values() if lane.drafting is not None]
        ranks = chain.from_iterable(lane.ranks for lane in self._lanes.values())
        members = chain(self._lanes.values(), self._encoders.values(), drafters, ranks)
        return {member.name: member.handle for member in members}

    @property
    def scales(self) -> tuple[RoleScale, ...]:
        """How many lanes and encoders there are, and should be."""
        roles = ((self._lane_scaling, self._lanes), (self._encoder_scaling, self._encoders))
        return tuple(
            RoleScale(
                role=scaling.role,
                desired=scaling.wanted,
                actual=sum(name not in self._retiring for name in members),
                starting=len(self._starting[scaling.role]),
                draining=sum(name in self._retiring for name in members),
                ups=scaling.ups,
                downs=scaling.downs,
                reason=scaling.reason,
            )
            for scaling, members in roles
        )

    async def replace(self, name: str) -> None:
        """A lane or an encoder that somebody could not reach is looked after now, not with the next health checks."""
        if name in self._lanes:
            await self._check_lane(name)
        elif name in self._encoders:
            await self._check_encoder(name)
        self._is_urgent.set()

    async def close(self, drain_s: float = 0.0) -> None:
        """Lanes have finished what was open, or used up the time for it; every actor has ended and its place is free."""
        ending = [*self._tasks, *self._retiring.values(), *chain(*self._starting.values())]
        for task in ending:
            task.cancel()
        await asyncio.gather(*ending, return_exceptions=True)
        if drain_s > 0:
            with suppress(asyncio.TimeoutError):
                await within(drain_s, asyncio.gather(*map(drained, self._lanes.values())))
        for name in [*self._lanes, *self._encoders]:
            self._end(name)

    async def _keep(self) -> None:
        """As many parts as are wanted, all of them alive, as far as that can be had."""
        while True:
            # Not awaited: one that waits for room must not keep the others from being looked after.
            self._match("encoder", self._encoders, self._encoder_scaling.wanted)
            self._match("lane", self._lanes, self._lane_scaling.wanted)
            self._is_urgent.clear()
            with suppress(asyncio.TimeoutError):
                await within(self._config.placement.health_period_s, self._is_urgent.wait())
            checks = [self._check_lane(lane_id) for lane_id in list(self._lanes)]
            checks += [self._check_encoder(encoder_id) for encoder_id in list(self._encoders)]
            for outcome in await asyncio.gather(*checks, return_exceptions=True):
                if isinstance(outcome, Exception):
                    log.error("a look at a part failed", exc_info=outcome)

    async def _follow_load(self) -> None:
        """The numbers that are wanted follow the load."""
        if self._lane_scaling.params is None and self._encoder_scaling.params is None:
            return
        while True:
            self._is_asked_for.clear()
            with suppress(asyncio.TimeoutError):
                await within(self._config.autoscaling.interval_s, self._is_asked_for.wait())
            if self._card is None:  # until then nobody can ask, and the first lane is not to be given up as idle
                continue
            try:
                decided = [
                    self._lane_scaling.follow(await self._load.lanes(list(self._lanes.values()), self._retiring)),
                    self._encoder_scaling.follow(await self._load.encoders(self._staying(self._encoders))),
                ]
            except Exception:
                log.exception("the load could not be told")
                continue
            if any(decided):
                self._publish()
                self._is_urgent.set()

    def _match(self, kind: str, members: Mapping[str, Member], wanted: int) -> None:
        """What is missing is being started; of what is too many, starts are given up first, then the idlest retire."""
        staying = self._staying(members)
        missing = wanted - len(staying) - len(self._starting[kind])
        for _ in range(missing):
            self._begin(kind, self._start_lane if kind == "lane" else self._start_encoder)
        given_up = self._starting[kind][max(0, len(self._starting[kind]) + min(0, missing)) :]
        for task in given_up:
            task.cancel()
        idlest = sorted(staying, key=lambda member: self._load.num_open(member.name))
        for member in idlest[: max(0, -missing - len(given_up))]:
            self._retire(member)

    def _staying(self, members: Mapping[str, M]) -> list[M]:
        return [member for member in members.values() if member.name not in self._retiring]

    def _retire(self, member: Member) -> None:
        task = asyncio.create_task(self._retired(member))
        self._retiring[member.name] = task
        task.add_done_callback(lambda _: self._retiring.pop(member.name, None))

    async def _retired(self, member: Member) -> None:
        """The part has finished what it had, or its time for that is over, and it has ended."""
        if isinstance(member, LaneMember):
            await stopped(member)
        self._publish()
        finishing = drained(member) if isinstance(member, LaneMember) else rested(member)
        with suppress(asyncio.TimeoutError):
            await within(self._config.autoscaling.drain_timeout_s, finishing)
        self._lanes.pop(member.name, None)
        self._encoders.pop(member.name, None)
        self._complaints.pop(f"drafter of {member.name}", None)
        self._publish()
        try:
            await farewell()
        finally:
            member.remove()

    def _begin(self, kind: str, start: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.create_task(self._guarded(kind, start()))
        self._starting[kind].append(task)

        def ended(task: asyncio.Task[None]) -> None:
            self._starting[kind].remove(task)
            self._publish()

        task.add_done_callback(ended)

    async def _guarded(self, kind: str, starting: Coroutine[Any, Any, None]) -> None:
        """A part that cannot be started is a complaint, and another attempt some time later."""
        try:
            await starting
            self._complain(kind, "")
            return
        except (CheckpointError, ConfigError) as error:
            log.error("a %s cannot be started: %s", kind, error)
            self._failure = None if self._card else error  # it would fail everywhere and always
            self._complain(kind, f"a {kind} cannot be started: {error}")
        except UnavailableError as error:
            log.error("a %s cannot be started: %s", kind, error)
            self._complain(kind, f"a {kind} cannot be started: {error}")
        except Exception:
            log.exception("a %s cannot be started", kind)
            self._complain(kind, f"a {kind} cannot be started; the log of the fleet says why")
        await asyncio.sleep(AGAIN_S)  # what failed at once will fail at once again

    async def _start_lane(self) -> None:
        lane = await self._starter.lane(self._new_name("lane"))
        self._card = self._card or await lane.handle.card.remote()
        self._failure = None
        self._lanes[lane.name] = lane
        self._publish()

    async def _start_encoder(self) -> None:
        encoder = await self._starter.encoder(self._new_name("encoder"))
        self._encoders[encoder.name] = encoder
        self._publish()

    async def _check_lane(self, lane_id: str) -> None:
        """A lane that is dead, or silent for too long, is out of the roster and its place is free."""
        member = self._lanes[lane_id]
        look = await look_at_gang(member, member.ranks, self._config.placement.health_timeout_s)
        if self._lanes.get(lane_id) is not member:
            return
        if look.lives:
            await self._check_drafter(member)
            return
        log.warning("%s is replaced: %s", lane_id, look.loss)
        self._end(lane_id)
        self._publish()

    async def _check_encoder(self, encoder_id: str) -> None:
        member = self._encoders[encoder_id]
        look = await look_at(member, self._config.placement.health_timeout_s)
        if look.lives:
            self._complain("store", look.answer.complaint)
        elif self._encoders.get(encoder_id) is member:
            log.warning("%s is replaced: %s", encoder_id, look.loss)
            self._end(encoder_id)
            self._publish()

    async def _check_drafter(self, lane: LaneMember) -> None:
        """A drafter that is lost is started again in its place; its lane decodes plainly until then."""
        drafting, about = lane.drafting, f"drafter of {lane.name}"
        if drafting is None:
            return
        look = await look_at(drafting.member, self._config.placement.health_timeout_s)
        if look.lives or self._lanes.get(lane.name) is not lane:
            self._complain(about, "")
            return
        log.warning("the %s is replaced: %s", about, look.loss)
        self._complain(about, f"{lane.name} decodes without drafts until its drafter is back")
        if not self._starting[about]:
            drafting.member.kill()
            self._begin(about, lambda: self._starter.drafter_again(drafting))

    def _end(self, name: str) -> None:
        """The part has ended, and nothing is said of it any more."""
        member = self._lanes.pop(name, None) or self._encoders.pop(name, None)
        if member is not None:
            member.remove()
        self._complaints.pop(f"drafter of {name}", None)

    def _new_name(self, kind: str) -> str:
        self._num_started += 1
        return f"{kind}-{self._num_started}"

    def _complain(self, part: str, sentence: str) -> None:
        if self._complaints.get(part, "") != sentence:
            self._complaints[part] = sentence
            self._publish()

    def _publish(self) -> None:
        least, present = self._lane_scaling.least, len(self._lanes)
        missing = [f"{present} of {least} lanes are up"] if self._card and present < least else []
        self._roster = Roster(
            version=self._roster.version + 1,
            card=self._card,
            lanes=tuple((member.name, member.handle) for member in self._lanes.values()),
            encoders=tuple((member.name, member.handle) for member in self._staying(self._encoders)),
            draining=frozenset(self._retiring),
            starts_on_demand=not (self._lane_scaling.least and self._encoder_scaling.least),
            scales=self.scales,
            degraded=(*missing, *filter(None, self._complaints.values())),
            failure=self._failure,
        )
        self._changed.set()
        self._changed = asyncio.Event()
