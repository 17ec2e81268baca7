"""Fleets of lanes in one Ray of this process, so that they can be measured in turn."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from dataclasses import replace
from typing import Any

import ray

from flashsd_ray.config import Config
from flashsd_ray.ray_environment import prepare_ray_environment
from flashsd_ray.runtime.fleet import Fleet
from flashsd_ray.runtime.service import FleetService
from flashsd_ray.runtime.starting import cpus_needed

LITTLE_CPUS = 0.1  # reserved for each part: the fleets take turns, and Ray only counts


@contextmanager
def ray_for(configs: Sequence[Config]) -> Iterator[None]:
    """A Ray with room for a fleet of each configuration."""
    prepare_ray_environment()
    num_cpus = max(os.cpu_count() or 1, math.ceil(sum(cpus_needed(config) for config in configs)))
    ray.init(num_cpus=num_cpus, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)
    try:
        yield
    finally:
        ray.shutdown()


def with_little_room(config: Config) -> Config:
    """The same, reserving next to nothing."""
    placement = replace(config.placement, lane_cpus=LITTLE_CPUS, encoder_cpus=LITTLE_CPUS, drafter_cpus=LITTLE_CPUS)
    return replace(config, placement=placement)


@asynccontextmanager
async def service_of(config: Config) -> AsyncIterator[FleetService]:
    """What an edge has of a fleet with this configuration; after the block its actors have ended.

    Raises:
        UnavailableError: no lane came up; the message says why.
    """
    fleet: Any = ray.remote(Fleet).options(num_cpus=0, max_concurrency=100).remote(config)
    try:
        service = await FleetService.connect(fleet, timeout_s=config.placement.start_timeout_s)
        try:
            yield service
        finally:
            await service.close()
    finally:
        await fleet.close.remote()
        ray.kill(fleet)
