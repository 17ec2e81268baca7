"""What a Ray cluster has, for whoever wants to know before anything is started on it."""

from __future__ import annotations

import logging
from collections.abc import Mapping

import ray

from flashsd_ray.config import PlacementConfig, amounts
from flashsd_ray.errors import UnavailableError

Amounts = Mapping[str, float]  # of each resource, by Ray's name for it


def needs(placement: PlacementConfig) -> dict[str, Amounts]:
    """What one of each part asks of a node."""
    parts = {
        "lane": (placement.lane_cpus, placement.lane_gpus, placement.lane_resources),
        "encoder": (placement.encoder_cpus, placement.encoder_gpus, placement.encoder_resources),
        "drafter": (placement.drafter_cpus, placement.drafter_gpus, placement.drafter_resources),
        "edge": (0.0, 0.0, placement.edge_resources),
    }
    if placement.kind != "dedicated":
        del parts["drafter"]
    return {
        part: {name: amount for name, amount in {"CPU": cpus, "GPU": gpus, **amounts(custom, part)}.items() if amount}
        for part, (cpus, gpus, custom) in parts.items()
    }


def fits(wanted: Amounts, node: Amounts) -> bool:
    """Whether a node that is empty has room for it."""
    return all(node.get(name, 0.0) >= amount for name, amount in wanted.items())


def nodes_of(address: str) -> list[Amounts]:
    """What each node of the cluster has, whoever uses it now.

    Raises:
        UnavailableError: no cluster answers at the address, or it lets nobody in.
    """
    was_there = ray.is_initialized()
    if not was_there:
        try:
            ray.init(address=address, logging_level=logging.ERROR, log_to_driver=False)
        except (ConnectionError, ValueError, RuntimeError) as error:
            raise UnavailableError(f"no cluster at {address}: {error}") from error
    try:
        alive = [node for node in ray.nodes() if node["Alive"]]  # type: ignore[no-untyped-call]
        return [{name: float(amount) for name, amount in node["Resources"].items()} for node in alive]
    finally:
        if not was_there:
            ray.shutdown()
