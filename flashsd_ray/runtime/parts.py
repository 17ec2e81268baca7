"""What runs inside Ray's actors: thin shells around the plain classes of actors/, which know nothing of Ray."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from dataclasses import asdict
from time import perf_counter
from typing import Any

from flashsd_ray.actors.encoder_host import EncoderHost
from flashsd_ray.actors.lane_host import Feed
from flashsd_ray.actors.local_service import card_of, host_of
from flashsd_ray.actors.service import LaneStatus, ModelCard
from flashsd_ray.config import Config
from flashsd_ray.engine.local import Engine
from flashsd_ray.models.encoder import LocalEncoder
from flashsd_ray.models.pretrained import load_target
from flashsd_ray.runtime.parcels import Parcel
from flashsd_ray.types import CaptionRequest, Conversation


class LanePart:
    """A target, its drafter and their scheduler; one lane."""

    def __init__(self, config: Config, lane_id: str) -> None:
        """Raises CheckpointError when the target or the drafter cannot be loaded."""
        self._engine = Engine.local(config)
        self._host = host_of(self._engine, lane_id)

    async def card(self) -> ModelCard:
        """The model that the lane decodes with."""
        return card_of(self._engine)

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
        return await self._host.status()

    async def meters(self) -> dict[str, Any]:
        """The lane's totals by name."""
        return asdict(await self._host.meters())

    async def drain(self) -> None:
        """New requests are refused; those that are open go on."""
        await self._host.drain()

    async def close(self) -> None:
        """The lane's thread has ended."""
        await self._host.close()


class EncoderPart:
    """A vision tower, its projector, and the requests that wait for it."""

    def __init__(self, config: Config, encoder_id: str) -> None:
        """Raises CheckpointError when the target cannot be loaded."""
        model = config.model
        target = load_target(model.name, dtype=model.dtype, device=model.device)
        target.limit_threads(model.threads)
        self.encoder_id = encoder_id
        self._host = EncoderHost(LocalEncoder(target), config.encoding)

    async def encode(self, conversation: Conversation) -> tuple[float, Parcel]:
        """Seconds it took, waiting included, and the encoded prompt: two results, so that only lanes fetch the second."""
        began_s = perf_counter()
        prompt = await self._host.encode(conversation)
        return perf_counter() - began_s, Parcel.of(prompt)

    async def status(self) -> Any:
        """How busy the encoder is."""
        return self._host.status()
