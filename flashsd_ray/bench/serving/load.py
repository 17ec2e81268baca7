"""Many requests through one edge: some number of them always open, or each at its own moment whatever is open."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from time import perf_counter

from flashsd_ray.bench.serving.asker import Asker
from flashsd_ray.bench.serving.asks import Ask, Edge, Outcome


@dataclass(frozen=True, slots=True, kw_only=True)
class Load:
    """What is sent where, and when."""

    edge: Edge
    address: str
    asks: tuple[Ask, ...]
    authority: str = ""  # PEM file that the server's certificate is checked against
    concurrency: int = 0  # closed loop: so many requests are open at any time; 0: open loop
    arrivals_s: tuple[float, ...] = ()  # open loop: when each request is sent

    def __post_init__(self) -> None:
        """Raises ValueError when it is neither a closed nor an open loop."""
        if (self.concurrency > 0) == bool(self.arrivals_s):
            raise ValueError("a load has either a concurrency or moments of arrival")
        if self.arrivals_s and len(self.arrivals_s) != len(self.asks):
            raise ValueError(f"{len(self.asks)} requests need as many moments, got {len(self.arrivals_s)}")


async def carry_out(
    load: Load,
    asker: Asker,
    *,
    on_end: Callable[[], None] = lambda: None,  # called when a request has ended
    clock: Callable[[], float] = perf_counter,
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
) -> list[Outcome]:
    """The outcomes, in the order of the requests."""
    start_s = clock()
    outcomes: dict[int, Outcome] = {}

    def now() -> float:
        return clock() - start_s

    async def ask(index: int) -> None:
        outcomes[index] = await asker.ask(load.asks[index], now)
        on_end()

    async def ask_at(index: int, moment_s: float) -> None:
        await sleep(max(0.0, moment_s - now()))
        await ask(index)

    waiting = iter(range(len(load.asks)))

    async def ask_in_turn() -> None:
        for index in waiting:
            await ask(index)

    if load.concurrency:
        await asyncio.gather(*(ask_in_turn() for _ in range(load.concurrency)))
    else:
        await asyncio.gather(*(ask_at(index, moment_s) for index, moment_s in enumerate(load.arrivals_s)))
    return [outcomes[index] for index in range(len(load.asks))]
