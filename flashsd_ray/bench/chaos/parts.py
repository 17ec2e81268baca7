"""Parts that can be hurt: those of the product, which say which process they are and die of what is marked."""

from __future__ import annotations

import os
import signal
from typing import TYPE_CHECKING, Any

import ray

from flashsd_ray.runtime.gang import RankPart
from flashsd_ray.runtime.liveness import HEALTH
from flashsd_ray.runtime.parts import DrafterPart, EncoderPart, LanePart
from flashsd_ray.runtime.starting import Kinds
from flashsd_ray.serving.application.deployments import FleetDeployment

if TYPE_CHECKING:
    from flashsd_ray.runtime.parcels import Parcel
    from flashsd_ray.types import CaptionRequest, Conversation

LANE_POISON = "[kills lanes]"  # as a stop string
ENCODER_POISON = "[kills encoders]"  # in the prompt


class ChaosLane(LanePart):
    """A lane that a marked request kills."""

    @ray.method(concurrency_group=HEALTH)
    async def pid(self) -> int:
        """Its process."""
        return os.getpid()

    async def submit(self, subscriber: str, request: CaptionRequest, parcel: Parcel, encode_s: float) -> None:
        """As a lane does, unless the request is marked."""
        if LANE_POISON in request.sampling.stop:
            os.kill(os.getpid(), signal.SIGKILL)  # at once: on a busy machine a short answer may be out before
        await super().submit(subscriber, request, parcel, encode_s)


class ChaosEncoder(EncoderPart):
    """An encoder that a marked conversation kills."""

    @ray.method(concurrency_group=HEALTH)
    async def pid(self) -> int:
        """Its process."""
        return os.getpid()

    async def encode(self, conversation: Conversation, trace: str = "", ticket: str = "") -> tuple[float, Parcel]:
        """As an encoder does, unless the conversation is marked."""
        texts = [part for turn in conversation.turns for part in turn.parts if isinstance(part, str)]
        if ENCODER_POISON in "".join(texts):
            os.kill(os.getpid(), signal.SIGKILL)
        return await super().encode(conversation, trace, ticket)


class ChaosDrafter(DrafterPart):
    """A drafter that says which process it is."""

    @ray.method(concurrency_group=HEALTH)
    async def pid(self) -> int:
        """Its process."""
        return os.getpid()


class ChaosRank(RankPart):
    """A rank that says which process it is."""

    @ray.method(concurrency_group=HEALTH)
    async def pid(self) -> int:
        """Its process."""
        return os.getpid()


CHAOS_KINDS = Kinds(lane=ChaosLane, encoder=ChaosEncoder, drafter=ChaosDrafter, rank=ChaosRank)


class ChaosFleetDeployment(FleetDeployment):
    """A fleet of such parts, which says who they are."""

    kinds = CHAOS_KINDS

    async def parts(self) -> dict[str, Any]:
        """Every actor that runs now, by its name."""
        return await self._fleet.parts()
