"""How lanes, encoders and drafters are started: where they go, what they are told, what is undone when they fail."""

from __future__ import annotations

import secrets
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from ray.util.placement_group import PlacementGroup, remove_placement_group

from flashsd_ray.config import Config, PlacementConfig
from flashsd_ray.runtime.addresses import address_for
from flashsd_ray.runtime.gang import RankPart, start_ranks
from flashsd_ray.runtime.members import Bundle, Member, bundle, launch, reserve
from flashsd_ray.runtime.parts import DrafterAddress, DrafterPart, DrafterReport, EncoderPart, LanePart


@dataclass(slots=True, eq=False)
class Drafting:
    """The dedicated drafter of a lane."""

    member: Member
    address: DrafterAddress


@dataclass(slots=True, eq=False)
class LaneMember(Member):
    """A lane, its drafter where that has a process of its own, and the other ranks where its target is split."""

    drafting: Drafting | None = None
    ranks: list[Member] = field(default_factory=list)  # of a split target, all but the first

    def remove(self) -> None:
        """Lane, drafter and ranks have ended and their places are free for others."""
        if self.drafting is not None:
            self.drafting.member.kill()
        for rank in self.ranks:
            rank.kill()
        Member.remove(self)


@dataclass(frozen=True, slots=True)
class Kinds:
    """What runs inside the actors."""

    lane: type = LanePart
    encoder: type = EncoderPart
    drafter: type = DrafterPart
    rank: type = RankPart


class Starter:
    """Starts parts as the configuration says; what fails leaves nothing behind."""

    def __init__(self, config: Config, kinds: Kinds | None = None) -> None:
        self._config = config
        self._kinds = kinds or Kinds()
        self._placement = config.placement

    async def lane(self, name: str) -> LaneMember:
        """The lane has answered.

        Raises:
            UnavailableError: there was no room for it, or it did not answer in time.
            FlashSDError: its constructor raised it.
        """
        placement = self._placement
        num_ranks = self._config.model.tensor_parallel
        bundles = [lane_bundle(placement)] * num_ranks
        if placement.kind == "dedicated":
            bundles.append(drafter_bundle(placement))
        group = await reserve(name, bundles, placement.start_timeout_s, placement.strategy)
        with _removed_on_failure(group):
            member = LaneMember(name, None, group)
            if len(bundles) > num_ranks:
                member.drafting = await self._drafter(member, bundles[-1])
            gang = None
            if num_ranks > 1:
                member.ranks, gang = await start_ranks(self._config, name, group, bundles[0], self._kinds.rank)
            address = member.drafting.address if member.drafting else None
            arguments = (self._config, name, address, gang) if gang else (self._config, name, address)
            started = await launch(self._kinds.lane, name, group, 0, bundles[0], arguments, placement.start_timeout_s)
            member.handle = started.handle
        return member

    async def encoder(self, name: str) -> Member:
        """The encoder has answered; raises what ``lane`` does."""
        placement = self._placement
        resources = encoder_bundle(placement)
        group = await reserve(name, [resources], placement.start_timeout_s, placement.strategy)
        with _removed_on_failure(group):
            return await launch(
                self._kinds.encoder, name, group, 0, resources, (self._config, name), placement.start_timeout_s
            )

    async def drafter_again(self, drafting: Drafting) -> None:
        """A drafter is there in the place and at the address of the one that was lost."""
        placement, lost = self._placement, drafting.member
        arguments = (self._config, lost.name, drafting.address)
        drafting.member = await launch(
            self._kinds.drafter,
            lost.name,
            lost.group,
            self._drafter_index,
            drafter_bundle(placement),
            arguments,
            placement.start_timeout_s,
        )

    @property
    def _drafter_index(self) -> int:
        """Its bundle lies behind those of the ranks."""
        return self._config.model.tensor_parallel

    async def _drafter(self, lane: LaneMember, resources: Bundle) -> Drafting:
        address = DrafterAddress(address=address_for(lane.group, self._drafter_index), key=secrets.token_bytes(32))
        name = f"drafter-of-{lane.name}"
        arguments = (self._config, name, address)
        timeout_s = self._placement.start_timeout_s
        member = await launch(
            self._kinds.drafter, name, lane.group, self._drafter_index, resources, arguments, timeout_s
        )
        # Where it listens on another node, the port is known only now.
        report: DrafterReport = await member.handle.status.remote()
        return Drafting(member, DrafterAddress(address=report.address, key=address.key))


def lane_bundle(placement: PlacementConfig) -> Bundle:
    """What a lane reserves."""
    return bundle(placement.lane_cpus, placement.lane_gpus, placement.lane_resources)


def encoder_bundle(placement: PlacementConfig) -> Bundle:
    """What an encoder reserves."""
    return bundle(placement.encoder_cpus, placement.encoder_gpus, placement.encoder_resources)


def drafter_bundle(placement: PlacementConfig) -> Bundle:
    """What a dedicated drafter reserves."""
    return bundle(placement.drafter_cpus, placement.drafter_gpus, placement.drafter_resources)


@contextmanager
def _removed_on_failure(group: PlacementGroup) -> Iterator[None]:
    try:
        yield
    except BaseException:
        remove_placement_group(group)  # with whatever runs in it
        raise


def cpus_needed(config: Config) -> float:
    """CPUs that the whole fleet reserves when it is as large as it may become."""
    placement, limits = config.placement, config.autoscaling
    lane = config.model.tensor_parallel * placement.lane_cpus
    lane += placement.drafter_cpus if placement.kind == "dedicated" else 0.0
    num_lanes = limits.max_lanes or placement.num_lanes
    num_encoders = limits.max_encoders or placement.num_encoders
    return num_lanes * lane + num_encoders * placement.encoder_cpus
