"""A service, a registry and a clock for every test; and nothing may be left running after it."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest

from flashsd_ray.config import Config
from flashsd_ray.sessions.registry import SessionRegistry
from tests.fake_service import EchoService
from tests.unit.sessions.harness import Client, ManualClock, settle


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
async def service() -> EchoService:
    return EchoService()


@pytest.fixture
async def sessions(clock: ManualClock) -> SessionRegistry:
    return SessionRegistry(Config(), clock)


@pytest.fixture
async def client(service: EchoService, sessions: SessionRegistry) -> AsyncIterator[Client]:
    """A client that is closed at the end; the service is then as free as before, and so is the loop."""
    client = Client(service, sessions)
    yield client
    await client.events.aclose()
    await settle()
    assert not service.open
    assert sessions.num_attached == 0
    own = {task for task in asyncio.all_tasks() if "sessions" in repr(task.get_coro())}
    assert not own
    assert not [thread for thread in threading.enumerate() if thread.name == "flashsd-container"]
