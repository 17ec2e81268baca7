"""The whole pipeline behind actors/service.py in this process: no Ray; placement ``local``."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace
from functools import partial

import numpy as np

from flashsd_ray.actors.encoder_host import EncoderHost
from flashsd_ray.actors.in_process import LocalEncoding, LocalLane
from flashsd_ray.actors.lane_host import BetweenRounds, LaneHost
from flashsd_ray.actors.routed_service import RoutedService
from flashsd_ray.actors.router import Router
from flashsd_ray.actors.service import ModelCard, ServiceStatus
from flashsd_ray.config import Config
from flashsd_ray.engine.local import Engine
from flashsd_ray.stores.latents import LatentCache
from flashsd_ray.stores.store import Store, open_store
from flashsd_ray.telemetry.traces import Traces
from flashsd_ray.types import Conversation, VisualInput


class LocalService(RoutedService):
    """One lane and one encoder of this process, as a CaptionService."""

    def __init__(
        self,
        engine: Engine,
        *,
        subscriber: str = "local",
        traces: Traces | None = None,
        has_encoder_thread: bool = True,  # without, pictures are encoded between two rounds of the lane
    ) -> None:
        """Must be called where an event loop runs; the engine must not be stepped by anybody else from now on."""
        self._lane = host_of(engine, "lane-0", traces)
        executor = None if has_encoder_thread else BetweenRounds(self._lane)
        self.encoder = EncoderHost(engine.encoder, engine.config.encoding, executor=executor)
        self.store: Store | None = None  # where encoded pictures are shared with other processes
        self._router = Router(card_of(engine), placement=engine.config.placement)
        self._router.set_encoders([LocalEncoding(self.encoder, traces=traces)])
        self._router.set_lanes([LocalLane(self._lane, subscriber)])

    @classmethod
    async def start(cls, config: Config, *, traces: Traces | None = None) -> LocalService:
        """The model that the config names is loaded, and requests are answered.

        Raises:
            CheckpointError: the target or the drafter cannot be loaded.
            ConfigError: a name is unknown.
        """
        store = open_store(config.stores)
        cache = LatentCache(config.stores, store)
        load = partial(Engine.local, config, visual_cache=cache)
        engine = await asyncio.get_running_loop().run_in_executor(None, load)
        service = cls(engine, traces=traces)
        service.store = store
        return service

    async def status(self) -> ServiceStatus:
        """How the service is now."""
        status = await super().status()
        complaint = self.store.health() if self.store is not None else ""
        return replace(status, degraded=(*status.degraded, complaint)) if complaint else status

    async def close(self) -> None:
        """Nothing runs any more."""
        await self._router.close()
        await self._lane.close()
        await self.encoder.close()
        if self.store is not None:
            self.store.close()


def host_of(engine: Engine, lane_id: str, traces: Traces | None = None) -> LaneHost:
    """The engine's lane in a thread of its own."""
    verifier = engine.verifier
    return LaneHost(
        engine.lane,
        lane_id=lane_id,
        free_rows=lambda: verifier.free_rows,
        total_rows=verifier.cache.max_rows,
        stream_interval_s=engine.config.scheduling.stream_interval_s,
        round_timeout_s=engine.config.placement.round_timeout_s,
        edge_timeout_s=engine.config.placement.edge_timeout_s,
        traces=traces,
    )


def card_of(engine: Engine) -> ModelCard:
    """What clients are told of the engine's model."""
    target, serving = engine.target, engine.config.serving
    return ModelCard(
        name=serving.model_name or target.name,
        family=target.family.name,
        context_length=min(target.context_length, engine.config.scheduling.cache_rows),
        max_new_tokens=engine.config.scheduling.max_new_tokens,
        fingerprint=target.fingerprint,
        drafter=engine.drafter_name,
        compressor=engine.compressor_name,
        dtype=engine.dtype,
        created_s=int(time.time()),
        num_vision_tokens=_tokens_of_a_frame(engine),
    )


def _tokens_of_a_frame(engine: Engine) -> int:
    """Visual tokens of a frame where every picture becomes as many (LLaVA 1.5); 0 where its size decides."""
    if engine.target.family.takes_video:
        return 0
    grey = VisualInput(kind="image", frames=np.full((1, 32, 32, 3), 128, np.uint8), timestamps_s=np.zeros(1))
    prompt = engine.encoder.encode(Conversation.of("", [grey]))
    return sum(segment.num_tokens for segment in prompt.segments)
