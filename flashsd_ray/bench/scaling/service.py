"""The service as it is simulated: real routing and real round planning over simulated time.

Users ask, wait for the end of the answer, and ask again. A request passes an edge, Redis, an encoder and a lane; what a
round gave comes back through the edge, one feed for each edge that has requests in it.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass
from statistics import fmean

from flashsd_ray.bench.scaling.costs import Costs, Supply, Workload
from flashsd_ray.bench.scaling.kernel import Cores, Simulation, Station
from flashsd_ray.bench.scaling.lanes import Outbox, Request, SimulatedLane
from flashsd_ray.scheduling.routing import LaneLoad, choose_lane

FEWEST_REQUESTS = 4  # of which the two in the middle are looked at


@dataclass(frozen=True, slots=True)
class Prediction:
    """What a simulated load came to."""

    num_requests: int
    seconds: float  # from the first request to the last end
    tokens_per_s: float  # over all of it, as a measurement of the same load counts
    steady_tokens_per_s: float  # in its middle, while everybody asks
    answer_s: float  # mean time of a request
    mean_batch: float  # requests judged in a round
    utilisation: dict[str, float]  # share of its time that a part works, in the middle

    @property
    def limit(self) -> str:
        """The busiest part."""
        return max(self.utilisation, key=lambda part: self.utilisation[part])


class Service:
    """Edges, encoders, lanes and Redis with these costs."""

    def __init__(self, costs: Costs, workload: Workload, supply: Supply, seed: int = 0) -> None:
        self.costs, self.workload, self.supply = costs, workload, supply
        self._chance = random.Random(seed)
        self._simulation = Simulation()
        self._cores = Cores(self._simulation, supply.num_cores, supply.slowdown)
        self._loops = [self._station() for _ in range(supply.num_edges)]
        self._decoders = [self._station(supply.decode_threads) for _ in range(supply.num_edges)]
        self._encoders = self._station(supply.num_encoders)
        self._redis = self._station()
        self._clients = self._station()  # one process, as the load generator is
        self._fleet = self._station()
        self._lanes = {f"lane-{n}": SimulatedLane(self, f"lane-{n}", self._station()) for n in range(supply.num_lanes)}
        self._ends: list[tuple[float, float]] = []  # moment and duration of each answer
        self._num_tokens = 0
        self._marks: list[tuple[float, int, dict[str, float]]] = []

    def run(self, num_users: int, num_requests: int) -> Prediction:
        """So many requests were asked, each user one after the other.

        Raises:
            ValueError: there is nobody, or too little is asked to have a middle.
        """
        if num_users < 1 or num_requests < FEWEST_REQUESTS:
            raise ValueError(f"{num_users} users and {num_requests} requests; at least 1 and {FEWEST_REQUESTS}")
        names = iter(range(num_requests))
        middle = (num_requests // 4, 3 * num_requests // 4)

        def ask(user: int) -> None:
            number = next(names, None)
            if number is not None:
                self._ask(number, user, lambda: ended(user))

        def ended(user: int) -> None:
            if len(self._ends) in middle:
                self._marks.append((self._simulation.now_s, self._num_tokens, self._busy_s()))
            ask(user)

        for user in range(num_users):
            ask(user)
        for _ in self._lanes:
            self._watch(1.0)
        if self.costs.ray_idle and self.supply.num_cores:
            self._idle(0.1)
        self._simulation.run(lambda: len(self._ends) >= num_requests)
        return self._prediction(num_requests)

    def num_drafts(self, request: Request) -> int:
        """Tokens that are drafted for a request: none before its first token, and none past its end."""
        left = self.workload.new_tokens - request.num_new
        return min(self.workload.draft_length, left - 1) if request.num_new else 0

    def committed(self, request: Request) -> int:
        """Tokens that a round adds to a request."""
        left = self.workload.new_tokens - request.num_new
        draw = self._chance.random() if request.num_new else 1.0  # the prefill's round has no drafts
        num_new = min(left, 1 + sum(draw < share for share in self.workload.survival))
        self._num_tokens += num_new
        return num_new

    def outbox(self, edge: int) -> Outbox:
        """A way from a lane to an edge."""
        return Outbox(
            self._simulation, self.supply.stream_interval_s, lambda chunks, ended: self.deliver(edge, chunks, ended)
        )

    def deliver(self, edge: int, num_chunks: int, ended: list[Request]) -> None:
        """An edge gets what a round gave; clients whose answers end there get all of it."""
        costs = self.costs
        self._beside(costs.ray_feed_s, costs.lane_beside_feed_s, costs.edge_beside_feed_s)

        def arrived() -> None:
            self._serve_clients(costs.client_chunk_s * num_chunks, lambda: _end(ended))

        self._loops[edge].serve(costs.edge_feed_s + costs.edge_chunk_s * num_chunks, arrived)

    def _station(self, num_workers: int = 1) -> Station:
        return Station(self._simulation, self._cores, num_workers)

    def _beside(self, *several_s: float) -> None:
        """Threads that nobody waits for have work; elsewhere than here they have cores of their own."""
        if self.supply.num_cores:
            for seconds in several_s:
                if seconds:
                    self._cores.work(seconds, _nothing)

    def _serve_clients(self, seconds: float, done: Callable[[], None]) -> None:
        # Clients of a cluster are elsewhere.
        if self.supply.num_cores:
            self._clients.serve(seconds, done)
        else:
            done()

    def _ask(self, number: int, user: int, ended: Callable[[], None]) -> None:
        costs, began_s = self.costs, self._simulation.now_s

        def finish() -> None:
            self._ends.append((self._simulation.now_s, self._simulation.now_s - began_s))
            ended()

        request = Request(
            name=f"request {number}",
            picture=f"picture {number % self.workload.num_pictures}",
            began_s=began_s,
            edge=user % self.supply.num_edges,
            num_prompt=self.workload.prompt_rows,
            ended=finish,
        )
        own_s = costs.edge_request_s + costs.route_s * self.supply.num_lanes
        loop, decoder = self._loops[request.edge], self._decoders[request.edge]
        encode = self._encode_after_redis if self.supply.has_redis else self._encode
        self._beside(costs.ray_request_s, costs.lane_beside_request_s)
        self._beside(costs.encoder_beside_s, costs.edge_beside_request_s)
        decoded = _then(loop, own_s, lambda: self._simulation.after(costs.hand_over_s, lambda: encode(request)))
        self._serve_clients(costs.client_request_s, lambda: decoder.serve(costs.decode_s, decoded))

    def _encode_after_redis(self, request: Request) -> None:
        is_there = self._chance.random() < self.workload.cached_share
        go_on = self._submit if is_there else self._encode
        self._redis.serve(self.costs.redis_s, lambda: go_on(request))

    def _encode(self, request: Request) -> None:
        seconds = self.costs.encode_s + self.costs.frame_s * self.workload.num_frames

        def encoded() -> None:
            if self.supply.has_redis:
                self._redis.serve(self.costs.redis_s, _nothing)  # written beside the answer
            self._submit(request)

        self._encoders.serve(seconds, encoded)

    def _submit(self, request: Request) -> None:
        loads = [LaneLoad(key, len(one.waiting) + len(one.running)) for key, one in self._lanes.items()]
        lane_id = choose_lane(loads, request.picture)
        assert lane_id is not None  # none drains
        self._lanes[lane_id].submit(request)

    def _watch(self, period_s: float) -> None:
        """The fleet looks after a lane."""

        def look() -> None:
            self._fleet.serve(self.costs.watch_s * period_s, _nothing)
            self._simulation.after(period_s, look)

        if self.costs.watch_s:
            self._simulation.after(period_s, look)

    def _idle(self, period_s: float) -> None:
        """Ray's processes do what they do while nothing happens."""

        def work() -> None:
            self._cores.work(self.costs.ray_idle * period_s, _nothing)
            self._simulation.after(period_s, work)

        self._simulation.after(0.0, work)

    def _busy_s(self) -> dict[str, float]:
        """Worker seconds of each part so far, per worker."""
        parts = {
            "lanes": [one.station for one in self._lanes.values()],
            "encoders": [self._encoders],
            "edge loop": self._loops,
            "edge decoding": self._decoders,
            "redis": [self._redis],
            "fleet": [self._fleet],
        }
        return {
            name: sum(one.busy_s for one in stations) / sum(one.num_workers for one in stations)
            for name, stations in parts.items()
        }

    def _prediction(self, num_requests: int) -> Prediction:
        seconds, tokens = self._ends[-1][0], self.workload.new_tokens
        (from_s, tokens_before, before), (to_s, tokens_after, after) = self._marks
        passed_s = to_s - from_s
        return Prediction(
            num_requests=num_requests,
            seconds=seconds,
            tokens_per_s=num_requests * tokens / seconds,
            steady_tokens_per_s=(tokens_after - tokens_before) / passed_s if passed_s else 0.0,
            answer_s=fmean(duration for _, duration in self._ends),
            mean_batch=sum(one.judged for one in self._lanes.values())
            / max(1, sum(one.rounds for one in self._lanes.values())),
            utilisation={name: (after[name] - before[name]) / passed_s if passed_s else 0.0 for name in after},
        )


def predict(
    costs: Costs,
    workload: Workload,
    supply: Supply,
    *,
    num_users: int,
    num_requests: int,
    seed: int = 0,
) -> Prediction:
    """What this load would come to; the same arguments give the same prediction."""
    return Service(costs, workload, supply, seed).run(num_users, num_requests)


def _then(station: Station, seconds: float, done: Callable[[], None]) -> Callable[[], None]:
    return lambda: station.serve(seconds, done)


def _end(requests: list[Request]) -> None:
    for request in requests:
        request.ended()


def _nothing() -> None:
    """Nobody waits for it."""
