"""Ray clusters of several nodes on this machine: one that adds and removes nodes, and one of nodes that stand apart.

Ray's own helpers for tests end every Ray process of the user; these end what they started and nothing else.
"""

from __future__ import annotations

import json
import logging
import os
import secrets
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsd_ray.errors import UnavailableError
from flashsd_ray.ray_environment import RAY_ENVIRONMENT

if TYPE_CHECKING:
    from flashsd_ray.bench.serving.networks import Place

MARK = "FLASHSD_CLUSTER"  # in the environment of every process of a cluster
START_S, END_S, LOOK_S = 90.0, 15.0, 0.2
HEAD = ("--head", "--include-dashboard=false")
RESOURCE = "flashsd_"  # first part of the names of custom resources
HEAD_TYPE = "ray.head.default"
OBJECT_STORE_BYTES = 200 * 2**20
FIRST_PORT, NUM_PORTS = 6400, 600  # below those that Ray gives its workers


@contextmanager
def environment(more: Mapping[str, str]) -> Iterator[None]:
    """Processes that are started inside the block belong to one cluster, and have ended after it."""
    mark = secrets.token_hex(8)
    changes = {
        MARK: mark,
        "RAY_AUTH_MODE": "disabled",  # as with a Ray that a program starts for itself; a token of the user's is left alone
        **RAY_ENVIRONMENT,
        **more,
    }
    before = {name: os.environ.get(name) for name in changes}
    os.environ.update(changes)
    try:
        yield
    finally:
        _end_marked(mark)
        for name, value in before.items():
            if value is None:
                os.environ.pop(name, None)
            else:
                os.environ[name] = value


@contextmanager
def autoscaling_cluster(
    head: Mapping[str, float],  # resources of the node that is always there
    workers: Mapping[str, tuple[Mapping[str, float], int]],  # by type of node: resources, and how many at most
    *,
    idle_s: float,  # after which a node without work goes
) -> Iterator[str]:
    """The address of a cluster whose autoscaler adds and removes nodes, each a process of its own.

    Raises:
        UnavailableError: it did not come up.
    """
    with environment(_AUTOSCALER), scratch() as directory:
        port = cluster_port()
        address = f"{own_address()}:{port}"
        config = directory / "cluster.json"
        config.write_text(json.dumps(_cluster_config(head, workers, address, idle_s)))
        words = [*HEAD, f"--port={port}", f"--autoscaling-config={config}", f"--temp-dir={directory}"]
        with ray_node([*words, *resource_words(head)], directory / "head.log"):
            await_port(address, directory / "head.log")
            yield address


@contextmanager
def two_node_cluster(
    places: tuple[Place, Place],
    resources: tuple[Mapping[str, float], Mapping[str, float]],
    variables: Mapping[str, str],  # of the environment of all its processes
) -> Iterator[str]:
    """The address of a cluster of two nodes, whose first is the head.

    Raises:
        UnavailableError: it did not come up.
    """
    with environment(variables), scratch() as directory:
        (here, there), (first, second) = places, resources
        address = f"{here.address}:{cluster_port()}"
        port = address.rpartition(":")[2]
        head = [*HEAD, f"--port={port}", f"--node-ip-address={here.address}", f"--temp-dir={directory / 'a'}"]
        worker = [f"--address={address}", f"--node-ip-address={there.address}"]
        with ray_node([*head, *resource_words(first)], directory / "head.log", here.prefix):
            await_port(address, directory / "head.log")
            with ray_node([*worker, *resource_words(second)], directory / "worker.log", there.prefix):
                yield address


@contextmanager
def ray_node(
    words: Sequence[str],  # of ``ray start``
    log: Path,
    prefix: Sequence[str] = (),  # what starts the command, where it shall not run here
) -> Iterator[None]:
    """A node of Ray runs; after the block it has ended."""
    started = start_node(words, log, prefix)
    try:
        yield
    finally:
        end_node(started)


def start_node(words: Sequence[str], log: Path, prefix: Sequence[str] = ()) -> subprocess.Popen[bytes]:
    """A node of Ray is being started, see ``ray_node``; whoever calls this ends it."""
    ray = [sys.executable, "-m", "ray.scripts.scripts", "start", "--block", "--disable-usage-stats"]
    command = [*prefix, *ray, f"--object-store-memory={OBJECT_STORE_BYTES}", *words]
    with log.open("wb") as out:
        return subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, start_new_session=True)


def end_node(started: subprocess.Popen[bytes]) -> None:
    """The node has taken leave and ended."""
    started.terminate()
    with suppress(subprocess.TimeoutExpired):
        started.wait(END_S)
    if started.poll() is None:
        started.kill()
        started.wait()


_AUTOSCALER = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "RAY_enable_autoscaler_v2": "0"}


def _cluster_config(
    head: Mapping[str, float],
    workers: Mapping[str, tuple[Mapping[str, float], int]],
    address: str,
    idle_s: float,
) -> dict[str, Any]:
    """What Ray's cluster launcher takes, for its provider of pretended machines."""
    types = {
        name: {"resources": resources, "node_config": {}, "min_workers": 0, "max_workers": most}
        for name, (resources, most) in workers.items()
    }
    provider = {
        "type": "fake_multinode",
        "gcs_address": address,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    empty = ("initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands")
    return {
        "cluster_name": "flashsd",
        "max_workers": sum(most for _, most in workers.values()),
        "upscaling_speed": 10.0,
        "idle_timeout_minutes": idle_s / 60,
        "provider": provider,
        "auth": {},
        "docker": {},
        "head_node_type": HEAD_TYPE,
        "available_node_types": {
            HEAD_TYPE: {"resources": head, "node_config": {}, "max_workers": 0},
            **types,
        },
        "file_mounts": {},
        "cluster_synced_files": [],
        "file_mounts_sync_continuously": False,
        "rsync_exclude": [],
        "rsync_filter": [],
        "head_start_ray_commands": [],
        "worker_start_ray_commands": [],
        **{name: [] for name in empty},
    }


def resource_words(resources: Mapping[str, float]) -> list[str]:
    """What ``ray start`` is told of them."""
    custom = {name: amount for name, amount in resources.items() if name != "CPU"}
    return [f"--num-cpus={resources.get('CPU', 0):g}", f"--resources={json.dumps(custom)}"]


@contextmanager
def joined(address: str, num_nodes: int = 1) -> Iterator[None]:
    """The cluster has so many nodes, and inside the block this process may ask it what there is.

    Raises:
        UnavailableError: it does not have them in time.
    """
    import ray

    ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    try:
        end_s = time.monotonic() + START_S
        while sum(node["Alive"] for node in ray.nodes()) < num_nodes:  # type: ignore[no-untyped-call]
            if time.monotonic() > end_s:
                raise UnavailableError(f"the cluster at {address} has fewer than {num_nodes} nodes")
            time.sleep(LOOK_S)
        yield
    finally:
        ray.shutdown()


def nodes_by_resource() -> Counter[str]:
    """Living nodes of the cluster that was joined, by what they are for: lane, encoder, drafter or edge."""
    import ray

    nodes = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
    names = (name for node in nodes for name in node["Resources"] if name.startswith(RESOURCE))
    return Counter(name.removeprefix(RESOURCE) for name in names)


@dataclass(frozen=True, slots=True)
class Host:
    """A node of a cluster."""

    node_id: str
    address: str


def hosts_of_parts() -> dict[str, tuple[Host, ...]]:
    """Where each lane and encoder of the cluster that was joined runs; behind a lane's host that of its drafter."""
    import ray
    from ray.util import placement_group_table

    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    hosts = {node["NodeID"]: Host(node["NodeID"], node["NodeManagerAddress"]) for node in nodes}
    groups = [group for group in placement_group_table().values() if group["state"] == "CREATED"]
    return {
        group["name"].removeprefix("flashsd-"): tuple(
            hosts[node] for _, node in sorted(group["bundles_to_node_id"].items())
        )
        for group in groups
    }


def own_address() -> str:
    """The address by which this machine is known to itself, as Ray finds it."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))  # nothing is sent: only a way is looked up
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


@contextmanager
def scratch() -> Iterator[Path]:
    """A directory with a short name: sockets of Ray lie in it, and their paths are limited."""
    directory = Path(tempfile.mkdtemp(prefix="fsd"))
    try:
        yield directory
    finally:
        shutil.rmtree(directory, ignore_errors=True)


def cluster_port() -> int:
    """A port of this machine that nobody listens on; Ray gives it to none of its workers.

    Raises:
        UnavailableError: there is none.
    """
    for port in range(FIRST_PORT, FIRST_PORT + NUM_PORTS):
        with socket.socket() as probe, suppress(OSError):
            probe.bind(("", port))
            return port
    raise UnavailableError(f"no port of {FIRST_PORT}..{FIRST_PORT + NUM_PORTS - 1} is free")


def await_port(address: str, log: Path) -> None:
    """Somebody listens there.

    Raises:
        UnavailableError: nobody does in time; the message ends with what the log says.
    """
    host, _, port = address.rpartition(":")
    end_s = time.monotonic() + START_S
    while time.monotonic() < end_s:
        with suppress(OSError), socket.create_connection((host, int(port)), timeout=1.0):
            return
        time.sleep(LOOK_S)
    raise UnavailableError(f"no Ray came up at {address}: {log.read_text(errors='replace')[-500:]}")


def _end_marked(mark: str) -> None:
    """Every process with the mark has ended, this one excepted: nodes that the autoscaler made among them."""
    wanted = f"{MARK}={mark}".encode()
    for directory in Path("/proc").iterdir():
        if directory.name.isdigit() and int(directory.name) != os.getpid():
            with suppress(OSError):
                if wanted in (directory / "environ").read_bytes().split(b"\0"):
                    os.kill(int(directory.name), signal.SIGKILL)
