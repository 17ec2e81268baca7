"""A small discrete-event kernel: time, cores that are shared, and stations with queues. Nothing here is random."""

from __future__ import annotations

import heapq
import itertools
from collections import deque
from collections.abc import Callable

Act = Callable[[], None]


class Simulation:
    """Events in the order of their times; those of one moment in the order in which they were made."""

    def __init__(self) -> None:
        self.now_s = 0.0
        self._numbers = itertools.count()
        self._events: list[tuple[float, int, Act]] = []

    def after(self, delay_s: float, act: Act) -> None:
        """It happens so much later.

        Raises:
            ValueError: the delay is negative.
        """
        if delay_s < 0:
            raise ValueError(f"nothing happens in the past: {delay_s}")
        heapq.heappush(self._events, (self.now_s + delay_s, next(self._numbers), act))

    def run(self, is_over: Callable[[], bool] = lambda: False) -> None:
        """Everything has happened up to the moment at which it is over, or at which nothing is left to happen."""
        while self._events and not is_over():
            self.now_s, _, act = heapq.heappop(self._events)
            act()


def slowness(num_busy: float, num_cores: int, slowdown: float) -> float:
    """How many times longer a task takes while so many cores are busy; ``slowdown`` when all of them are."""
    if num_cores < 2:
        return 1.0
    return 1.0 + min(1.0, max(0.0, num_busy - 1) / (num_cores - 1)) * (slowdown - 1)


class Cores:
    """Processor time of one machine: what works at the same time shares it evenly.

    With ``num_cores`` 0 everything has a core of its own. ``slowdown`` is how many times longer a task takes when all
    cores are busy than when it is alone: cores share caches, memory and sometimes their very arithmetic units.
    """

    def __init__(self, simulation: Simulation, num_cores: int = 0, slowdown: float = 1.0) -> None:
        """Raises ValueError when cores would be faster together than alone."""
        if num_cores < 0 or slowdown < 1.0:
            raise ValueError(f"num_cores {num_cores} and slowdown {slowdown} must be at least 0 and 1")
        self._simulation = simulation
        self._num_cores = num_cores
        self._slowdown = slowdown
        self._numbers = itertools.count()
        self._tasks: list[tuple[float, int, Act]] = []  # by the progress at which each is done
        self._progress_s = 0.0  # work that each task has got that was there all the time
        self._looked_s = 0.0
        self._plan = 0

    def work(self, seconds: float, done: Act) -> None:
        """So much processor time is used, then it is done."""
        if not self._num_cores:
            self._simulation.after(seconds, done)
            return
        self._advance()
        heapq.heappush(self._tasks, (self._progress_s + seconds, next(self._numbers), done))
        self._plan_next()

    def speed(self, num_tasks: int) -> float:
        """Of each of so many tasks; 1 is a task alone on the machine."""
        busy = min(num_tasks, self._num_cores)
        return busy / max(num_tasks, 1) / slowness(busy, self._num_cores, self._slowdown) if busy else 1.0

    def _advance(self) -> None:
        now_s = self._simulation.now_s
        if self._tasks:
            self._progress_s += (now_s - self._looked_s) * self.speed(len(self._tasks))
        self._looked_s = now_s

    def _plan_next(self) -> None:
        self._plan += 1
        if self._tasks:
            plan, left_s = self._plan, max(0.0, self._tasks[0][0] - self._progress_s)
            self._simulation.after(left_s / self.speed(len(self._tasks)), lambda: self._finish(plan))

    def _finish(self, plan: int) -> None:
        if plan != self._plan:
            return  # something came or went since this was planned
        self._advance()
        self._progress_s, _, done = heapq.heappop(self._tasks)
        self._plan_next()
        done()


class Station:
    """Workers that take what waits for them, first come first served."""

    def __init__(self, simulation: Simulation, cores: Cores, num_workers: int = 1) -> None:
        self._simulation = simulation
        self._cores = cores
        self.num_workers = num_workers
        self._num_busy = 0
        self._waiting: deque[tuple[float, float, float, Act]] = deque()
        self.busy_s = 0.0  # of all workers together
        self.waited_s = 0.0  # of everything that was served
        self.num_served = 0

    def serve(self, seconds: float, done: Act, *, held_s: float = 0.0) -> None:
        """A worker spends so much processor time on it, and is held for a while in which nobody works; then it is done."""
        self._waiting.append((self._simulation.now_s, seconds, held_s, done))
        self._take()

    def _take(self) -> None:
        while self._waiting and self._num_busy < self.num_workers:
            arrived_s, seconds, held_s, done = self._waiting.popleft()
            self._num_busy += 1
            self.waited_s += self._simulation.now_s - arrived_s
            end = self._ending(self._simulation.now_s, done)
            self._cores.work(seconds, self._held(held_s, end) if held_s else end)

    def _held(self, seconds: float, end: Act) -> Act:
        return lambda: self._simulation.after(seconds, end)

    def _ending(self, began_s: float, done: Act) -> Act:
        def end() -> None:
            self._num_busy -= 1
            self.num_served += 1
            self.busy_s += self._simulation.now_s - began_s
            done()
            self._take()

        return end
