"""A real fleet behind a real HTTP edge on this machine: loads whose work and processor time are counted."""

from __future__ import annotations

import asyncio
import multiprocessing
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from functools import reduce
from statistics import fmean
from time import perf_counter
from typing import Any

from flashsd_ray.actors.metered_service import MeteredService
from flashsd_ray.bench.scaling.cpu import Clock, machine_s
from flashsd_ray.bench.scaling.fit import Counted
from flashsd_ray.bench.serving.asks import Ask
from flashsd_ray.bench.serving.fleets import service_of
from flashsd_ray.bench.serving.generator import LoadGenerator
from flashsd_ray.bench.serving.load import Load
from flashsd_ray.config import Config
from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.errors import UnavailableError
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.serving.http.app import build_app
from flashsd_ray.serving.http.server import start as start_http
from flashsd_ray.serving.protection import Gatekeeper
from flashsd_ray.telemetry.metrics import EdgeMeters

LOOK_S = 0.2


@dataclass(frozen=True, slots=True, kw_only=True)
class Step:
    """One load: so many users, each of whom asks again when an answer has ended."""

    users: int
    new_tokens: int
    requests: int


class LiveService:
    """A fleet with an edge in this process, and clients in another one."""

    def __init__(self, service: FleetService, url: str, generator: LoadGenerator, config: Config) -> None:
        self._service = service
        self._url = url
        self._generator = generator
        self._config = config
        clients = [child.pid for child in multiprocessing.active_children() if child.pid is not None]
        self._clock = Clock(clients)

    async def idle(self, seconds: float) -> dict[str, float]:
        """Processor time that each part uses in a second without requests."""
        before, began_s = self._clock.read(), perf_counter()
        await asyncio.sleep(seconds)
        passed_s = perf_counter() - began_s
        return {part: used / passed_s for part, used in self._clock.during(before).items()}

    async def carry_out(self, step: Step, asks: Sequence[Ask], draft_length: int) -> Counted:
        """What the load came to; the questions are asked again and again.

        Raises:
            UnavailableError: a request was not answered.
        """
        chosen = tuple(_asked(asks[number % len(asks)], number, step, draft_length) for number in range(step.requests))
        load = Load(edge="http", address=self._url, asks=chosen, concurrency=step.users)
        meters = await self._meters()
        before, machine_before_s, began_s = self._clock.read(), machine_s(), perf_counter()
        outcomes = await asyncio.to_thread(self._generator.run, load)
        cpu_s = self._clock.during(before)
        others_s = machine_s() - machine_before_s - sum(cpu_s.values())
        passed_s = perf_counter() - began_s
        lost = next((one for one in outcomes if not one.is_answered), None)
        if lost is not None:
            raise UnavailableError(f"a request was not answered: {lost.code} {lost.detail}")
        seconds = max(one.end_s for one in outcomes) - min(one.start_s for one in outcomes)
        work = _difference(await self._meters(), meters)
        return Counted(
            users=step.users,
            lanes=self._config.placement.num_lanes,
            new_tokens=step.new_tokens,
            seconds=seconds,
            answer_s=fmean(one.whole_s for one in outcomes),
            requests=step.requests,
            tokens=sum(one.num_tokens for one in outcomes),
            rounds=work.rounds,
            rows=work.verified_rows,
            prompt_rows=work.prompt_tokens - work.cached_prompt_tokens,
            chunks=work.verified_rows - work.draft_tokens,
            frames=step.requests * self._config.media.num_frames,
            survival=_survival(work, step.requests, draft_length),
            cpu_s=cpu_s,
            rounds_s=work.stage_s.get("decode", 0.0),
            others_cores=max(0.0, others_s / passed_s),
        )

    async def _meters(self) -> LaneMeters:
        return reduce(_sum, (await self._service.meters()).values(), LaneMeters())


@asynccontextmanager
async def live(config: Config, generator: LoadGenerator) -> AsyncIterator[LiveService]:
    """All lanes of the configuration answer; after the block they have ended.

    Raises:
        UnavailableError: not all of them came up.
    """
    async with service_of(config) as service:
        await _all_lanes(service, config)
        metered = MeteredService(service, EdgeMeters(), "http")
        edge = await start_http(build_app(metered, config, Gatekeeper(config.serving)), config)
        try:
            yield LiveService(service, f"http://127.0.0.1:{edge.port}/v1", generator, config)
        finally:
            await edge.stop()


async def _all_lanes(service: FleetService, config: Config) -> None:
    placement, waited_s = config.placement, 0.0
    while len((await service.status()).lanes) < placement.num_lanes or not (await service.status()).is_ready:
        if waited_s > placement.start_timeout_s:
            raise UnavailableError(f"fewer than {placement.num_lanes} lanes came up within placement.start_timeout_s")
        await asyncio.sleep(LOOK_S)
        waited_s += LOOK_S


def _asked(ask: Ask, number: int, step: Step, draft_length: int) -> Ask:
    """All answers have the same length: where one ends does not depend on the model's mood."""
    sampling = replace(ask.sampling, max_new_tokens=step.new_tokens, ignore_eos=True)
    return replace(ask, name=f"{ask.name}, {number}", sampling=sampling, draft_length=draft_length)


def _survival(work: LaneMeters, num_requests: int, draft_length: int) -> tuple[float, ...]:
    num_blocks = max(1, work.verified_rows - work.draft_tokens - num_requests)  # those of prefills have no drafts
    return tuple(min(1.0, count / num_blocks) for count in work.accepted_per_position[:draft_length])


def _each(one: LaneMeters, other: LaneMeters, combine: Callable[[Any, Any], Any]) -> LaneMeters:
    length = max(len(one.accepted_per_position), len(other.accepted_per_position))
    padded = [[*each.accepted_per_position, *[0] * length][:length] for each in (one, other)]
    found = LaneMeters(accepted_per_position=[combine(*pair) for pair in zip(*padded, strict=True)])
    for name in ("rounds", "verified_rows", "draft_tokens", "new_tokens", "prompt_tokens", "cached_prompt_tokens"):
        setattr(found, name, combine(getattr(one, name), getattr(other, name)))
    stages = {*one.stage_s, *other.stage_s}
    found.stage_s = {stage: combine(one.stage_s.get(stage, 0.0), other.stage_s.get(stage, 0.0)) for stage in stages}
    return found


def _sum(one: LaneMeters, other: LaneMeters) -> LaneMeters:
    return _each(one, other, lambda mine, theirs: mine + theirs)


def _difference(later: LaneMeters, earlier: LaneMeters) -> LaneMeters:
    return _each(later, earlier, lambda after, before: after - before)
