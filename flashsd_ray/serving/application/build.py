"""From settings to the application that ``serve run`` and ``serve deploy`` take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application

from flashsd_ray.config import Config, from_mapping
from flashsd_ray.serving.application.deployments import FleetDeployment, GrpcEdgeDeployment, HttpEdgeDeployment


def build(settings: Mapping[str, Any] | Config) -> Application:
    """The application with these settings, as sections of names and values.

    Raises:
        ConfigError: a name is unknown or a value has the wrong type.
    """
    config = settings if isinstance(settings, Config) else from_mapping(settings)
    common = {
        "ray_actor_options": {"num_cpus": 0},
        "graceful_shutdown_timeout_s": config.serving.drain_timeout_s,
        "health_check_period_s": config.placement.health_period_s,
        "health_check_timeout_s": config.placement.health_timeout_s,
    }
    # One replica of an edge carries many open streams; what bounds them is serving.max_open_requests.
    edge = common | {"max_ongoing_requests": 4 * config.serving.max_open_requests}
    fleet = serve.deployment(name="Fleet", num_replicas=1, max_ongoing_requests=10_000, **common)(FleetDeployment)
    bound = fleet.bind(config)
    grpc_edge = serve.deployment(name="GrpcEdge", num_replicas=1, **edge)(GrpcEdgeDeployment).bind(config, bound)
    return serve.deployment(name="HttpEdge", num_replicas=1, **edge)(HttpEdgeDeployment).bind(config, bound, grpc_edge)
