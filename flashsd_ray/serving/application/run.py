"""The application on a Ray of this machine, or on a cluster that is there already, for as long as a block lasts."""

from __future__ import annotations

import logging
import math
import os
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace

import ray
from ray import serve
from ray.serve import Application
from ray.serve.config import HTTPOptions, ProxyLocation

from flashsd_ray.config import Config, ServingConfig
from flashsd_ray.errors import ConfigError, UnavailableError
from flashsd_ray.ray_environment import prepare_ray_environment
from flashsd_ray.runtime.starting import cpus_needed
from flashsd_ray.serving.application.build import build
from flashsd_ray.serving.running import Running

NAME = "flashsd"


@contextmanager
def running(
    config: Config,
    *,
    address: str | None = None,  # of a Ray cluster; None: a Ray of our own
    says: Callable[[str], None] = lambda text: None,  # told what is being waited for
    application: Callable[[Config], Application] = build,
    proxies: ProxyLocation | None = None,  # None: where clients of serving.host can reach one
) -> Iterator[Running]:
    """Inside the block requests are answered; after it everything that was started here has ended.

    A cluster that this process has joined already is the one that is used, and it stays joined.

    Raises:
        ConfigError: the ports are taken, or no cluster answers at the address.
        UnavailableError: the application did not come up; the message says why.
    """
    # On a cluster the port may be held by a Serve that is there already, which is what we want.
    if address is None or not config.serving.http_port:
        config = replace(config, serving=_with_ports(config.serving))
    has_joined = ray.is_initialized()
    if not has_joined:
        says("starting Ray" if address is None else f"joining the cluster at {address}")
        _connect(config, address)
    try:
        says("loading the model")
        yield _deploy(config, application, proxies)
    finally:
        # A Ray of our own ends with this process, Serve's controller included.
        serve.delete(NAME)
        if not has_joined:
            ray.shutdown()


def _connect(config: Config, address: str | None) -> None:
    level = getattr(logging, config.telemetry.log_level.upper())
    is_debugging = level <= logging.DEBUG
    # Ray tells a person at a terminal much that only matters when something is being looked for.
    quiet = {"logging_level": level if is_debugging else logging.ERROR, "log_to_driver": is_debugging}
    logging.getLogger("ray.serve").setLevel(level if is_debugging else logging.WARNING)
    prepare_ray_environment()
    try:
        if address is None:
            cpus = max(os.cpu_count() or 1, math.ceil(cpus_needed(config)))
            ray.init(address="local", num_cpus=cpus, include_dashboard=False, **quiet)
        else:
            ray.init(address=address, **quiet)
    except (ConnectionError, ValueError, RuntimeError) as error:
        raise ConfigError(f"Ray cannot be reached or started: {error}") from error


def _deploy(config: Config, application: Callable[[Config], Application], proxies: ProxyLocation | None) -> Running:
    serving = config.serving
    is_local = serving.host in ("127.0.0.1", "localhost", "::1")
    # With client certificates the edge has a port of its own, and there is no proxy.
    usual = "Disabled" if serving.tls_client_ca else "HeadOnly" if is_local else "EveryNode"
    serve.start(
        proxy_location=proxies or usual,
        http_options=HTTPOptions(
            host=serving.host,
            port=serving.http_port,
            ssl_certfile=serving.tls_certificate or None,
            ssl_keyfile=serving.tls_key or None,
        ),
        logging_config={"log_level": config.telemetry.log_level.upper(), "enable_access_log": False},
    )
    try:
        serve.run(application(config), name=NAME, route_prefix="/")
        port = serve.get_deployment_handle("GrpcEdge", NAME).port.remote().result(timeout_s=30)
    except (RuntimeError, TimeoutError) as error:
        raise UnavailableError(f"the application did not come up: {_reason(error)}") from error
    return Running(host=serving.host, http_port=serving.http_port, grpc_port=port, is_tls=bool(serving.tls_key))


def _reason(error: Exception) -> str:
    """What the deployments themselves say, where Serve only says that they failed."""
    details = serve.status().applications.get(NAME)
    messages = [one.message for one in details.deployments.values() if one.message] if details else []
    lines = [line.strip() for line in "\n".join(messages or [str(error)]).splitlines() if line.strip()]
    telling = [line for line in lines if "Error" in line]
    return (telling or lines or ["no reason was given"])[-1]


def _with_ports(serving: ServingConfig) -> ServingConfig:
    """The same with a free port where any will do; Serve would report a taken one only in a log."""
    if serving.http_port:
        free_port(serving.host, serving.http_port, "serving.http_port")
        return serving
    return replace(serving, http_port=free_port(serving.host, 0, "serving.http_port"))


def free_port(host: str, port: int, name: str) -> int:
    """The port, or a free one where it is 0.

    Raises:
        ConfigError: nobody can listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise ConfigError(f"{name}: nobody can listen on {host}:{port} ({error.strerror})") from error
        return int(probe.getsockname()[1])
