"""A lane as a worker of Ray Data: one engine, kept full by the parcels of several calls at once."""

from __future__ import annotations

import hashlib
import logging
import os
import time
import uuid
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from flashsd_ray.batch.captioning import Captioner, Origin
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.parcels import ReadSegment, head_of, outcomes_json, packed, segments_in, with_problem
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.config import Config
from flashsd_ray.errors import UnavailableError
from flashsd_ray.telemetry.logs import log_as

if TYPE_CHECKING:
    from flashsd_ray.engine.local import Engine

log = logging.getLogger(__name__)

BEYOND_HELP = 70  # exit status
IMAGES_PER_FORWARD = 16  # of two clips; 32 would gain 0.6 ms a clip more, where there are four
KERNEL_CACHES = ("ONEDNN_PRIMITIVE_CACHE_CAPACITY", "LRU_CACHE_CAPACITY")  # oneDNN's own, and torch's before it


class LaneWorker:
    """Answers parcels; calls that overlap share the lane's rounds."""

    def __init__(self, job: Job) -> None:
        """Raises CheckpointError when the target or the drafter cannot be loaded."""
        for name in KERNEL_CACHES:  # read when torch is loaded, which is now
            os.environ.setdefault(name, str(job.config.batch.prepared_products))
        from flashsd_ray.engine.local import Engine
        from flashsd_ray.models.visual_cache import MemoryVisualCache

        self._worker_id = uuid.uuid4().hex[:8]
        log_as(job.config.telemetry, f"lane-{self._worker_id}")
        self._job = job
        config = for_many_requests(job.config)
        self._engine = Engine.local(config, visual_cache=MemoryVisualCache(config.batch.latent_bytes))
        self._captioner: Captioner | None = None
        self._cpu_before_s = 0.0  # that this process had used before its first request

    async def __call__(self, row: pa.Table) -> pa.Table:
        """The parcel with its outcomes."""
        head = head_of(row)
        if not head.unit_id or head.notes:
            return row
        try:
            outcomes = await self.answer(segments_in(row))
        except Exception as error:
            log.exception("a parcel cannot be answered")
            return with_problem(head, "a lane cannot answer", error)
        return packed(replace(head, notes=self._notes()), outcomes_json(outcomes))

    async def answer(self, segments: Sequence[ReadSegment]) -> list[Outcome]:
        """The outcomes of all segments; a lane that is beyond help takes its process with it, so that another comes."""
        try:
            return await self._ready().answer(segments)
        except UnavailableError:
            log.exception("the lane is beyond help")
            os._exit(BEYOND_HELP)

    def _ready(self) -> Captioner:
        # Not before: the service wants the event loop of the calls.
        if self._captioner is None:
            from flashsd_ray.actors.local_service import LocalService

            service = LocalService(
                self._engine, has_encoder_thread=has_core_to_spare(self._job.config, self._engine.device)
            )
            self._cpu_before_s = time.process_time()
            self._captioner = Captioner(service, self._job, origin_of(self._engine))
        return self._captioner

    def _notes(self) -> dict[str, Any]:
        clock = self._ready().clock
        return {
            "lane": self._worker_id,
            "began_s": clock.began_s,
            "busy_s": clock.busy_s,
            "idle_s": clock.idle_s,
            "cpu_s": time.process_time() - self._cpu_before_s,
        }


def for_many_requests(config: Config) -> Config:
    """What is left open is chosen for a lane that always has many requests."""
    model, encoding = config.model, config.encoding
    return replace(
        config,
        model=replace(model, attention="model" if model.attention == "auto" else model.attention),
        encoding=replace(encoding, images_per_forward=encoding.images_per_forward or IMAGES_PER_FORWARD),
    )


def has_core_to_spare(config: Config, device: str, num_cores: int | None = None) -> bool:
    """Whether a lane on this machine has a second core, beside those of the other lanes, for encoding pictures."""
    num_lanes = max(config.placement.num_lanes, config.batch.max_lanes)
    return device != "cpu" or 2 * num_lanes <= (num_cores or os.cpu_count() or 1)


def origin_of(engine: Engine) -> Origin:
    """Who answers."""
    return Origin(
        model=engine.target.name,
        model_fingerprint=engine.target.fingerprint,
        drafter=engine.drafter_name,
        drafter_fingerprint=_fingerprint(engine.drafter),
    )


def _fingerprint(drafter: object) -> str:
    """Short digest of a sample of the drafter's weights; empty where it has none."""
    network: Any = getattr(drafter, "network", None)
    if network is None:
        return ""
    digest = hashlib.blake2b(digest_size=8)
    for name, weight in sorted(network.state_dict().items()):
        sample = weight.detach().flatten()[:: max(1, weight.numel() // 256)].float().cpu().numpy()
        digest.update(name.encode())
        digest.update(sample.tobytes())
    return digest.hexdigest()
