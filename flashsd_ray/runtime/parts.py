"""What runs inside Ray's actors: thin shells around the plain classes of actors/, which know nothing of Ray.

Models are imported where they are loaded: whoever only starts these actors needs no torch.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flashsd_ray.config import Config
from flashsd_ray.runtime.meters import RayMeters
from flashsd_ray.telemetry.families import store_families
from flashsd_ray.telemetry.logs import log_as
from flashsd_ray.telemetry.traces import start

if TYPE_CHECKING:
    from flashsd_ray.actors.lane_host import Feed
    from flashsd_ray.actors.service import LaneStatus, ModelCard
    from flashsd_ray.engine.local import Engine
    from flashsd_ray.engine.meters import LaneMeters
    from flashsd_ray.runtime.parcels import Parcel
    from flashsd_ray.types import CaptionRequest, Conversation


@dataclass(frozen=True, slots=True, kw_only=True)
class DrafterAddress:
    """Where a lane finds its dedicated drafter."""

    address: str  # unix:PATH or tcp:HOST:PORT
    key: bytes = field(repr=False)  # both ends prove that they have it


class LanePart:
    """A target, its drafter or the way to it, and their scheduler; one lane."""

    def __init__(self, config: Config, lane_id: str, drafter: DrafterAddress | None = None) -> None:
        """Raises CheckpointError when the target or the drafter cannot be loaded."""
        from flashsd_ray.actors.local_service import card_of, host_of
        from flashsd_ray.engine.local import Engine

        log_as(config.telemetry, lane_id)
        engine = Engine.local(config) if drafter is None else _engine_with(config, drafter)
        self._card = card_of(engine)
        self._traces = start(config.telemetry, lane_id)
        self._exported = RayMeters()
        self._host = host_of(engine, lane_id, self._traces)

    async def card(self) -> ModelCard:
        """The model that the lane decodes with."""
        return self._card

    async def feed(self, subscriber: str) -> AsyncGenerator[Feed, None]:
        """How the lane stands, then what its rounds give the subscriber's requests."""
        async for feed in self._host.feed(subscriber):
            yield feed

    async def submit(self, subscriber: str, request: CaptionRequest, parcel: Parcel, encode_s: float) -> None:
        """The request waits for a place; see LaneHost.submit for what it raises."""
        await self._host.submit(subscriber, request, parcel.unpacked(), encode_s=encode_s)

    async def cancel(self, request_id: str) -> None:
        """The request has ended and its rows are free."""
        await self._host.cancel(request_id)

    async def status(self) -> LaneStatus:
        """How busy the lane is; an answer proves that its thread still turns."""
        status = await self._host.status()
        self._exported.export_lane(self._host.lane_id, await self._host.meters(), status)
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


def _engine_with(config: Config, drafter: DrafterAddress) -> Engine:
    """An engine whose drafter is in another process."""
    from flashsd_ray.actors.drafter_front import DrafterFront
    from flashsd_ray.actors.remote_drafter import RemoteDrafter
    from flashsd_ray.engine.local import Engine, view_of
    from flashsd_ray.models.drafters import resolve
    from flashsd_ray.models.pretrained import load_configured

    target = load_configured(config.model)
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
        self._listener = DrafterHost.load(config).listen(drafter.address, drafter.key)
        self._listener.start()

    async def status(self) -> str:
        """Where the drafter listens; an answer proves that the process is there."""
        return self._listener.address


class EncoderPart:
    """A vision tower, its projector, and the requests that wait for it."""

    def __init__(self, config: Config, encoder_id: str) -> None:
        """Raises CheckpointError when the target cannot be loaded."""
        from flashsd_ray.actors.encoder_host import EncoderHost
        from flashsd_ray.actors.in_process import LocalEncoding
        from flashsd_ray.models.encoder import LocalEncoder
        from flashsd_ray.models.pretrained import load_configured
        from flashsd_ray.stores.latents import LatentCache
        from flashsd_ray.stores.store import open_store

        log_as(config.telemetry, encoder_id)
        target = load_configured(config.model)
        self.encoder_id = encoder_id
        self._traces = start(config.telemetry, encoder_id)
        self._exported = RayMeters()
        self._store = open_store(config.stores)
        cache = LatentCache(config.stores, self._store)
        self._host = EncoderHost(LocalEncoder(target, cache, config.encoding), config.encoding)
        self._encoding = LocalEncoding(self._host, traces=self._traces)

    async def encode(self, conversation: Conversation, trace: str = "") -> tuple[float, Parcel]:
        """Seconds it took, waiting included, and the encoded prompt: two results, so that only lanes fetch the second."""
        from flashsd_ray.runtime.parcels import Parcel

        encoded = await self._encoding.encode(conversation, trace)
        return encoded.encode_s, Parcel.of(encoded.prompt)

    async def status(self) -> str:
        """What is wrong with the store behind the encoder; empty when nothing is."""
        self._exported.export_encoder(self.encoder_id, self._host.status())
        self._exported.export(store_families({self.encoder_id: self._store}))
        return self._store.health()
