"""Places for nodes: this machine's own network and a namespace beside it, each with an address of its own."""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from flashsd_ray.bench.serving.clusters import own_address

SUBNETS = "10.213"


@dataclass(frozen=True, slots=True)
class Place:
    """Where a node stands."""

    address: str
    prefix: tuple[str, ...] = ()  # what starts a program there


@contextmanager
def two_places() -> Iterator[tuple[Place, Place]]:
    """Two places that reach each other by their addresses: apart where the machine allows it, else the same twice."""
    name, third = f"flashsd-{secrets.token_hex(3)}", secrets.randbelow(250) + 1
    here, there = f"{SUBNETS}.{third}.1", f"{SUBNETS}.{third}.2"
    near, far = f"fsd{third}a", f"fsd{third}b"  # ends of a cable; names of interfaces are short
    if not _ip("netns", "add", name):
        same = Place(own_address())
        yield same, same
        return
    try:
        laid = (
            _ip("link", "add", near, "type", "veth", "peer", "name", far, "netns", name)
            and _ip("addr", "add", f"{here}/24", "dev", near)
            and _ip("link", "set", near, "up")
            and _ip("-n", name, "addr", "add", f"{there}/24", "dev", far)
            and _ip("-n", name, "link", "set", far, "up")
            and _ip("-n", name, "link", "set", "lo", "up")
        )
        same = Place(own_address())
        yield (Place(here), Place(there, ("ip", "netns", "exec", name))) if laid else (same, same)
    finally:
        _ip("link", "del", near)
        _ip("netns", "del", name)


def _ip(*words: str) -> bool:
    try:
        return subprocess.run(["ip", *words], capture_output=True, check=False).returncode == 0
    except OSError:
        return False  # the command is not installed
