"""What runs inside Ray's actors: thin shells around the plain classes of actors/, which know nothing of Ray.

Models are imported where they are loaded: whoever only starts these actors needs no torch.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from contextlib import suppress
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import ray

from flashsd_ray.config import Config
from flashsd_ray.runtime.liveness import HEALTH, LoopWatch
from flashsd_ray.runtime.meters import RayMeters
from flashsd_ray.telemetry.families import store_families
from flashsd_ray.telemetry.logs import log_as
from flashsd_ray.telemetry.traces import start
from flashsd_ray.timeouts import within

if TYPE_CHECKING:
    from flashsd_ray.actors.encoder_host import EncoderStatus
    from flashsd_ray.actors.service import LaneStatus, ModelCard
    from flashsd_ray.actors.subscription import Feed
    from flashsd_ray.engine.local import Engine
    from flashsd_ray.engine.meters import LaneMeters
    from flashsd_ray.models.pretrained import PretrainedTarget
    from flashsd_ray.runtime.gang import Gang
    from flashsd_ray.runtime.parcels import Parcel
    from flashsd_ray.types import CaptionRequest, Conversation

METERS_S = 1.0  # longest wait for a lane's totals


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterAddress:
    """Where a lane finds its dedicated drafter."""

    address: str  # unix:PATH or tcp:HOST:PORT
    key: bytes = field(repr=False)  # both ends prove that they have it


@dataclass(frozen=True, slots=True, kw_only=True)
class EncoderReport:
    """What an encoder says when it is asked how it is."""

    status: EncoderStatus
    complaint: str = ""  # of the store behind it


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterReport:
    """What a dedicated drafter says when it is asked how it is."""

    address: str
    busy_s: float  # time spent on orders so far


class LanePart:
    """A target, its drafter or the way to it, and their scheduler; one lane."""

    def __init__(
        self, config: Config, lane_id: str, drafter: DrafterAddress | None = None, gang: Gang | None = None
    ) -> None:
        """Raises CheckpointError when the target or the drafter cannot be loaded."""
        from flashsd_ray.actors.local_service import card_of, host_of
        from flashsd_ray.engine.local import Engine

        log_as(config.telemetry, lane_id)
        target = _target_of(config, gang)
        engine = Engine.around(target, config) if drafter is None else _engine_with(target, config, drafter)
        self._card = card_of(engine)
        self._traces = start(config.telemetry, lane_id)
        self._exported = RayMeters()
        self._watch = LoopWatch()
        self._host = host_of(engine, lane_id, self._traces)

    async def card(self) -> ModelCard:
        """The model that the lane decodes with."""
        return self._card

    async def feed(self, subscriber: str) -> AsyncGenerator[Feed, None]:
        """How the lane stands, then what its rounds give the subscriber's requests."""
        self._watch.here()
        async for feed in self._host.feed(subscriber):
            yield feed

    async def reserve(self, subscriber: str, request_id: str, company: int) -> None:
        """The request, under which a lane was lost, has a place that is its own."""
        await self._host.reserve(subscriber, request_id, company)

    async def submit(self, subscriber: str, request: CaptionRequest, parcel: Parcel, encode_s: float) -> None:
        """The request waits for a place; see LaneHost.submit for what it raises."""
        await self._host.submit(subscriber, request, parcel.unpacked(), encode_s=encode_s)

    async def cancel(self, request_id: str) -> None:
        """The request has ended and its rows are free."""
        await self._host.cancel(request_id)

    @ray.method(concurrency_group=HEALTH)
    async def status(self, subscriber: str = "") -> LaneStatus:
        """How busy the lane is; an answer proves that its loop turns, and that its thread does or is in a round.

        The subscriber, an edge, is known to be there.

        Raises:
            UnavailableError: the lane is closed, or its thread will not come back from its round.
        """
        await self._watch.turned()
        status = await self._host.status(subscriber)
        with suppress(asyncio.TimeoutError):  # in a long round there is nothing new to count
            meters = await within(METERS_S, self._host.meters())
            self._exported.export_lane(self._host.lane_id, meters, status)
        return status

    async def meters(self) -> LaneMeters:
        """The lane's totals."""
        return await self._host.meters()

    async def drain(self) -> None:
        """New requests are refused; those that are open go on."""
        await self._host.drain()

    async def close(self) -> None:
        """The lane's thread has ended."""
        await self._host.close()
        self._traces.close()


def _target_of(config: Config, gang: Gang | None) -> PretrainedTarget:
    """The target, which this process holds alone or leads."""
    if gang is None:
        from flashsd_ray.models.loading import load_configured

        return load_configured(config.model)
    from flashsd_ray.actors.tensor_parallel import lead_ranks

    return lead_ranks(config.model, gang.ranks, gang.host)


def _engine_with(target: PretrainedTarget, config: Config, drafter: DrafterAddress) -> Engine:
    """An engine whose drafter is in another process."""
    from flashsd_ray.actors.drafter_front import DrafterFront
    from flashsd_ray.actors.remote_drafter import RemoteDrafter
    from flashsd_ray.engine.local import Engine, view_of
    from flashsd_ray.models.drafters import resolve

    view = view_of(target)
    front = DrafterFront.load(config, view)
    remote = RemoteDrafter.at(drafter.address, drafter.key, front, config.placement)
    return Engine(
        target,
        remote,
        config,
        drafter_name=resolve(config.speculation.drafter, view),
        compressor_name=front.card.compressor,
    )


class DrafterPart:
    """A drafter in a process of its own; its lane talks to it past Ray, in tens of microseconds."""

    def __init__(self, config: Config, drafter_id: str, drafter: DrafterAddress) -> None:
        """Raises CheckpointError when the drafter cannot be loaded, UnavailableError when the address is taken."""
        from flashsd_ray.actors.drafter_host import DrafterHost

        log_as(config.telemetry, drafter_id)
        self._host = DrafterHost.load(config)
        self._listener = self._host.listen(drafter.address, drafter.key)
        self._listener.start()

    @ray.method(concurrency_group=HEALTH)
    async def status(self) -> DrafterReport:
        """Where the drafter listens, and how busy it is; an answer proves that the process is there."""
        return DrafterReport(address=self._listener.address, busy_s=self._host.busy_s)


class EncoderPart:
    """A vision tower, its projector, and the requests that wait for it."""

    def __init__(self, config: Config, encoder_id: str) -> None:
        """Raises CheckpointError when the target cannot be loaded."""
        from flashsd_ray.actors.encoder_host import EncoderHost
        from flashsd_ray.actors.in_process import LocalEncoding
        from flashsd_ray.models.encoder import LocalEncoder
        from flashsd_ray.models.loading import load_undecoding
        from flashsd_ray.stores.latents import LatentCache
        from flashsd_ray.stores.store import open_store

        log_as(config.telemetry, encoder_id)
        target = load_undecoding(config.model)
        self.encoder_id = encoder_id
        self._traces = start(config.telemetry, encoder_id)
        self._exported = RayMeters()
        self._store = open_store(config.stores)
        cache = LatentCache(config.stores, self._store)
        self._host = EncoderHost(LocalEncoder(target, cache, config.encoding), config.encoding)
        self._encoding = LocalEncoding(self._host, traces=self._traces)
        self._watch = LoopWatch()

    async def reserve(self, ticket: str) -> None:
        """The next turn belongs to the conversation that comes with this ticket."""
        self._watch.here()
        await self._encoding.reserve(ticket)

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> tuple[float, Parcel]:
        """Seconds it took, waiting included, and the encoded prompt: two results, so that only lanes fetch the second."""
        from flashsd_ray.runtime.parcels import Parcel

        self._watch.here()
        encoded = await self._encoding.encode(conversation, trace, ticket)
        return encoded.encode_s, Parcel.of(encoded.prompt)

    @ray.method(concurrency_group=HEALTH)
    async def status(self) -> EncoderReport:
        """How busy the encoder is, and what is wrong with the store behind it; an answer proves that its loop turns."""
        await self._watch.turned()
        status = self._host.status()
        self._exported.export_encoder(self.encoder_id, status)
        self._exported.export(store_families({self.encoder_id: self._store}))
        return EncoderReport(status=status, complaint=self._store.health())
