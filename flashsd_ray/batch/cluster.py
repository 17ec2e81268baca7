"""Ray for a run: one of our own on this machine, or a cluster that is there already."""

from __future__ import annotations

import logging
import math
import os
from collections.abc import Iterator
from contextlib import contextmanager

import ray

from flashsd_ray.config import Config
from flashsd_ray.errors import ConfigError
from flashsd_ray.ray_environment import prepare_ray_environment


@contextmanager
def connected(config: Config, address: str | None = None) -> Iterator[None]:
    """Inside the block Ray can be used; a Ray of our own ends with it, and with this process however that ends.

    Raises:
        ConfigError: no cluster answers at the address, or Ray cannot be started.
    """
    is_debugging = config.telemetry.log_level == "debug"
    level = logging.DEBUG if is_debugging else logging.ERROR
    prepare_ray_environment()
    try:
        if address is None:
            ray.init(
                address="local",
                num_cpus=max(os.cpu_count() or 1, cpus_needed(config)),
                include_dashboard=False,
                logging_level=level,
                log_to_driver=is_debugging,
            )
        else:
            ray.init(address=address, logging_level=level, log_to_driver=is_debugging)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"Ray cannot be reached or started: {error}") from error
    logging.getLogger("ray.data").setLevel(level)
    try:
        yield
    finally:
        ray.shutdown()


def cpus_needed(config: Config) -> int:
    """CPUs without which lanes and one task that reads clips would not run side by side."""
    lanes = config.placement.num_lanes * config.model.tensor_parallel
    return math.ceil(lanes * config.placement.lane_cpus + config.batch.decode_cpus)
