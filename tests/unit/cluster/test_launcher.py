"""cluster/aws.yaml and gcp.yaml, by the validator of Ray's own cluster launcher."""

from __future__ import annotations

import math
from copy import deepcopy

import pytest
from jsonschema import ValidationError
from ray.autoscaler._private.util import prepare_config, validate_config
from ray.serve.schema import ServeDeploySchema

from flashsd_ray import __version__
from flashsd_ray.config import amounts, from_mapping
from flashsd_ray.serving.application import build
from tests.unit.cluster.files import Document, load

CLOUDS = ("aws.yaml", "gcp.yaml")


@pytest.mark.parametrize("name", CLOUDS)
def test_ray_up_takes_this_file(name: str) -> None:
    prepared = prepare_config(deepcopy(load(name)))
    validate_config(prepared)
    assert prepared["head_node_type"] == "head"
    broken = deepcopy(prepared)
    broken["available_node_types"]["target"]["max_worker"] = 3
    with pytest.raises(ValidationError):
        validate_config(broken)


@pytest.mark.parametrize("name", CLOUDS)
def test_nodes_have_a_kind_each_and_the_head_no_gpu(name: str) -> None:
    settings = load(name)
    types = settings["available_node_types"]
    assert types["head"]["resources"]["GPU"] == 0
    assert types["head"]["max_workers"] == 0
    for role in ("target", "drafter", "encoder"):
        mine = [one for key, one in types.items() if key.startswith(role)]
        assert all(one["resources"].get(role, 0) >= 1 and one["resources"]["GPU"] == 1 for one in mine)
        assert any(one["max_workers"] > 0 for one in mine)
        assert all(one["min_workers"] <= one["max_workers"] <= settings["max_workers"] for one in mine)
    workers = sum(one["max_workers"] for one in types.values())
    assert workers == settings["max_workers"]


@pytest.mark.parametrize("name", CLOUDS)
def test_spot_nodes_are_spot_nodes_and_nothing_waits_for_one(name: str) -> None:
    for key, one in load(name)["available_node_types"].items():
        config = one["node_config"]
        market = config.get("InstanceMarketOptions", {}).get("MarketType", "")
        model = config.get("scheduling", [{}])[0].get("provisioningModel", "")
        assert ("spot" in (market, model.lower())) == key.endswith("-spot")
        assert not key.endswith("-spot") or one["min_workers"] == 0


def test_both_clouds_offer_the_same() -> None:
    aws, gcp = (load(name)["available_node_types"] for name in CLOUDS)
    assert aws.keys() == gcp.keys()

    def custom(types: Document) -> dict[str, dict[str, int]]:
        return {
            key: {name: amount for name, amount in one["resources"].items() if name not in ("CPU", "GPU")}
            for key, one in types.items()
        }

    assert custom(aws) == custom(gcp)


@pytest.mark.parametrize("name", CLOUDS)
def test_every_node_has_this_version(name: str) -> None:
    commands = load(name)["setup_commands"]
    assert any("--constraint" in command and "constraints.txt" in command for command in commands)
    assert any("flashsd --version" in command and command.endswith(__version__) for command in commands)


@pytest.mark.parametrize("name", CLOUDS)
def test_what_is_deployed_there_finds_its_nodes(name: str) -> None:
    deployed = ServeDeploySchema.model_validate(load("serve-cloud.yaml"))
    (application,) = deployed.applications
    config = from_mapping(application.args)
    assert build(application.args) is not None
    placement, types = config.placement, load(name)["available_node_types"]
    wanted = {
        "target": (placement.lane_cpus, placement.lane_gpus, placement.lane_resources),
        "encoder": (placement.encoder_cpus, placement.encoder_gpus, placement.encoder_resources),
        "drafter": (placement.drafter_cpus, placement.drafter_gpus, placement.drafter_resources),
        "edge": (1.0, 0.0, placement.edge_resources),
    }
    rooms = dict.fromkeys(wanted, 0.0)
    for role, (cpus, gpus, resources) in wanted.items():
        asked = amounts(resources, role)
        for key, one in types.items():
            has = one["resources"]
            if all(has.get(resource, 0) >= amount for resource, amount in asked.items()):
                num = min(has[resource] / amount for resource, amount in asked.items())
                assert num * cpus <= has["CPU"], f"{role} on {key}"
                assert num * gpus <= has["GPU"], f"{role} on {key}"
                rooms[role] += math.floor(num) * max(1, one["max_workers"])
    assert rooms["target"] >= config.autoscaling.max_lanes
    assert rooms["encoder"] >= config.autoscaling.max_encoders
    assert rooms["edge"] >= 3
