"""The files in cluster/ are what Ray's own parsers take, and name settings that exist."""

from __future__ import annotations

from pathlib import Path

import yaml
from ray.serve.schema import ServeDeploySchema

from flashsd_ray.serving.application import build

CLUSTER = Path(__file__).parents[2] / "cluster"


def test_serve_deploys_this_file() -> None:
    deployed = ServeDeploySchema.model_validate(yaml.safe_load((CLUSTER / "serve.yaml").read_text(encoding="utf-8")))
    (application,) = deployed.applications
    module, _, name = application.import_path.partition(":")
    assert (module, name) == (build.__module__.removesuffix(".build"), build.__name__)
    assert build(application.args) is not None
