"""Clusters of every size, simulated: how fast they are, and which part stops them."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from flashsd_ray.bench.scaling.costs import Costs, Supply, Workload, demands
from flashsd_ray.bench.scaling.service import Prediction, predict
from flashsd_ray.config import Config

BUSY = 0.7  # share of its time that a part which is meant not to be the limit works at most
SEED = 20260
REQUESTS_PER_USER = 8  # of a simulated load


@dataclass(frozen=True, slots=True, kw_only=True)
class Point:
    """One size of cluster, every part on cores of its own."""

    scenario: str
    supply: Supply
    prediction: Prediction

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        found = self.prediction
        return {
            "scenario": self.scenario,
            **self.supply.as_dict(),
            "tokens_per_s": found.steady_tokens_per_s,
            "answer_s": found.answer_s,
            "mean_batch": found.mean_batch,
            "utilisation": found.utilisation,
            "limit": found.limit,
        }


def scale(
    costs: Costs,
    workload: Workload,
    *,
    users_per_lane: int,
    lanes: Sequence[int],
    on_point: Callable[[], None] = lambda: None,
) -> list[Point]:
    """Clusters of every size: with one edge, and with as many as are needed; encoders are always enough."""
    points = []
    for scenario in ("one edge", "enough edges"):
        for num_lanes in lanes:
            supply = _cluster(costs, workload, num_lanes, users_per_lane, has_one_edge=scenario == "one edge")
            num_users = users_per_lane * num_lanes
            found = predict(
                costs,
                workload,
                supply,
                num_users=num_users,
                num_requests=REQUESTS_PER_USER * num_users,
                seed=SEED,
            )
            points.append(Point(scenario=scenario, supply=supply, prediction=found))
            on_point()
    return points


def _cluster(costs: Costs, workload: Workload, num_lanes: int, batch: int, *, has_one_edge: bool) -> Supply:
    supply = replace(_one_of_each(costs), num_lanes=num_lanes)
    needs = demands(costs, workload, supply, batch)
    per_second = num_lanes / needs["lanes"]
    num_encoders = max(1, math.ceil(per_second * needs["encoders"] / BUSY))
    supply = replace(supply, num_encoders=num_encoders)
    while not has_one_edge:
        needs = demands(costs, workload, supply, batch)
        loop, threads = needs["edge loop"], needs["edge decoding"] / supply.decode_threads
        enough = math.ceil(per_second * max(loop, threads) / BUSY)
        if enough <= supply.num_edges:
            break
        supply = replace(supply, num_edges=enough)  # more edges have more feeds, so look again
    return supply


def _one_of_each(costs: Costs) -> Supply:
    """As they are where nothing else is set."""
    usual = Config()
    return Supply(
        num_lanes=1,
        decode_threads=usual.serving.decode_threads,
        max_running=usual.scheduling.max_running,
        prefill_rows=usual.scheduling.prefill_rows,
        stream_interval_s=usual.scheduling.stream_interval_s,
        has_redis=costs.redis_s > 0,
    )


def bounds(costs: Costs, workload: Workload, *, users_per_lane: int) -> dict[str, float]:
    """Lanes that one of each part can keep busy; infinite where it has nothing to do."""
    supply = _one_of_each(costs)
    needs = demands(replace(costs, route_s=0.0), workload, supply, users_per_lane)
    per_lane = 1.0 / needs["lanes"]  # requests a second
    found = {
        "encoder": _lanes(per_lane * needs["encoders"]),
        "edge: decoding threads": _lanes(per_lane * needs["edge decoding"] / supply.decode_threads),
        # Routing looks at every lane, so its part of the loop grows with the square of their number.
        "edge: event loop": _loop_bound(per_lane * needs["edge loop"], per_lane * costs.route_s),
        "Redis": _lanes(per_lane * needs["redis"]),
        "fleet": _lanes(costs.watch_s),
    }
    return dict(sorted(found.items(), key=lambda item: item[1]))


def _lanes(share: float) -> float:
    """Of a worker's time, for each lane."""
    return 1.0 / share if share > 0 else math.inf


def _loop_bound(share: float, routing: float) -> float:
    """n with n * share + n * n * routing = 1."""
    if routing <= 0:
        return _lanes(share)
    return (math.sqrt(share * share + 4 * routing) - share) / (2 * routing)
