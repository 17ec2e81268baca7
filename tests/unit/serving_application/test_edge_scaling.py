"""Edges scale by the rule of lanes, behind Ray Serve's interface for policies."""

from __future__ import annotations

import pickle
from typing import Any

import pytest
from ray.serve._private.autoscaling_state import _resolve_policy_callable
from ray.serve._private.common import DeploymentID, ReplicaID
from ray.serve.autoscaling_policy import _apply_autoscaling_config
from ray.serve.config import AutoscalingContext

from flashsd_ray.config import AutoscalingConfig, Config, PlacementConfig, ServingConfig
from flashsd_ray.runtime.meters import RayMeters
from flashsd_ray.serving.application.autoscaling import OPEN_REQUESTS, edge_scaling
from flashsd_ray.serving.application.build import build

CONFIG = Config(
    serving=ServingConfig(max_open_requests=20),
    autoscaling=AutoscalingConfig(
        min_edges=1, max_edges=4, upscale_delay_s=5, smoothing_s=0, downscale_delay_s=30, tolerance=0
    ),
    placement=PlacementConfig(edge_resources=("flashsd_edge:0.5",)),
)
EDGE = DeploymentID(name="HttpEdge", app_name="flashsd")


class Serve:
    """Does with a policy what Serve's controller does, at times of the test's choosing."""

    def __init__(self) -> None:
        self.config = edge_scaling(CONFIG)
        assert self.config is not None
        # The way into the controller leads through pickle.
        self.policy: Any = _apply_autoscaling_config(
            _resolve_policy_callable(pickle.loads(pickle.dumps(self.config)).policy)
        )
        self.state: dict[str, Any] = {}
        self.num_replicas = 1

    def asks(self, now_s: float, *open_requests: float) -> int:
        """What is wanted when the replicas have so many open requests."""
        told = {ReplicaID(str(number), EDGE): value for number, value in enumerate(open_requests)}
        context = AutoscalingContext(
            deployment_id=EDGE,
            deployment_name=EDGE.name,
            app_name=EDGE.app_name,
            current_num_replicas=self.num_replicas,
            target_num_replicas=self.num_replicas,
            running_replicas=list(told),
            total_num_requests=0.0,  # gRPC does not go through Serve
            total_queued_requests=0.0,
            aggregated_metrics={OPEN_REQUESTS: told} if told else {},
            raw_metrics={},
            capacity_adjusted_min_replicas=1,
            capacity_adjusted_max_replicas=4,
            policy_state=self.state,
            last_scale_up_time=None,
            last_scale_down_time=None,
            current_time=now_s,
            config=self.config,
        )
        self.num_replicas, self.state = self.policy(context)
        return self.num_replicas


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    monkeypatch.setattr(RayMeters, "export_scales", lambda meters, scales: None)
    return Serve()


def test_replicas_follow_what_edges_have_open(serve: Serve) -> None:
    assert serve.asks(0.0) == 1, "nobody has said anything yet"
    assert [serve.asks(now_s, 25.0) for now_s in (10.0, 14.0, 15.0)] == [1, 1, 3], "half of max_open_requests each"
    assert [serve.asks(now_s, 4.0, 3.0, 5.0) for now_s in (20.0, 49.0, 50.0)] == [3, 3, 2]
    assert [serve.asks(now_s, 0.0, 0.0) for now_s in (60.0, 89.0, 90.0)] == [2, 2, 1], "and never none"


def test_the_bounds_are_those_of_the_settings(serve: Serve) -> None:
    serve.asks(0.0, 1000.0)
    assert serve.asks(5.0, 1000.0) == 4


def test_without_a_maximum_there_is_one_of_each() -> None:
    assert edge_scaling(Config()) is None
    assert build(Config())._bound_deployment.num_replicas == 1


def test_edges_stand_where_the_settings_say_and_grpc_alone_on_its_node() -> None:
    http = build(CONFIG)._bound_deployment
    _, fleet, grpc = http.init_args
    for deployment in (http, fleet._bound_deployment, grpc._bound_deployment):
        assert deployment.ray_actor_options["resources"] == {"flashsd_edge": 0.5}
    assert grpc._bound_deployment._deployment_config.max_ongoing_requests == 80
    assert grpc._bound_deployment._replica_config.max_replicas_per_node == 1
    assert http._replica_config.max_replicas_per_node is None
    assert fleet._bound_deployment.num_replicas == 1
