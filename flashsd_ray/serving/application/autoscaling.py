"""How edges scale: Ray Serve starts and stops their replicas, and asks the same rule as lanes do how many there should be."""

from __future__ import annotations

import logging
from dataclasses import asdict, replace
from typing import Any

from ray.serve.config import AutoscalingConfig, AutoscalingContext, AutoscalingPolicy

from flashsd_ray.actors.service import RoleScale
from flashsd_ray.config import Config
from flashsd_ray.runtime.meters import RayMeters
from flashsd_ray.runtime.scaling import params_of
from flashsd_ray.scheduling.autoscaling import Inputs, Params, Signal, State, plan

OPEN_REQUESTS = "open_requests"  # what every replica of an edge tells of itself

log = logging.getLogger("ray.serve")  # the policy runs in Serve's controller


def edge_scaling(config: Config) -> AutoscalingConfig | None:
    """What Serve is told about an edge; None where there is always one."""
    limits = config.autoscaling
    if not limits.max_edges:
        return None
    params = params_of(config, limits.min_edges, limits.max_edges)
    target = limits.target_requests_per_edge or config.serving.max_open_requests / 2
    return AutoscalingConfig(
        min_replicas=limits.min_edges,
        max_replicas=limits.max_edges,
        target_ongoing_requests=target,
        # Delays and means are the rule's own affair: Serve's would come on top of them.
        upscale_delay_s=0.0,
        downscale_delay_s=0.0,
        policy=AutoscalingPolicy(  # type: ignore[no-untyped-call]
            policy_function=f"{EdgePolicy.__module__}:{EdgePolicy.__name__}",
            policy_kwargs={"target": target, "params": asdict(params)},
        ),
    )


class EdgePolicy:
    """Keeps Ray Serve's interface of a policy: from a context to a number of replicas and what to remember."""

    def __init__(self, target: float, params: dict[str, Any]) -> None:
        self._target = target
        self._params = Params(**params)
        self._exported = RayMeters()
        self._ups = self._downs = 0
        self._reason = ""

    def __call__(self, context: AutoscalingContext) -> tuple[int, dict[str, Any]]:
        """The number of replicas that the open requests of all replicas ask for, and the state for the next time."""
        state = State(**context.policy_state["plan"]) if "plan" in context.policy_state else State()
        # Serve may have changed the number by itself, with a deployment for instance.
        state = replace(state, desired=context.target_num_replicas)
        requests = Signal("requests", _open_requests(context), self._target)
        decided, state = plan(Inputs(now_s=context.current_time or 0.0, signals=(requests,)), state, self._params)
        if decided.direction != "none":
            self._ups += decided.direction == "up"
            self._downs += decided.direction == "down"
            self._reason = decided.reason
            numbers = f"from {context.target_num_replicas} to {decided.desired}"
            log.info("%ss scale %s %s: %s", context.deployment_name, decided.direction, numbers, decided.reason)
        self._exported.export_scales([self._scale(context, decided.desired)])
        return decided.desired, {"plan": asdict(state)}

    def _scale(self, context: AutoscalingContext, desired: int) -> RoleScale:
        return RoleScale(
            role=context.deployment_name,
            desired=desired,
            actual=context.current_num_replicas,
            ups=self._ups,
            downs=self._downs,
            reason=self._reason,
        )


def _open_requests(context: AutoscalingContext) -> float:
    told = (context.aggregated_metrics or {}).get(OPEN_REQUESTS, {})
    return sum(told.values())
