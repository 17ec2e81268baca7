"""Files of settings: what `flashsd serve` and `serve deploy` read."""

from __future__ import annotations

import pytest
from ray.serve._private.api import call_user_app_builder_with_args_if_necessary
from ray.serve.schema import ServeDeploySchema

from flashsd_ray.cli.main import build_parser
from flashsd_ray.cli.settings import config_of
from flashsd_ray.config import from_mapping
from flashsd_ray.serving.application import build
from tests.unit.cluster.files import CLUSTER, load


def test_flashsd_serve_takes_the_local_file() -> None:
    arguments = build_parser().parse_args(["serve", "--config", str(CLUSTER / "local.yaml")])
    config = config_of(arguments)
    assert config == from_mapping(load("local.yaml"))
    assert config.serving.host == "127.0.0.1"


@pytest.mark.parametrize("name", ["serve.yaml", "serve-cloud.yaml"])
def test_serve_takes_these(name: str) -> None:
    deployed = ServeDeploySchema.model_validate(load(name))
    (application,) = deployed.applications
    config = from_mapping(application.args)
    assert deployed.http_options.port != config.serving.grpc_port
    assert application.route_prefix == "/"
    # As Serve's controller calls it, which takes builders of one form only.
    assert call_user_app_builder_with_args_if_necessary(build, application.args) is not None
