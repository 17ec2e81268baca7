"""A scripted server, and clients that never wait in earnest."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass, field

import pytest

from flashsd_ray.client import AsyncClient, Timing
from tests.unit.client.scripted import Servicer, serving


@dataclass
class FakeTime:
    """Time that passes only where somebody sleeps, and chance that takes the most it can."""

    now_s: float = 0.0
    waits_s: list[float] = field(default_factory=list)

    @property
    def timing(self) -> Timing:
        return Timing(clock=lambda: self.now_s, sleep=self._sleep, uniform=lambda low, high: high)

    async def _sleep(self, wait_s: float) -> None:
        self.waits_s.append(wait_s)
        self.now_s += wait_s


@pytest.fixture
def time() -> FakeTime:
    """Time under the test's control."""
    return FakeTime()


@pytest.fixture
def servicer() -> Servicer:
    """What the server will do."""
    return Servicer()


@pytest.fixture
async def address(servicer: Servicer) -> AsyncIterator[str]:
    """Where the server is."""
    async with serving(servicer) as found:
        yield found


@pytest.fixture
async def client(address: str, time: FakeTime) -> AsyncIterator[AsyncClient]:
    """A client of the server."""
    async with AsyncClient(address, timing=time.timing) as opened:
        yield opened
