"""The doctor's look at the place that a service shall run in."""

from __future__ import annotations

import socket
from pathlib import Path

import pytest

from flashsd_ray.cli import service_checks
from flashsd_ray.cli.checks import Finding, findings
from flashsd_ray.config import Config, with_overrides
from flashsd_ray.errors import ConfigError, UnavailableError
from flashsd_ray.runtime.cluster import fits, needs
from tests.redis_server import RedisServer, make_certificates, needs_redis


def config(*assignments: str) -> Config:
    return with_overrides(Config(), assignments)


def by_name(found: list[Finding]) -> dict[str, tuple[str, str]]:
    return {one.name: (one.status, one.detail) for one in found}


def test_a_taken_port_is_named() -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        found = by_name(list(service_checks.ports(config(f"serving.http_port={port}", "serving.grpc_port=0"))))
    assert found["serving.http_port"][0] == "note"
    assert str(port) in found["serving.http_port"][1]
    assert found["serving.grpc_port"][0] == "ok"


@needs_redis
def test_a_redis_that_answers_and_one_that_does_not(tmp_path: Path) -> None:
    secret = tmp_path / "password"
    secret.write_text("hunter2\n", encoding="utf-8")
    with RedisServer(password="hunter2") as server:
        url = f"redis://localhost:{server.port}/0"
        (reached,) = service_checks.store(config(f"stores.url={url}", f"stores.password_file={secret}"))
        (locked_out,) = service_checks.store(config(f"stores.url={url}"))
    assert (reached.status, reached.detail) == ("ok", "writes and reads")
    assert locked_out.status == "FAIL"
    assert "hunter2" not in locked_out.detail
    (lost,) = service_checks.store(config(f"stores.url={url}", "stores.timeout_s=0.1"))
    assert lost.status == "FAIL"
    assert "right without it" in lost.detail


def test_keys_and_certificates_are_read(tmp_path: Path) -> None:
    keys = tmp_path / "keys"
    keys.write_text("ann:0123456789abcdef0123\n", encoding="utf-8")
    made = make_certificates(tmp_path)
    pair = (f"serving.tls_certificate={made.certificate}", f"serving.tls_key={made.key}")
    found = by_name(list(service_checks.files(config(f"serving.keys_file={keys}", *pair))))
    assert {name: status for name, (status, _) in found.items()} == {"API keys": "ok", "TLS": "ok"}
    with pytest.raises(ConfigError, match="cannot be used"):
        list(service_checks.files(config(f"serving.tls_certificate={made.certificate}", f"serving.tls_key={keys}")))
    with pytest.raises(ConfigError, match="keys_file"):
        list(service_checks.files(config(f"serving.keys_file={tmp_path / 'missing'}")))


def test_a_door_without_keys_is_noticed() -> None:
    (noticed,) = service_checks.files(config("serving.host=0.0.0.0"))
    assert noticed.status == "note"
    assert list(service_checks.files(config())) == []


def test_packages_that_are_missing_are_named_with_what_installs_them(monkeypatch: pytest.MonkeyPatch) -> None:
    (complete,) = service_checks.packages(config())
    assert complete.status == "ok"
    monkeypatch.setattr(service_checks, "FOR_SERVING", ("grpc", "no_such_package"))
    (incomplete,) = service_checks.packages(config())
    assert incomplete.status == "note"
    assert "no_such_package" in incomplete.detail
    assert "flashsd_ray[serve]" in incomplete.detail


def test_what_each_part_asks_of_a_node() -> None:
    placement = config(
        "placement.lane_gpus=1", "placement.lane_resources=target:1", "placement.edge_resources=edge:1"
    ).placement
    asked = needs(placement)
    assert asked["lane"] == {"CPU": 1.0, "GPU": 1.0, "target": 1.0}
    assert asked["edge"] == {"edge": 1.0}
    assert "drafter" not in asked
    assert "drafter" in needs(config("placement.kind=dedicated").placement)
    assert fits(asked["lane"], {"CPU": 8.0, "GPU": 1.0, "target": 1.0})
    assert not fits(asked["lane"], {"CPU": 8.0, "GPU": 1.0})


def test_a_cluster_is_looked_at_where_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    nodes = [{"CPU": 4.0, "node:__internal_head__": 1.0}, {"CPU": 8.0, "GPU": 1.0, "target": 1.0}]
    monkeypatch.setattr("flashsd_ray.runtime.cluster.nodes_of", lambda address: nodes)
    asked = config("placement.lane_resources=target:1", "placement.encoder_resources=encoder:1")
    found = by_name(list(service_checks.cluster(asked, "auto")))
    assert found["cluster"] == ("ok", "2 nodes: CPU 12, GPU 1, target 1")
    assert found["lane"] == ("ok", "asks for CPU 1, target 1: 1 nodes have it")
    assert found["encoder"][0] == "note"
    assert "cluster" not in service_checks.service_checks(asked, "")


def test_a_cluster_that_does_not_answer_is_a_finding(monkeypatch: pytest.MonkeyPatch) -> None:
    def nobody(address: str) -> None:
        raise UnavailableError(f"no cluster at {address}")

    monkeypatch.setattr("flashsd_ray.runtime.cluster.nodes_of", nobody)
    for name in ("versions", "devices", "codecs", "video_families", "assets", "equality"):
        monkeypatch.setattr(f"flashsd_ray.cli.checks.{name}", lambda *arguments: [])
    found = by_name(list(findings(Config(), lambda text: None, "10.0.0.1:6379")))
    assert found["cluster"] == ("FAIL", "no cluster at 10.0.0.1:6379")
