"""The service contract, everything in this process."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from flashsd_ray.actors.local_service import LocalService
from flashsd_ray.engine.answers import Caption
from flashsd_ray.engine.local import Engine
from tests.contract.service_contract import CONFIG, ServiceContract, expected_of, requests_about


@pytest.fixture(scope="module")
def engine() -> Engine:
    return Engine.local(CONFIG)


@pytest.fixture(scope="module")
def expected(clips: list[Path]) -> list[Caption]:
    return expected_of(Engine.local(CONFIG), requests_about(clips))


class TestLocalService(ServiceContract):
    @pytest.fixture
    async def service(self, engine: Engine) -> AsyncIterator[LocalService]:
        service = LocalService(engine)
        yield service
        await service.close()
