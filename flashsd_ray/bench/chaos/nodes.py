"""The service on a cluster of several nodes, each a tree of processes of this machine that ends as when power fails.

The head has nothing to do but to be Ray's head; edges and the fleet stand on a node that stays; every other node holds
one lane, with all that belongs to it, and one encoder. What Ray itself keeps is in a Redis of its own, without which a
cluster ends with its head.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import signal
import subprocess
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import ray
from ray.exceptions import RayError
from ray.serve.config import ProxyLocation

from flashsd_ray.bench.chaos.cluster import ServedCluster, is_running
from flashsd_ray.bench.chaos.parts import ChaosFleetDeployment
from flashsd_ray.bench.chaos.redis import RedisProcess
from flashsd_ray.bench.chaos.schedule import Target
from flashsd_ray.bench.serving.clusters import (
    HEAD,
    await_port,
    cluster_port,
    environment,
    resource_words,
    scratch,
    start_node,
)
from flashsd_ray.bench.serving.memory import processes, tree
from flashsd_ray.config import Config
from flashsd_ray.errors import UnavailableError
from flashsd_ray.runtime.starting import cpus_needed
from flashsd_ray.serving.application.build import build_with
from flashsd_ray.serving.application.run import running

PINNED = (
    "placement.lane_resources=flashsd_lane:1",
    "placement.encoder_resources=flashsd_encoder:1",
    "placement.edge_resources=flashsd_edge:0.01",
    "placement.strategy=STRICT_PACK",
)
ADDRESS = "127.0.0.1"
STAYS = "edge"  # the node that nothing befalls
START_S, LOOK_S = 240.0, 0.5
DYING_S = 0.01  # between two looks whether everything has ended
RAY = {
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "10",
    # This process belongs to the cluster, and must outlive a head that comes back on a busy machine.
    "RAY_gcs_rpc_server_reconnect_timeout_s": "300",
}


@dataclass(slots=True, eq=False)
class Node:
    """A node that runs, or did."""

    name: str
    directory: Path  # of its own, by which Ray tells it from others at the same address
    started: subprocess.Popen[bytes]

    def cut(self) -> None:
        """Everything that ran there has ended at once."""
        inside = tree(self.started.pid, processes())
        for pid in inside:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.started.wait()
        while any(map(is_running, inside)):
            time.sleep(DYING_S)


class Nodes:
    """Starts nodes, takes them away, and starts others in their place."""

    def __init__(self, directory: Path, config: Config) -> None:
        self._directory = directory
        num_lanes, num_ranks = config.placement.num_lanes, config.model.tensor_parallel
        cpus = math.ceil(cpus_needed(config) / num_lanes)  # Ray counts whole ones
        self._room = {"CPU": float(cpus), "flashsd_lane": float(num_ranks), "flashsd_encoder": 1.0}
        self._num_workers = num_lanes
        self._num_started = 0
        self.port = cluster_port()
        self._head: Node | None = None
        self._workers: list[Node] = []

    @property
    def address(self) -> str:
        """Of the cluster; a new head has it too."""
        return f"{ADDRESS}:{self.port}"

    @property
    def head(self) -> str:
        """The name of the head; empty while there is none."""
        return self._head.name if self._head is not None else ""

    @property
    def workers(self) -> Sequence[str]:
        """The names of the nodes that hold lanes and encoders."""
        return [node.name for node in self._workers]

    def revive(self) -> None:
        """Nodes that ended by themselves are being started again: Ray gives a node half a minute to come up, however busy
        the machine is, and whoever runs nodes starts them again.

        Raises:
            UnavailableError: the head does not come up.
        """
        for node in [one for one in self._workers if one.started.poll() is not None]:
            self.cut_worker(node.name)
            self.start_worker()
        if self._head is not None and self._head.started.poll() is not None:
            self.cut_head()
            self.start_head()

    def are_alive(self) -> bool:
        """Whether Ray counts on the head and on every node that was not taken away."""
        return self._head is not None and alive_nodes() >= {self.head, *self.workers}

    def start(self) -> Path:
        """Every node is being started; returns the directory of the one that stays.

        Raises:
            UnavailableError: the head does not come up.
        """
        self.start_head()
        stays = self._start(STAYS, [f"--address={self.address}"], {"flashsd_edge": 1.0})
        for _ in range(self._num_workers):
            self.start_worker()
        return stays.directory

    def start_head(self) -> None:
        """There is a head; one that follows another knows what that one knew.

        Raises:
            UnavailableError: it does not come up.
        """
        node = self._start("head", [*HEAD, f"--port={self.port}"], {})
        await_port(self.address, node.directory / "log")
        self._head = node

    def start_worker(self) -> None:
        """One more node is being started."""
        self._workers.append(self._start("worker", [f"--address={self.address}"], self._room))

    def cut_head(self) -> None:
        """There is no head any more."""
        assert self._head is not None
        node, self._head = self._head, None
        node.cut()

    def cut_worker(self, name: str) -> None:
        """The node is gone, and everything on it."""
        node = next(one for one in self._workers if one.name == name)
        self._workers.remove(node)
        node.cut()

    def _start(self, kind: str, words: Sequence[str], room: dict[str, float]) -> Node:
        self._num_started += 1
        name = f"{kind}-{self._num_started}"
        directory = self._directory / f"n{self._num_started}"  # Ray's sockets lie in it, and their paths are limited
        directory.mkdir()
        own = [f"--node-ip-address={ADDRESS}", f"--node-name={name}", f"--temp-dir={directory}"]
        return Node(name, directory, start_node([*words, *own, *resource_words(room)], directory / "log"))


class NodesCluster(ServedCluster):
    """The application on such a cluster."""

    def __init__(self, http_url: str, grpc_address: str, nodes: Nodes) -> None:
        super().__init__(http_url, grpc_address)
        self._nodes = nodes
        self._replacing: set[asyncio.Task[None]] = set()

    async def identity(self, target: Target) -> str:
        """Which one there is now; of nodes, which ones, as soon as all of them are there."""
        if target == "head":
            return self._nodes.head
        if target == "node":
            are_alive = await asyncio.to_thread(self._nodes.are_alive)
            return " ".join(self._nodes.workers) if are_alive else ""
        return await super().identity(target)

    async def kill(self, target: Target, pick: float = 0.0) -> str:
        """A node has ended at once, and another one is on its way; or what ServedCluster does."""
        if target == "head":
            victim = self._nodes.head
            await asyncio.to_thread(self._nodes.cut_head)
            self._begin_replacing(victim)
            return victim
        if target == "node":
            before = await self.identity(target)
            while not before:  # another one is on its way
                await asyncio.sleep(LOOK_S)
                before = await self.identity(target)
            victim = self._nodes.workers[int(pick * len(self._nodes.workers))]
            await asyncio.to_thread(self._nodes.cut_worker, victim)
            self._begin_replacing(victim)
            return before
        return await super().kill(target, pick)

    def _begin_replacing(self, victim: str) -> None:
        task = asyncio.create_task(self._replace(victim))
        self._replacing.add(task)
        task.add_done_callback(self._replacing.discard)

    async def _replace(self, victim: str) -> None:
        if victim.startswith("head"):
            await asyncio.to_thread(self._nodes.start_head)
        else:
            # As whoever hands out machines does: first it is noticed that one is gone.
            while victim in await asyncio.to_thread(alive_nodes):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(LOOK_S)
            await asyncio.to_thread(self._nodes.start_worker)
        while not await asyncio.to_thread(self._nodes.are_alive):
            await asyncio.to_thread(self._nodes.revive)
            await asyncio.sleep(LOOK_S)


def alive_nodes() -> frozenset[str]:
    """The names of the nodes that Ray counts on; none while it has no head."""
    try:
        nodes = ray.nodes()  # type: ignore[no-untyped-call]
    except (RayError, RuntimeError, ConnectionError):
        return frozenset()
    return frozenset(str(node["NodeName"]) for node in nodes if node["Alive"])


@contextmanager
def served_on_nodes(config: Config, says: Callable[[str], None]) -> Iterator[NodesCluster]:
    """The application answers on a cluster of nodes of its own; its parts and nodes can be hurt.

    Raises:
        FlashSDError: it did not come up.
    """
    with RedisProcess() as memory, scratch() as directory:
        variables = RAY | {"RAY_REDIS_ADDRESS": memory.url.removeprefix("redis://").removesuffix("/0")}
        with environment(variables):
            nodes = Nodes(directory, config)
            says("starting nodes")
            stays = nodes.start()
            _join(nodes, stays)
            try:
                application = partial(build_with, fleet_kind=ChaosFleetDeployment)
                # A proxy on the head alone would be lost with it.
                with running(config, says=says, application=application, proxies=ProxyLocation.EveryNode) as where:
                    yield NodesCluster(where.http_url, where.grpc_address, nodes)
            finally:
                ray.shutdown()


def _join(nodes: Nodes, stays: Path) -> None:
    """This process belongs to the node that stays, and all nodes are there."""
    logging.getLogger("ray.serve").setLevel(logging.ERROR)  # what is lost is lost on purpose
    ray.init(address=nodes.address, _temp_dir=str(stays), log_to_driver=False, logging_level=logging.ERROR)
    end_s = time.monotonic() + START_S
    while not nodes.are_alive():
        nodes.revive()
        if time.monotonic() > end_s:
            ray.shutdown()
            raise UnavailableError(f"not all of {[nodes.head, *nodes.workers]} came up within {START_S:g} s")
        time.sleep(LOOK_S)
