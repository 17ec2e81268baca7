"""From settings to the application that ``serve run`` and ``serve deploy`` take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from flashsd_ray.config import Config, from_mapping
from flashsd_ray.serving.application.deployments import FleetDeployment, GrpcEdgeDeployment, HttpEdgeDeployment


def build(settings: Mapping[str, Any] | Config) -> Application:
    """The application with these settings, as sections of names and values.

    Raises:
        ConfigError: a name is unknown or a value has the wrong type.
    """
    config = settings if isinstance(settings, Config) else from_mapping(settings)
    fleet = _deployment(FleetDeployment, "Fleet", config, max_ongoing_requests=10_000).bind(config)
    # One replica of an edge carries many open streams; what bounds them is serving.max_open_requests.
    streams = 4 * config.serving.max_open_requests
    grpc_edge = _deployment(GrpcEdgeDeployment, "GrpcEdge", config, max_ongoing_requests=streams).bind(config, fleet)
    http_edge = _deployment(HttpEdgeDeployment, "HttpEdge", config, max_ongoing_requests=streams)
    return http_edge.bind(config, fleet, grpc_edge)


def _deployment(kind: type, name: str, config: Config, *, max_ongoing_requests: int) -> Deployment:
    made: Deployment = serve.deployment(
        name=name,
        num_replicas=1,
        max_ongoing_requests=max_ongoing_requests,
        ray_actor_options={"num_cpus": 0},
        graceful_shutdown_timeout_s=config.serving.drain_timeout_s,
        health_check_period_s=config.placement.health_period_s,
        health_check_timeout_s=config.placement.health_timeout_s,
    )(kind)
    return made
