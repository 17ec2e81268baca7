"""The ranks of a split target as one gang: reserved together, started together, lost together.

Rank 0 is the lane itself. The others are actors in its placement group, which end with it.
"""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

import ray
from ray.util.placement_group import PlacementGroup

from flashsd_ray.actors.rank_address import RankAddress
from flashsd_ray.config import Config
from flashsd_ray.runtime.addresses import address_for, hosts_for
from flashsd_ray.runtime.liveness import HEALTH
from flashsd_ray.runtime.members import Bundle, Look, Member, launch, look_at
from flashsd_ray.telemetry.logs import log_as


@dataclass(frozen=True, slots=True, kw_only=True)
class Gang:
    """What rank 0 is told of the others."""

    host: str  # its own, as they reach it
    ranks: tuple[RankAddress, ...]


class RankPart:
    """A rank that is not the lane."""

    def __init__(self, config: Config, name: str, rank: int, address: RankAddress) -> None:
        """The rank listens, and loads its share meanwhile; raises UnavailableError when the address is taken."""
        from flashsd_ray.actors.tensor_parallel import RankHost

        log_as(config.telemetry, name)
        self._host = RankHost(config.model, rank, address.host)
        self._listener = self._host.listen(address.address, address.key)
        self._listener.start()

    @ray.method(concurrency_group=HEALTH)
    async def status(self) -> str:
        """Where the rank listens.

        Raises:
            UnavailableError: its lane is gone, or it could not do what it was told.
            CheckpointError: its share could not be loaded.
        """
        self._host.check()
        return self._listener.address


async def start_ranks(
    config: Config,
    lane_name: str,
    group: PlacementGroup,
    resources: Bundle,  # of each rank
    part: type = RankPart,
) -> tuple[list[Member], Gang]:
    """The actors of all ranks but the first, in their bundles, and what the first is told of them.

    Raises:
        UnavailableError: one could not be made, or did not answer in time.
    """
    size, timeout_s = config.model.tensor_parallel, config.placement.start_timeout_s
    hosts = hosts_for(group, size)

    async def started(rank: int) -> tuple[Member, RankAddress]:
        name = f"rank-{rank}-of-{lane_name}"
        key = secrets.token_bytes(32)
        told = RankAddress(address=address_for(group, rank), host=hosts[rank], key=key)
        member = await launch(part, name, group, rank, resources, (config, name, rank, told), timeout_s)
        # Where it listens on another node, the port is known only now.
        where = await member.handle.status.remote()
        return member, RankAddress(address=where, host=hosts[rank], key=key)

    others = await asyncio.gather(*map(started, range(1, size)))
    return [member for member, _ in others], Gang(host=hosts[0], ranks=tuple(told for _, told in others))


async def look_at_gang(lane: Member, ranks: Sequence[Member], timeout_s: float) -> Look:
    """How the lane is; lost as a whole when one of its ranks is."""
    first, *others = await asyncio.gather(*(look_at(member, timeout_s) for member in (lane, *ranks)))
    for member, look in zip(ranks, others, strict=True):
        if first.lives and not look.lives:
            return Look(loss=f"{member.name} is lost: {look.loss}")
    return first
