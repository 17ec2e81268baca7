"""Which lane a request goes to: the one that may hold its prefix, unless that one is much busier than another.

Rendezvous hashing lets every edge come to the same choice without talking to the others, and a lane that comes or
goes moves only the requests that were its own.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass

SLACK = 4  # requests that a lane may have more than the idlest one and still be chosen for its prefix


@dataclass(frozen=True, slots=True)
class LaneLoad:
    """What is known of a lane when a request arrives."""

    lane_id: str
    num_open: int  # requests waiting and running
    is_draining: bool = False
    has_suspects: bool = False  # requests that lost another lane, beside whom nobody else is decoded


def choose_lane(
    lanes: Sequence[LaneLoad],
    prefix_key: str,
    *,
    is_alone: bool = False,  # the request will be decoded with nobody beside it
) -> str | None:
    """The lane for a request whose prompt begins with what the key stands for; None when no lane takes requests.

    An empty key says that there is nothing to share.
    """
    taking = [lane for lane in lanes if not lane.is_draining]
    # Who is decoded alone holds a lane up: better one that is held up already.
    taking = [lane for lane in taking if lane.has_suspects == is_alone] or taking
    if not taking:
        return None
    idlest = min(taking, key=lambda lane: (lane.num_open, lane.lane_id))
    if not prefix_key:
        return idlest.lane_id
    near = [lane for lane in taking if lane.num_open <= idlest.num_open + SLACK]
    return max(near, key=lambda lane: _affinity(prefix_key, lane.lane_id)).lane_id


def _affinity(prefix_key: str, lane_id: str) -> bytes:
    return hashlib.blake2b(f"{prefix_key}@{lane_id}".encode(), digest_size=8).digest()
