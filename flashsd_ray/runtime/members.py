"""Single actors of the pipeline: started where they were given room, looked after, ended."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from flashsd_ray.errors import UnavailableError
from flashsd_ray.runtime.clients import errors_of

Bundle = dict[str, float]  # resources that one actor reserves


@dataclass(slots=True, eq=False)
class Member:
    """An actor, its place, and what has to end with it."""

    name: str
    handle: Any
    group: PlacementGroup

    def kill(self) -> None:
        """The actor has ended; its place is kept."""
        ray.kill(self.handle)

    def remove(self) -> None:
        """The actor has ended and its place is free for others."""
        self.kill()
        remove_placement_group(self.group)


def bundle(cpus: float, gpus: float) -> Bundle:
    """The resources of one actor; one that is said to need nothing gets a sliver, since a bundle must hold something."""
    wanted = {"CPU": cpus, "GPU": gpus}
    return {key: value for key, value in wanted.items() if value > 0} or {"CPU": 0.01}


async def reserve(name: str, bundles: list[Bundle], timeout_s: float) -> PlacementGroup:
    """Room for actors that belong together, on one node where that is possible.

    Raises:
        UnavailableError: the cluster had no room in time; nothing is reserved.
    """
    group: PlacementGroup = placement_group(bundles, strategy="PACK", name=f"flashsd-{name}")
    try:
        await asyncio.wait_for(group.ready(), timeout_s)
    except asyncio.TimeoutError:
        remove_placement_group(group)
        raise UnavailableError(
            f"{name}: the cluster had no room for {bundles} within placement.start_timeout_s"
        ) from None
    return group


def nodes_of(group: PlacementGroup) -> list[str]:
    """The ids of the nodes that hold the bundles, in their order."""
    by_bundle = placement_group_table(group)["bundles_to_node_id"]
    return [by_bundle[index] for index in sorted(by_bundle)]


async def launch(
    part: type,
    name: str,
    group: PlacementGroup,
    index: int,  # of the bundle
    resources: Bundle,
    arguments: tuple[Any, ...],
    timeout_s: float,
) -> Member:
    """The actor was made in its bundle and has answered.

    Raises:
        UnavailableError: it could not be made, or did not answer in time; the message says why.
    """
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index)
    options = {
        "num_cpus": resources.get("CPU", 0),
        "num_gpus": resources.get("GPU", 0),
        "scheduling_strategy": strategy,
        "max_concurrency": 1000,  # a coroutine for each open feed and order
    }
    handle: Any = ray.remote(part).options(**options).remote(*arguments)
    member = Member(name, handle, group)
    try:
        with errors_of(name):
            await asyncio.wait_for(handle.status.remote(), timeout_s)
    except asyncio.TimeoutError:
        member.kill()
        raise UnavailableError(f"{name} did not start within placement.start_timeout_s") from None
    except UnavailableError:
        member.kill()
        raise
    return member


async def is_alive(member: Member, timeout_s: float) -> tuple[bool, str]:
    """Whether the actor answers in time; what it complains of, or why it counts as lost."""
    try:
        with errors_of(member.name):
            answer = await asyncio.wait_for(member.handle.status.remote(), timeout_s)
    except asyncio.TimeoutError:
        return False, f"no answer within placement.health_timeout_s ({timeout_s:g} s)"
    except UnavailableError as error:
        return False, str(error)
    return True, answer if isinstance(answer, str) else ""
