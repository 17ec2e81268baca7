"""The service that is hurt: with Ray Serve as an operator runs it, or its parts alone with edges in this process."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any, Protocol

import aiohttp
import ray
from ray import serve
from ray.exceptions import RayError

from flashsd_ray.bench.chaos.parts import ChaosFleetDeployment
from flashsd_ray.bench.chaos.schedule import Target
from flashsd_ray.client import AsyncClient, Retries
from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError
from flashsd_ray.serving.application.build import build_with
from flashsd_ray.serving.application.run import NAME, running
from flashsd_ray.timeouts import within

NAMESPACE = "serve"
DEPLOYMENTS: Mapping[Target, str] = {"fleet": "Fleet", "http-edge": "HttpEdge", "grpc-edge": "GrpcEdge"}
PROBE_S = 5.0  # longest wait for one answer of a part that is asked whether it is back


class Cluster(Protocol):
    """What can be hurt, and where clients find it."""

    http_url: str
    grpc_address: str

    async def parts(self) -> Mapping[str, Any]:
        """Handles of lanes, encoders and drafters, by name; empty while the fleet is not there."""
        ...

    async def kill(self, target: Target, pick: float = 0.0) -> str:
        """An edge, the fleet or a node has ended; returns what tells this one from its successor."""
        ...

    async def identity(self, target: Target) -> str:
        """Which one there is now; empty while there is none."""
        ...

    async def http_answers(self) -> bool:
        """Whether requests over HTTP would be answered."""
        ...

    async def grpc_answers(self) -> bool:
        """Whether requests over gRPC would be answered."""
        ...


class Reached:
    """Where clients find a cluster, and whether they do."""

    def __init__(self, http_url: str, grpc_address: str) -> None:
        self.http_url, self.grpc_address = http_url, grpc_address

    async def http_answers(self) -> bool:
        """Whether requests over HTTP would be answered."""
        return await http_answers(self.http_url)

    async def grpc_answers(self) -> bool:
        """Whether requests over gRPC would be answered."""
        try:
            async with AsyncClient(self.grpc_address, retries=Retries(attempts=1)) as client:
                await client.model(timeout_s=PROBE_S)
                return True
        except FlashSDError:
            return False


class ServedCluster(Reached):
    """The application on a Ray of this process."""

    async def parts(self) -> Mapping[str, Any]:
        """Handles of lanes, encoders and drafters, by name; empty while the fleet is not there."""
        with suppress(RayError, asyncio.TimeoutError, RuntimeError):
            fleet: Any = serve.get_deployment_handle("Fleet", NAME)
            found: Mapping[str, Any] = await within(PROBE_S, _awaited(fleet.parts.remote()))
            return found
        return {}

    async def identity(self, target: Target) -> str:
        """Which replica there is now; empty while there is none."""
        names = await asyncio.to_thread(_replicas, DEPLOYMENTS[target])
        return names[0] if names else ""

    async def kill(self, target: Target, pick: float = 0.0) -> str:
        """The replica has ended at once."""
        name = await self.identity(target)
        if name:
            with suppress(ValueError):
                ray.kill(await asyncio.to_thread(ray.get_actor, name, NAMESPACE))
        return name


async def _awaited(reference: Any) -> Any:
    return await reference


def _replicas(deployment: str) -> list[str]:
    named = ray.util.list_named_actors(all_namespaces=True)
    prefix = f"SERVE_REPLICA::{NAME}#{deployment}#"
    return [one["name"] for one in named if one["namespace"] == NAMESPACE and one["name"].startswith(prefix)]


@contextmanager
def served(config: Config, says: Callable[[str], None]) -> Iterator[ServedCluster]:
    """The application answers; its parts can be hurt.

    Raises:
        FlashSDError: it did not come up.
    """
    application = partial(build_with, fleet_kind=ChaosFleetDeployment)
    with running(config, says=says, application=application) as where:
        yield ServedCluster(where.http_url, where.grpc_address)


async def process_of(handle: Any) -> int:
    """The process of a part; 0 where it does not answer."""
    try:
        return int(await within(PROBE_S, _awaited(handle.pid.remote())))
    except (RayError, asyncio.TimeoutError):
        return 0


def send(pid: int, number: signal.Signals) -> None:
    """The process has the signal, if it is still there."""
    with suppress(ProcessLookupError):
        os.kill(pid, number)


def is_running(pid: int) -> bool:
    """Whether there is such a process, stopped or not."""
    try:
        with open(f"/proc/{pid}/stat", encoding="ascii", errors="replace") as stat:  # noqa: PTH123 - no file
            return stat.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


async def http_answers(url: str) -> bool:
    """Whether requests would be answered, as the edge says."""
    timeout = aiohttp.ClientTimeout(total=PROBE_S)
    try:
        async with (
            aiohttp.ClientSession(timeout=timeout) as session,
            session.get(f"{url.removesuffix('/v1')}/readyz") as reply,
        ):
            return reply.status == 200
    except (aiohttp.ClientError, OSError, asyncio.TimeoutError):
        return False
