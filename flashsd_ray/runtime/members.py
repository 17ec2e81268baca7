"""Single actors of the pipeline: started where they were given room, looked after, ended."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass
from typing import Any

import ray
from ray.util.placement_group import PlacementGroup, placement_group, placement_group_table, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from flashsd_ray import errors
from flashsd_ray.config import amounts
from flashsd_ray.errors import FlashSDError, UnavailableError
from flashsd_ray.runtime.clients import errors_of
from flashsd_ray.runtime.liveness import HEALTH
from flashsd_ray.timeouts import within

Bundle = dict[str, float]  # resources that one actor reserves

ORDERS = 1000  # calls of an actor at the same time: a coroutine for each open feed and order
LOOKS = 100  # and as many questions how it is, whatever else is open
_RAISED = re.compile(r"flashsd_ray\.errors\.(\w+): (.+)")


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


def bundle(cpus: float, gpus: float, custom: tuple[str, ...] = ()) -> Bundle:
    """The resources of one actor; one that is said to need nothing gets a sliver, since a bundle must hold something."""
    wanted = {"CPU": cpus, "GPU": gpus, **amounts(custom, "resources")}
    return {key: value for key, value in wanted.items() if value > 0} or {"CPU": 0.01}


async def reserve(name: str, bundles: list[Bundle], timeout_s: float, strategy: str = "PACK") -> PlacementGroup:
    """Room for actors that belong together; a cluster that scales adds nodes for it.

    Raises:
        UnavailableError: the cluster had no room in time; nothing is reserved.
    """
    group: PlacementGroup = placement_group(bundles, strategy=strategy, name=f"flashsd-{name}")
    try:
        await within(timeout_s, group.ready())
    except asyncio.TimeoutError:
        remove_placement_group(group)
        raise UnavailableError(
            f"{name}: the cluster had no room for {bundles} within placement.start_timeout_s"
        ) from None
    except BaseException:
        remove_placement_group(group)
        raise
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
        FlashSDError: its constructor raised it.
    """
    custom = {key: amount for key, amount in resources.items() if key not in ("CPU", "GPU")}
    remote: Any = ray.remote
    make = remote(concurrency_groups={HEALTH: LOOKS})(part).options(
        num_cpus=resources.get("CPU", 0),
        num_gpus=resources.get("GPU", 0),
        resources=custom,
        scheduling_strategy=PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=index),
        max_concurrency=ORDERS,
    )
    handle: Any = make.remote(*arguments)
    member = Member(name, handle, group)
    try:
        with errors_of(name):
            await within(timeout_s, handle.status.remote())
    except asyncio.TimeoutError:
        member.kill()
        raise UnavailableError(f"{name} did not start within placement.start_timeout_s") from None
    except UnavailableError as error:
        member.kill()
        raise raised_in(str(error.__cause__)) or error from error
    return member


def raised_in(text: str) -> FlashSDError | None:
    """The error of ours that a text of Ray ends with: what a constructor raises is passed on as text only."""
    found = _RAISED.findall(text)
    if not found:
        return None
    name, message = found[-1]
    kind: Any = getattr(errors, name, None)
    is_ours = isinstance(kind, type) and issubclass(kind, FlashSDError)
    return kind(message) if is_ours else None


@dataclass(frozen=True, slots=True)
class Look:
    """What came of asking an actor how it is."""

    answer: Any = None  # what its ``status`` returned
    loss: str = ""  # why it counts as lost; empty when it answered

    @property
    def lives(self) -> bool:
        """Whether it answered."""
        return not self.loss


async def look_at(member: Member, timeout_s: float) -> Look:
    """How the actor is, or why it counts as lost."""
    try:
        with errors_of(member.name):
            return Look(await within(timeout_s, member.handle.status.remote()))
    except asyncio.TimeoutError:
        return Look(loss=f"no answer within placement.health_timeout_s ({timeout_s:g} s)")
    except UnavailableError as error:
        return Look(loss=str(error))
