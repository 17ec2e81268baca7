"""What each stage costs, as the simulation sees it. Every figure is processor time unless it says otherwise."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from typing import Any


@dataclass(frozen=True, slots=True, kw_only=True)
class Costs:
    """Seconds; a *feed* is the one message that a round of a lane sends to an edge, a *chunk* one request's part of it."""

    # The lane: target, drafter and scheduler, in one thread, and what the other threads of its process do.
    round_s: float = 0.0
    round_wait_s: float = 0.0  # time in which a round waits for the interpreter's lock: nobody else gets the lane
    row_s: float = 0.0  # for each row that is verified, anchors included
    prompt_row_s: float = 0.0
    place_s: float = 0.0  # for a request that gets a place
    lane_beside_request_s: float = 0.0
    lane_beside_feed_s: float = 0.0
    # The encoder.
    encode_s: float = 0.0  # for a request
    frame_s: float = 0.0
    encoder_beside_s: float = 0.0  # for a request, in the other threads
    # The edge: an event loop, threads beside it that decode pictures, and those of Ray.
    edge_request_s: float = 0.0
    edge_feed_s: float = 0.0
    edge_chunk_s: float = 0.0
    route_s: float = 0.0  # for each lane that the router may choose
    decode_s: float = 0.0  # for a request, in the threads
    edge_beside_request_s: float = 0.0
    edge_beside_feed_s: float = 0.0
    # Clients, where they share the machine.
    client_request_s: float = 0.0
    client_chunk_s: float = 0.0
    # Ray's own processes.
    ray_request_s: float = 0.0
    ray_feed_s: float = 0.0
    ray_idle: float = 0.0  # share of a core while nothing happens
    watch_s: float = 0.0  # of the fleet, for a second of a lane's life
    redis_s: float = 0.0  # of Redis, for one operation with the features of one request
    hand_over_s: float = 0.0  # time of a request that nobody works: messages under way

    def __post_init__(self) -> None:
        """Raises ValueError when something would cost less than nothing."""
        for item in fields(self):
            if getattr(self, item.name) < 0:
                raise ValueError(f"{item.name} is negative")

    def round_time_s(self, *, num_rows: int, num_prompt_rows: int, num_placed: int) -> float:
        """Processor time of one round of a lane."""
        return self.round_s + self.row_s * num_rows + self.prompt_row_s * num_prompt_rows + self.place_s * num_placed

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Workload:
    """What every request is like."""

    num_frames: int
    prompt_rows: int
    new_tokens: int
    draft_length: int
    # [i]: share of full blocks whose first i + 1 drafts all stand; falling.
    survival: tuple[float, ...] = ()
    num_pictures: int = 16  # different ones; requests with the same first picture like the same lane
    cached_share: float = 0.0  # of requests whose pictures are in Redis already

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


@dataclass(frozen=True, slots=True, kw_only=True)
class Supply:
    """What there is to serve with."""

    num_lanes: int
    num_encoders: int = 1
    num_edges: int = 1
    decode_threads: int = 2  # at each edge
    max_running: int = 32
    prefill_rows: int = 1024
    stream_interval_s: float = 0.0  # least time between two feeds that neither begin nor end an answer
    has_redis: bool = False
    num_cores: int = 0  # of the one machine that all share, clients too; 0: everything has a core of its own
    slowdown: float = 1.0  # of a task when all cores are busy

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def demands(
    costs: Costs,
    workload: Workload,
    supply: Supply,
    batch: float,  # requests that share a round
) -> Mapping[str, float]:
    """Seconds that one request needs of each part, however long it waits for it: bounds need no simulation.

    A part with so much demand and ``n`` workers cannot end more than ``n / demand`` requests a second.
    """
    tau = 1.0 + sum(workload.survival)
    rounds = 1 + max(0.0, workload.new_tokens - 1) / tau
    rows = 1 + (rounds - 1) * (workload.draft_length + 1)
    # A round has one feed for each edge, and there are never more than requests.
    feeds = rounds * min(supply.num_edges, batch) / batch
    lane = (
        (costs.round_s + costs.round_wait_s) * rounds / batch
        + costs.row_s * rows
        + costs.prompt_row_s * workload.prompt_rows
        + costs.place_s
    )
    edge = costs.edge_request_s + costs.route_s * supply.num_lanes
    edge += costs.edge_feed_s * feeds + costs.edge_chunk_s * rounds
    missed = 1.0 - workload.cached_share
    return {
        "lanes": lane,
        "encoders": missed * (costs.encode_s + costs.frame_s * workload.num_frames),
        "edge loop": edge,
        "edge decoding": costs.decode_s,
        "redis": (1.0 + missed) * costs.redis_s if supply.has_redis else 0.0,
    }
