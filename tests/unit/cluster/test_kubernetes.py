"""The manifests of cluster/kubernetes: every field known, every reference leading somewhere, every limit consistent."""

from __future__ import annotations

import json
import shlex
from copy import deepcopy
from pathlib import Path
from typing import Any

import pytest
import yaml
from jsonschema import Draft202012Validator, ValidationError
from ray.serve.schema import ServeDeploySchema

from flashsd_ray.cli.main import build_parser
from flashsd_ray.cli.settings import config_of
from flashsd_ray.config import Config, amounts, from_mapping
from tests.unit.cluster.files import KUBERNETES, Document, documents, objects, of_kind, quantity, walk
from tests.unit.cluster.schemas import schema_of


def valid(document: Document) -> None:
    """Raises ValidationError."""
    Draft202012Validator(schema_of(document["apiVersion"], document["kind"])).validate(document)


def clusters() -> list[tuple[str, Document]]:
    """The Ray cluster of every object that has one."""
    found = [
        (f"RayService {one['metadata']['name']}", one["spec"]["rayClusterConfig"]) for one in of_kind("RayService")
    ]
    found += [(f"RayCluster {one['metadata']['name']}", one["spec"]) for one in of_kind("RayCluster")]
    found += [(f"RayJob {one['metadata']['name']}", one["spec"]["rayClusterSpec"]) for one in of_kind("RayJob")]
    return found


CLUSTERS = [pytest.param(cluster, id=name) for name, cluster in clusters()]


def groups(cluster: Document) -> list[Document]:
    return [cluster["headGroupSpec"], *cluster["workerGroupSpecs"]]


def resources_of(group: Document) -> dict[str, float]:
    """Custom resources of a group's nodes, past the shell that reads them."""
    (text,) = shlex.split(group["rayStartParams"].get("resources", "'{}'"))
    return {name: float(amount) for name, amount in json.loads(text).items()}


def service_config() -> Config:
    (service,) = of_kind("RayService")
    deployed = ServeDeploySchema.model_validate(yaml.safe_load(service["spec"]["serveConfigV2"]))
    (application,) = deployed.applications
    assert application.import_path == "flashsd_ray.serving.application:build"
    return from_mapping(application.args)


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda path: path.name)
def test_every_field_is_one_that_kubernetes_knows(path: Path) -> None:
    found = documents(path)
    assert found
    for document in found:
        valid(document)


def test_a_misspelt_field_is_found() -> None:
    (service,) = of_kind("RayService")
    for misspell in (
        lambda one: one["spec"]["rayClusterConfig"].update(enableIntreeAutoscaling=True),
        lambda one: one["spec"]["rayClusterConfig"]["workerGroupSpecs"][0].update(minReplica=1),
        lambda one: one["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"].update({"num-cpu": "1"}),
        lambda one: one["spec"]["rayClusterConfig"]["headGroupSpec"]["rayStartParams"].update({"num-cpus": 0}),
    ):
        broken = deepcopy(service)
        misspell(broken)
        with pytest.raises(ValidationError):
            valid(broken)


def test_every_object_is_in_the_namespace_and_named_once() -> None:
    names = [(one["kind"], one["metadata"]["name"]) for one in objects()]
    assert len(set(names)) == len(names)
    (namespace,) = of_kind("Namespace")
    for one in objects():
        assert one["kind"] == "Namespace" or one["metadata"]["namespace"] == namespace["metadata"]["name"]


def test_settings_of_the_service_exist() -> None:
    assert service_config().placement.kind == "dedicated"


def test_secrets_and_volumes_lead_somewhere() -> None:
    secrets = {one["metadata"]["name"]: set(one["stringData"]) for one in of_kind("Secret")}
    claims = {one["metadata"]["name"] for one in of_kind("PersistentVolumeClaim")}
    for node in walk(objects()):
        if not isinstance(node, dict):
            continue
        if "secretKeyRef" in node:
            assert node["secretKeyRef"]["key"] in secrets[node["secretKeyRef"]["name"]]
        if "secretName" in node:
            assert node["secretName"] in secrets
        if "claimName" in node:
            assert node["claimName"] in claims
        if "containers" in node:
            there = {volume["name"] for volume in node.get("volumes", ())}
            mounted = {mount["name"] for one in node["containers"] for mount in one.get("volumeMounts", ())}
            assert mounted - there - {"data"} == set()  # the claim template of Redis
            assert there <= mounted


def test_files_of_the_settings_are_mounted_where_they_are_read() -> None:
    config = service_config()
    secrets = {one["metadata"]["name"]: set(one["stringData"]) for one in of_kind("Secret")}
    (service,) = of_kind("RayService")
    by_role = {group["groupName"]: group for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]}

    def readable(group: Document) -> set[str]:
        pod = group["template"]["spec"]
        names = {volume["name"]: volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: names.get(mount["name"]) for mount in container["volumeMounts"]}
        return {f"{path}/{key}" for path, secret in mounts.items() if secret for key in secrets[secret]}

    serving = config.serving
    wanted = {serving.keys_file, serving.tls_certificate, serving.tls_key}
    assert wanted <= readable(by_role["edge"])
    # Whoever opens a store reads the password, and that may be on any kind of node.
    assert all(config.stores.password_file in readable(group) for group in by_role.values())


def test_no_secret_holds_anything_that_could_be_used() -> None:
    for secret in of_kind("Secret"):
        assert all("replace-me" in value and len(value) < 40 for value in secret["stringData"].values())


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_a_cluster_scales_within_limits_and_survives_its_head(cluster: Document) -> None:
    assert cluster["enableInTreeAutoscaling"] is True
    assert cluster["authOptions"]["mode"] == "token"
    for group in cluster["workerGroupSpecs"]:
        assert 0 <= group["minReplicas"] <= group["replicas"] <= group["maxReplicas"] > 0
    assert len({group["groupName"] for group in cluster["workerGroupSpecs"]}) == len(cluster["workerGroupSpecs"])
    (redis,) = (one for one in of_kind("Service") if one["metadata"]["name"] == "redis")
    address = f"redis://redis.{redis['metadata']['namespace']}.svc.cluster.local:{redis['spec']['ports'][0]['port']}"
    assert cluster["gcsFaultToleranceOptions"]["redisAddress"] == address
    assert cluster["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0"


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_amounts_are_quantities_and_gpus_are_what_ray_is_told(cluster: Document) -> None:
    for group in groups(cluster):
        (container,) = group["template"]["spec"]["containers"]
        requests, limits = container["resources"]["requests"], container["resources"]["limits"]
        for name, amount in requests.items():
            assert 0 < quantity(amount) <= quantity(limits[name])
        # GPUs and memory cannot be had beyond what was asked for.
        assert quantity(requests["memory"]) == quantity(limits["memory"])
        num_gpus = quantity(limits.get("nvidia.com/gpu", 0))
        assert num_gpus == float(group["rayStartParams"]["num-gpus"])
        assert ("cuda" in container["image"]) == (num_gpus > 0)
        tolerated = {one["key"] for one in group["template"]["spec"].get("tolerations", ())}
        assert ("nvidia.com/gpu" in tolerated) == (num_gpus > 0)


@pytest.mark.parametrize("cluster", CLUSTERS)
def test_every_container_has_probes_and_no_rights(cluster: Document) -> None:
    for group in groups(cluster):
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"] is True
        (container,) = pod["containers"]
        assert container["securityContext"]["allowPrivilegeEscalation"] is False
        for probe in ("readinessProbe", "livenessProbe"):
            assert "local_raylet_healthz" in container[probe]["exec"]["command"][-1]
            assert container[probe]["timeoutSeconds"] >= 4


@pytest.mark.parametrize("cluster", [one for one in CLUSTERS if "RayJob" not in str(one.id)])
def test_every_part_finds_a_node_of_its_kind(cluster: Document) -> None:
    """Each part's bundle fits one node of the group that is there for it, with what is asked there."""
    placement = service_config().placement
    parts: dict[str, tuple[float, float, tuple[str, ...]]] = {
        "target": (placement.lane_cpus, placement.lane_gpus, placement.lane_resources),
        "drafter": (placement.drafter_cpus, placement.drafter_gpus, placement.drafter_resources),
        "encoder": (placement.encoder_cpus, placement.encoder_gpus, placement.encoder_resources),
        "edge": (1.0, 0.0, placement.edge_resources),
    }
    for part, (cpus, gpus, custom) in parts.items():
        wanted = amounts(custom, part)
        assert list(wanted) == [part]
        homes = [group for group in cluster["workerGroupSpecs"] if resources_of(group).get(part, 0) >= wanted[part]]
        assert homes, f"no group has the resource {part}"
        for group in homes:
            (container,) = group["template"]["spec"]["containers"]
            limits = container["resources"]["limits"]
            num = resources_of(group)[part] / wanted[part]
            assert cpus * num <= quantity(limits["cpu"])
            assert gpus * num <= quantity(limits.get("nvidia.com/gpu", 0)) + 1e-9
        others = [group for group in cluster["workerGroupSpecs"] if group not in homes]
        assert all(part not in resources_of(group) for group in others)


def test_most_lanes_and_encoders_have_nodes() -> None:
    scaling = service_config().autoscaling
    (service,) = of_kind("RayService")
    rooms: dict[str, float] = {}
    for group in service["spec"]["rayClusterConfig"]["workerGroupSpecs"]:
        for name, amount in resources_of(group).items():
            rooms[name] = rooms.get(name, 0) + amount * group["maxReplicas"]
    assert scaling.max_lanes <= rooms["target"]
    assert scaling.max_lanes <= rooms["drafter"]
    assert scaling.max_encoders <= rooms["encoder"]
    assert 2 * scaling.max_edges + 1 <= rooms["edge"]  # HTTP and gRPC each, and the fleet
    edge = next(one for one in service["spec"]["rayClusterConfig"]["workerGroupSpecs"] if one["groupName"] == "edge")
    assert scaling.max_edges <= edge["maxReplicas"]  # two gRPC edges cannot listen on one node's port


def test_the_batch_job_is_a_command_of_ours_and_its_lanes_have_nodes() -> None:
    (job,) = of_kind("RayJob")
    program, *words = shlex.split(job["spec"]["entrypoint"])
    assert program == "flashsd"
    arguments = build_parser().parse_args(words)
    placement = config_of(arguments).placement
    wanted = amounts(placement.lane_resources, "placement.lane_resources")
    rooms = 0.0
    for group in job["spec"]["rayClusterSpec"]["workerGroupSpecs"]:
        has = resources_of(group)
        if all(has.get(name, 0) >= amount for name, amount in wanted.items()):
            rooms += group["maxReplicas"]
            assert float(group["rayStartParams"]["num-gpus"]) >= placement.lane_gpus
    assert rooms >= arguments.max_lanes
    mounts = {
        mount["mountPath"]
        for group in groups(job["spec"]["rayClusterSpec"])
        for mount in group["template"]["spec"]["containers"][0]["volumeMounts"]
    }
    assert {"/" + path.split("/")[1] for path in (*arguments.input, arguments.output)} <= mounts


def labels_of(kind: str) -> dict[str, Any]:
    (service,) = of_kind("RayService")
    cluster = service["spec"]["rayClusterConfig"]
    return next(
        group["template"]["metadata"]["labels"]
        for group in groups(cluster)
        if group["template"]["metadata"]["labels"]["app.kubernetes.io/component"] == kind
    )


def test_budgets_and_services_select_pods_that_there_are() -> None:
    for budget in of_kind("PodDisruptionBudget"):
        wanted = budget["spec"]["selector"]["matchLabels"]
        assert wanted.items() <= labels_of(wanted["app.kubernetes.io/component"]).items()
    (grpc,) = (one for one in of_kind("Service") if one["metadata"]["name"] == "flashsd-grpc")
    given_by_kuberay = {"ray.io/node-type": "worker"}
    assert grpc["spec"]["selector"].items() <= (labels_of("edge") | given_by_kuberay).items()
    assert grpc["spec"]["ports"][0]["port"] == service_config().serving.grpc_port


def test_edges_are_ready_when_both_ports_answer_and_have_time_to_drain() -> None:
    config = service_config()
    (service,) = of_kind("RayService")
    edge = next(one for one in service["spec"]["rayClusterConfig"]["workerGroupSpecs"] if one["groupName"] == "edge")
    pod = edge["template"]["spec"]
    (container,) = pod["containers"]
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    probe = container["readinessProbe"]["exec"]["command"][-1]
    assert f":{ports['http']}/" in probe
    assert f"/{ports['grpc']}" in probe
    assert ports["grpc"] == config.serving.grpc_port
    assert pod["terminationGracePeriodSeconds"] > config.serving.drain_timeout_s
    assert service["spec"]["rayClusterDeletionDelaySeconds"] > config.serving.request_timeout_s


def test_clients_reach_the_edges_and_nothing_else() -> None:
    policies = {one["metadata"]["name"]: one["spec"] for one in of_kind("NetworkPolicy")}
    (clients,) = policies["flashsd-clients"]["ingress"]
    assert "from" not in clients
    assert {port["port"] for port in clients["ports"]} == {8000, 9000}
    assert policies["flashsd-clients"]["podSelector"]["matchLabels"] == {"app.kubernetes.io/component": "edge"}
    for name, spec in policies.items():
        for rule in spec.get("ingress", ()):
            assert name == "flashsd-clients" or rule["from"], f"{name} lets everybody in"


def test_rays_state_is_never_evicted() -> None:
    (redis,) = of_kind("StatefulSet")
    (container,) = redis["spec"]["template"]["spec"]["containers"]
    options = " ".join(container["args"])
    assert "--maxmemory-policy volatile-" in options
    assert "--appendonly yes" in options
    assert "--requirepass" in options


@pytest.mark.parametrize(("text", "value"), [("500m", 0.5), ("16Gi", 16 * 2**30), (2, 2.0), ("1.5", 1.5)])
def test_quantities(text: object, value: float) -> None:
    assert quantity(text) == value
    with pytest.raises(ValueError, match="quantity"):
        quantity("16 GB")
