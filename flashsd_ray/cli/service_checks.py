"""What can be wrong with the place that a service shall run in: packages, files, ports, Redis, the cluster."""

from __future__ import annotations

import socket
import ssl
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path
from time import monotonic, sleep

from flashsd_ray.cli.checks import Finding
from flashsd_ray.config import Config
from flashsd_ray.errors import ConfigError, FlashSDError

FOR_SERVING = ("ray", "grpc", "fastapi", "uvicorn", "msgpack", "prometheus_client", "redis")
FOR_TRACES = ("opentelemetry.sdk", "opentelemetry.exporter")
LOOK_S = 0.05


def service_checks(config: Config, address: str) -> dict[str, Callable[[], Iterable[Finding]]]:
    """Each check by its name; the cluster is looked at where its address is given."""
    checks: dict[str, Callable[[], Iterable[Finding]]] = {
        "packages for serving": lambda: packages(config),
        "keys and certificates": lambda: files(config),
        "ports": lambda: ports(config),
        "store": lambda: store(config),
    }
    return checks | ({"cluster": lambda: cluster(config, address)} if address else {})


def packages(config: Config) -> Iterator[Finding]:
    """Whether everything that serving imports is installed."""
    wanted = {"serve": FOR_SERVING} | ({"telemetry": FOR_TRACES} if config.telemetry.otlp_endpoint else {})
    missing = {extra: [name for name in names if not _is_there(name)] for extra, names in wanted.items()}
    for extra, names in missing.items():
        if names:
            detail = f"missing: {', '.join(names)}; pip install 'flashsd_ray[{extra}]'"
            yield Finding("packages for serving", "note" if extra == "serve" else "FAIL", detail)
    if not any(missing.values()):
        yield Finding("packages for serving", "ok", ", ".join(name for names in wanted.values() for name in names))


def files(config: Config) -> Iterator[Finding]:
    """Whether keys and certificates that are configured can be used."""
    serving = config.serving
    if serving.keys_file:
        from flashsd_ray.serving.protection.keys_file import KeysFile

        KeysFile(Path(serving.keys_file), now_s=0.0)
        yield Finding("API keys", "ok", serving.keys_file)
    elif serving.host not in ("127.0.0.1", "localhost", "::1"):
        detail = f"serving.host is {serving.host} and serving.keys_file is empty: everybody there may ask"
        yield Finding("API keys", "note", detail)
    if serving.tls_certificate:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        try:
            context.load_cert_chain(serving.tls_certificate, serving.tls_key)
            if serving.tls_client_ca:
                context.load_verify_locations(serving.tls_client_ca)
        except (OSError, ssl.SSLError) as error:
            raise ConfigError(f"serving.tls_certificate, tls_key or tls_client_ca cannot be used: {error}") from error
        yield Finding("TLS", "ok", serving.tls_certificate)


def ports(config: Config) -> Iterator[Finding]:
    """Whether somebody listens already where the edges would."""
    serving = config.serving
    for name, port in (("serving.http_port", serving.http_port), ("serving.grpc_port", serving.grpc_port)):
        if port == 0:
            yield Finding(name, "ok", "any free one")
            continue
        problem = _problem_of(serving.host, port)
        detail = f"{serving.host}:{port} {problem or 'is free'}"
        hint = "; a server of ours may run there, else choose another port" if problem else ""
        yield Finding(name, "note" if problem else "ok", detail + hint)


def store(config: Config) -> Iterator[Finding]:
    """Whether the store that is configured is reached, and lets us write and read."""
    if config.stores.url.startswith("memory://"):
        yield Finding("store", "ok", "in memory: encoders share no pictures")
        return
    from flashsd_ray.stores.store import open_store

    opened = open_store(config.stores)
    try:
        end_s = monotonic() + max(2.0, 2 * config.stores.timeout_s)
        while not opened.put("doctor", b"1", LOOK_S * 100) and monotonic() < end_s:
            sleep(LOOK_S)
        problem = opened.health() or ("" if opened.get("doctor") == b"1" else "what was written is not found again")
        hint = "; answers would be right without it, and slower"
        yield Finding("store", "FAIL" if problem else "ok", f"{problem}{hint}" if problem else "writes and reads")
    finally:
        opened.close()


def cluster(config: Config, address: str) -> Iterator[Finding]:
    """Whether every part finds a node that it fits."""
    from flashsd_ray.runtime.cluster import fits, needs, nodes_of

    nodes = nodes_of(address)
    totals: dict[str, float] = {}
    for node in nodes:
        for name, amount in node.items():
            if not name.startswith(("node:", "object_store_memory", "accelerator_type:")):
                totals[name] = totals.get(name, 0.0) + amount
    shown = ", ".join(f"{name} {amount:g}" for name, amount in sorted(totals.items()) if name != "memory")
    yield Finding("cluster", "ok", f"{len(nodes)} nodes: {shown}")
    for part, wanted in needs(config.placement).items():
        homes = sum(fits(wanted, node) for node in nodes)
        asks = ", ".join(f"{name} {amount:g}" for name, amount in wanted.items()) or "nothing"
        if homes:
            yield Finding(part, "ok", f"asks for {asks}: {homes} nodes have it")
        else:
            detail = f"asks for {asks}, which no node has now; it waits for one that the autoscaler adds, or for ever"
            yield Finding(part, "note", detail)


def _is_there(name: str) -> bool:
    with suppress(ModuleNotFoundError, FlashSDError):
        return find_spec(name) is not None
    return False


def _problem_of(host: str, port: int) -> str:
    try:
        found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE)
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(place)
    except OSError as error:
        return f"cannot be listened on ({error.strerror or error})"
    return ""
