"""From settings to the application that ``serve run`` and ``serve deploy`` take."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ray import serve
from ray.serve import Application, Deployment

from flashsd_ray.config import Config, amounts, from_mapping
from flashsd_ray.serving.application.autoscaling import edge_scaling
from flashsd_ray.serving.application.deployments import FleetDeployment, GrpcEdgeDeployment, HttpEdgeDeployment


def build(settings: Mapping[str, Any] | Config) -> Application:
    """The application with these settings, as sections of names and values; Serve calls it with one argument or not at all.

    Raises:
        ConfigError: a name is unknown or a value has the wrong type.
    """
    return build_with(settings, FleetDeployment)


def build_with(settings: Mapping[str, Any] | Config, fleet_kind: type) -> Application:
    """The same around another kind of fleet.

    Raises:
        ConfigError: a name is unknown or a value has the wrong type.
    """
    config = settings if isinstance(settings, Config) else from_mapping(settings)
    fleet = _deployment(fleet_kind, "Fleet", config, max_ongoing_requests=10_000, num_replicas=1).bind(config)
    # One replica of an edge carries many open streams; what bounds them is serving.max_open_requests.
    streams = 4 * config.serving.max_open_requests
    scaling = edge_scaling(config)
    edges: dict[str, Any] = {"num_replicas": 1} if scaling is None else {"autoscaling_config": scaling}
    # A port of its own belongs to one process of a node.
    alone = {"max_replicas_per_node": 1} if scaling is not None and config.serving.grpc_port else {}
    grpc_edge = _deployment(
        GrpcEdgeDeployment, "GrpcEdge", config, max_ongoing_requests=streams, **edges, **alone
    ).bind(config, fleet)
    http_edge = _deployment(HttpEdgeDeployment, "HttpEdge", config, max_ongoing_requests=streams, **edges)
    return http_edge.bind(config, fleet, grpc_edge)


def _deployment(kind: type, name: str, config: Config, **options: Any) -> Deployment:
    made: Deployment = serve.deployment(
        name=name,
        **options,
        ray_actor_options={"num_cpus": 0, "resources": amounts(config.placement.edge_resources, "edge_resources")},
        graceful_shutdown_timeout_s=config.serving.drain_timeout_s,
        health_check_period_s=config.placement.health_period_s,
        health_check_timeout_s=config.placement.health_timeout_s,
    )(kind)
    return made
