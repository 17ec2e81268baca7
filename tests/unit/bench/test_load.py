"""Closed and open loops, with an asker that ends when the test wants it to and time that passes only in sleeps."""

from __future__ import annotations

import asyncio

import pytest

from flashsd_ray.bench.serving.asker import Now
from flashsd_ray.bench.serving.asks import Ask, Outcome
from flashsd_ray.bench.serving.load import Load, carry_out
from tests.unit.bench.conftest import new_ask


class SlowAsker:
    """Answers after some turns of the event loop, later requests sooner."""

    def __init__(self) -> None:
        self.num_open = self.most_open = 0

    async def open(self) -> None: ...

    async def close(self) -> None: ...

    async def ask(self, ask: Ask, now: Now) -> Outcome:
        start_s = now()
        self.num_open += 1
        self.most_open = max(self.most_open, self.num_open)
        for _ in range(20 - int(ask.name)):
            await asyncio.sleep(0)
        self.num_open -= 1
        return Outcome(name=ask.name, start_s=start_s, end_s=now())


def asks(count: int) -> tuple[Ask, ...]:
    return tuple(new_ask(b"", name=str(number)) for number in range(count))


@pytest.mark.parametrize("concurrency", [1, 3, 12, 40])
async def test_a_closed_loop_keeps_so_many_open_and_gives_outcomes_in_order(concurrency: int) -> None:
    asker, ended = SlowAsker(), list[None]()
    load = Load(edge="http", address="", asks=asks(12), concurrency=concurrency)
    outcomes = await carry_out(load, asker, on_end=lambda: ended.append(None))
    assert [outcome.name for outcome in outcomes] == [str(number) for number in range(12)]
    assert asker.most_open == min(concurrency, 12)
    assert len(ended) == 12


async def test_an_open_loop_sends_each_request_at_its_moment() -> None:
    now_s = [100.0]
    wakes: list[tuple[float, asyncio.Event]] = []
    all_sleep = asyncio.Event()

    async def sleep(wait_s: float) -> None:
        event = asyncio.Event()
        wakes.append((now_s[0] + wait_s, event))
        if len(wakes) == 3:
            all_sleep.set()
        await event.wait()

    async def pass_time() -> None:
        await all_sleep.wait()
        for moment_s, event in sorted(wakes, key=lambda wake: wake[0]):
            now_s[0] = moment_s
            event.set()
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    asker = SlowAsker()
    load = Load(edge="grpc", address="", asks=asks(3), arrivals_s=(0.5, 0.25, 4.0))
    outcomes, _ = await asyncio.gather(carry_out(load, asker, clock=lambda: now_s[0], sleep=sleep), pass_time())
    assert [outcome.start_s for outcome in outcomes] == [0.5, 0.25, 4.0]
    assert asker.most_open == 3  # nobody waits for anybody


@pytest.mark.parametrize(
    ("concurrency", "arrivals_s"), [(0, ()), (2, (1.0, 2.0)), (0, (1.0,))], ids=["neither", "both", "too few"]
)
def test_a_load_is_a_closed_or_an_open_loop(concurrency: int, arrivals_s: tuple[float, ...]) -> None:
    with pytest.raises(ValueError, match="moments"):
        Load(edge="http", address="", asks=asks(2), concurrency=concurrency, arrivals_s=arrivals_s)
