"""Where the actors of one placement group find each other."""

from __future__ import annotations

import secrets
import tempfile
from pathlib import Path

import ray
from ray.util.placement_group import PlacementGroup

from flashsd_ray.runtime.members import nodes_of

LOOPBACK = "127.0.0.1"


def address_for(group: PlacementGroup, index: int) -> str:
    """Where the actor of a bundle shall listen: a socket file where it shares a node with the first one, else a port."""
    nodes = nodes_of(group)
    if nodes[index] == nodes[0]:
        return f"unix:{Path(tempfile.gettempdir()) / f'flashsd-{secrets.token_hex(8)}.sock'}"
    return f"tcp:{_address_of(nodes[index])}:0"


def hosts_for(group: PlacementGroup, count: int) -> list[str]:
    """Addresses under which the actors of the first bundles reach each other; nobody else's where one node holds them."""
    nodes = nodes_of(group)[:count]
    return [LOOPBACK if len(set(nodes)) == 1 else _address_of(node) for node in nodes]


def _address_of(node_id: str) -> str:
    nodes = ray.nodes()  # type: ignore[no-untyped-call]
    return str(next(node["NodeManagerAddress"] for node in nodes if node["NodeID"] == node_id))
