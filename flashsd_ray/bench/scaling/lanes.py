"""A lane as it is simulated: the product's own round planning, over requests that are only counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from flashsd_ray.bench.scaling.kernel import Simulation, Station
from flashsd_ray.scheduling.rounds import Standing, plan_round

if TYPE_CHECKING:
    from flashsd_ray.bench.scaling.service import Service


@dataclass(slots=True, eq=False)
class Request:
    """One request on its way."""

    name: str
    picture: str
    began_s: float
    edge: int
    num_prompt: int
    ended: Callable[[], None]  # called where the client has everything
    num_cached: int = 0
    num_new: int = 0

    @property
    def standing(self) -> Standing:
        """Where it stands before a round."""
        return Standing(self.name, self.num_prompt + self.num_new, self.num_cached)


@dataclass(slots=True, eq=False)
class Outbox:
    """What a lane has for one edge: kept together for a moment, as actors/subscription.py does."""

    simulation: Simulation
    interval_s: float
    send: Callable[[int, list[Request]], None]
    num_chunks: int = 0
    ended: list[Request] = field(default_factory=list)
    sent_s: float = float("-inf")
    is_planned: bool = False

    def put(self, num_chunks: int, ended: list[Request], *, is_urgent: bool) -> None:
        """It goes to the edge now or with what comes next; beginnings and ends are urgent."""
        self.num_chunks += num_chunks
        self.ended += ended
        left_s = self.sent_s + self.interval_s - self.simulation.now_s
        if is_urgent or left_s <= 0:
            self.flush()
        elif not self.is_planned:
            self.is_planned = True
            self.simulation.after(left_s, self.flush)

    def flush(self) -> None:
        """Everything that waited is on its way."""
        self.is_planned = False
        if self.num_chunks:
            num_chunks, ended, self.num_chunks, self.ended = self.num_chunks, self.ended, 0, []
            self.sent_s = self.simulation.now_s
            self.send(num_chunks, ended)


@dataclass(slots=True, eq=False)
class SimulatedLane:
    """One lane: requests wait, get places, and are forwarded round after round."""

    service: Service
    lane_id: str
    station: Station
    waiting: list[Request] = field(default_factory=list)
    running: dict[str, Request] = field(default_factory=dict)
    is_busy: bool = False
    outboxes: dict[int, Outbox] = field(default_factory=dict)
    rounds: int = 0
    judged: int = 0

    def outbox(self, edge: int) -> Outbox:
        """The way to an edge."""
        if edge not in self.outboxes:
            self.outboxes[edge] = self.service.outbox(edge)
        return self.outboxes[edge]

    def submit(self, request: Request) -> None:
        """The request waits for a place; a lane at rest begins a round."""
        self.waiting.append(request)
        if not self.is_busy:
            self.begin_round()

    def begin_round(self) -> None:
        """Requests have places as far as there are any, and a round is under way unless nobody is there."""
        service = self.service
        room = service.supply.max_running - len(self.running)
        placed, self.waiting = self.waiting[:room], self.waiting[room:]
        self.running |= {request.name: request for request in placed}
        self.is_busy = bool(self.running)
        if not self.is_busy:
            return
        plan = plan_round([one.standing for one in self.running.values()], service.supply.prefill_rows)
        judged = [self.running[name] for name in plan.verify]
        num_filled = sum(stop - self.running[name].num_cached for name, stop in plan.fill)
        num_prompt_rows = num_filled + sum(one.standing.missing - 1 for one in judged)
        num_rows = sum(1 + service.num_drafts(one) for one in judged)
        seconds = service.costs.round_time_s(num_rows=num_rows, num_prompt_rows=num_prompt_rows, num_placed=len(placed))
        self.station.serve(seconds, lambda: self.end_round(judged, dict(plan.fill)), held_s=service.costs.round_wait_s)

    def end_round(self, judged: list[Request], filled: dict[str, int]) -> None:
        """What the round gave is on its way to the edges, and the next one has begun."""
        self.rounds += 1
        self.judged += len(judged)
        for name, stop in filled.items():
            self.running[name].num_cached = stop
        by_edge: dict[int, list[Request]] = {}
        urgent: set[int] = set()
        for request in judged:
            by_edge.setdefault(request.edge, []).append(request)
            if request.num_new == 0:
                urgent.add(request.edge)  # its first token
            request.num_cached = request.num_prompt + request.num_new
            request.num_new += self.service.committed(request)
        for edge, mine in by_edge.items():
            ended = [one for one in mine if one.num_new >= self.service.workload.new_tokens]
            for request in ended:
                del self.running[request.name]
            self.outbox(edge).put(len(mine), ended, is_urgent=bool(ended) or edge in urgent)
        self.begin_round()
