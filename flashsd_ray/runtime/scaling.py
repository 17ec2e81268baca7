"""How many parts of each kind a fleet shall have: fixed, or as the load asks for."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from flashsd_ray.config import Config
from flashsd_ray.runtime.load import Load
from flashsd_ray.scheduling.autoscaling import Inputs, Params, Plan, State, plan

log = logging.getLogger(__name__)


@dataclass(slots=True, eq=False)
class Scaling:
    """The number of one kind of part that is wanted, and how it came about."""

    role: str
    wanted: int
    params: Params | None  # None: the number is fixed
    clock: Callable[[], float] = time.monotonic
    ups: int = 0
    downs: int = 0
    reason: str = ""
    state: State = field(init=False)

    def __post_init__(self) -> None:
        """The first part is started whatever the load: it tells what model there is."""
        self.state = State(desired=self.wanted)

    @property
    def least(self) -> int:
        """Fewer than these is a loss."""
        return self.wanted if self.params is None else min(self.wanted, self.params.min_replicas)

    def follow(self, load: Load) -> Plan | None:
        """The number follows the load; returns what was decided, None when everything stays as it is."""
        if self.params is None:
            return None
        inputs = Inputs(now_s=self.clock(), signals=load.signals, is_urgent=load.is_urgent)
        decided, self.state = plan(inputs, self.state, self.params)
        if decided.direction == "none":
            return None
        self.ups += decided.direction == "up"
        self.downs += decided.direction == "down"
        self.reason = decided.reason
        numbers = f"from {self.wanted} to {decided.desired}"
        log.info(
            "%ss scale %s %s: %s, a load of %.2f", self.role, decided.direction, numbers, decided.reason, decided.load
        )
        self.wanted = decided.desired
        return decided


def lane_scaling(config: Config) -> Scaling:
    """How many lanes are wanted."""
    limits = config.autoscaling
    return _scaling("lane", config, limits.min_lanes, limits.max_lanes, config.placement.num_lanes)


def encoder_scaling(config: Config) -> Scaling:
    """How many encoders are wanted."""
    limits = config.autoscaling
    return _scaling("encoder", config, limits.min_encoders, limits.max_encoders, config.placement.num_encoders)


def params_of(config: Config, least: int, most: int) -> Params:
    """How a kind of part with these bounds scales."""
    limits = config.autoscaling
    return Params(
        min_replicas=least,
        max_replicas=most,
        upscale_delay_s=limits.upscale_delay_s,
        downscale_delay_s=limits.downscale_delay_s,
        downscale_to_zero_delay_s=limits.downscale_to_zero_delay_s,
        smoothing_s=limits.smoothing_s,
        tolerance=limits.tolerance,
    )


def _scaling(role: str, config: Config, least: int, most: int, fixed: int) -> Scaling:
    if not most:
        return Scaling(role, fixed, None)
    return Scaling(role, max(1, least), params_of(config, least, most))
