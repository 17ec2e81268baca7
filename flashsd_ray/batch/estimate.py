"""How long a run would take: all rows are counted, some of them captioned here."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

from flashsd_ray.batch.captioning import Captioner
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.parcels import ReadSegment
from flashsd_ray.batch.reading import read_clip
from flashsd_ray.batch.rows import Clip, Outcome


class Rows(Protocol):
    """An input whose rows can be listed."""

    def clips(self) -> Iterator[Clip]:
        """All rows."""
        ...


@dataclass(frozen=True, slots=True)
class Sample:
    """All rows were counted, and some of them kept: each with the same probability."""

    num_rows: int
    clips: tuple[Clip, ...]


@dataclass(frozen=True, slots=True, kw_only=True)
class Estimate:
    """What a run over the whole input would take."""

    num_rows: int
    outcomes: tuple[Outcome, ...]  # of the sample
    num_sampled: int  # rows
    read_s: float  # for a row, by one task
    lane_s: float  # for a row, by one lane
    seconds: float  # for all rows, starting not counted


def sample(source: Rows, size: int, seed: int = 0) -> Sample:
    """The rows are counted one by one; ``size`` of them are kept."""
    chosen: list[Clip] = []
    draws = random.Random(seed)
    count = 0
    for count, clip in enumerate(source.clips(), start=1):
        if len(chosen) < size:
            chosen.append(clip)
        elif (place := draws.randrange(count)) < size:
            chosen[place] = clip
    return Sample(count, tuple(chosen))


def estimate(job: Job, sampled: Sample, *, num_lanes: int, num_readers: int) -> Estimate:
    """The sample's rows are captioned in this process.

    Raises:
        CheckpointError: the target or the drafter cannot be loaded.
    """
    began_s = time.perf_counter()
    segments = [segment for clip in sampled.clips for segment in read_clip(clip, job)]
    read_s = (time.perf_counter() - began_s) / max(1, len(sampled.clips))
    outcomes, answered_s = asyncio.run(_answered(job, segments)) if segments else ([], 0.0)
    lane_s = answered_s / max(1, len(sampled.clips))
    return Estimate(
        num_rows=sampled.num_rows,
        outcomes=tuple(outcomes),
        num_sampled=len(sampled.clips),
        read_s=read_s,
        lane_s=lane_s,
        seconds=sampled.num_rows * max(lane_s / num_lanes, read_s / num_readers),
    )


async def _answered(job: Job, segments: Sequence[ReadSegment]) -> tuple[list[Outcome], float]:
    from flashsd_ray.actors.local_service import LocalService
    from flashsd_ray.batch.lane import origin_of
    from flashsd_ray.engine.local import Engine

    engine = Engine.local(job.config)
    service = LocalService(engine)
    try:
        captioner = Captioner(service, job, origin_of(engine))
        began_s = time.perf_counter()
        outcomes = await captioner.answer(segments)
        return outcomes, time.perf_counter() - began_s
    finally:
        await service.close()
