"""Several drivers on one Redis: a unit has one owner, a dead driver's units are free, what is done stays done."""

from __future__ import annotations

import pickle
import random
import threading
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from redis import Redis

from flashsd_ray.batch import redis_claims
from flashsd_ray.batch.claims import Claim, SoleDriver
from flashsd_ray.batch.redis_claims import RedisClaims, open_claims
from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import ConfigError, UnavailableError
from tests.redis_server import RedisServer, needs_redis

pytestmark = needs_redis


@pytest.fixture(scope="module")
def redis() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def corpus(request: pytest.FixtureRequest) -> str:
    return request.node.name


def driver(redis: RedisServer, corpus: str) -> RedisClaims:
    return open_claims(StoresConfig(), redis.url, corpus, 60.0)


def die(redis: RedisServer, claims: RedisClaims) -> None:
    """What its lease's end does."""
    Redis.from_url(redis.url).delete(claims._driver_key(claims.driver))


def test_a_unit_has_one_owner_also_when_its_worker_asks_again(redis: RedisServer, corpus: str):
    first, second = driver(redis, corpus), driver(redis, corpus)
    worker = pickle.loads(pickle.dumps(first))
    assert worker.claim("a") is Claim.OURS
    assert first.claim("a") is Claim.OURS
    assert second.claim("a") is Claim.THEIRS
    assert second.waiting(["a", "b"]) == (1, 1)


def test_what_is_done_is_done_for_others_and_can_be_told_again_to_its_own_worker(redis: RedisServer, corpus: str):
    first, second = driver(redis, corpus), driver(redis, corpus)
    first.claim("a")
    first.finish("a")
    assert first.claim("a") is Claim.OURS
    assert second.claim("a") is Claim.DONE
    assert second.waiting(["a"]) == (0, 0)


def test_units_of_a_driver_that_is_silent_or_has_ended_are_free(redis: RedisServer, corpus: str):
    first, second, third = (driver(redis, corpus) for _ in range(3))
    first.claim("a")
    second.claim("b")
    first.claim("c")
    first.finish("c")
    die(redis, first)
    second.release()
    assert third.waiting(["a", "b", "c"]) == (0, 2)
    assert [third.claim(unit) for unit in "abc"] == [Claim.OURS, Claim.OURS, Claim.DONE]
    assert first.claim("a") is Claim.THEIRS


def test_a_lease_ends_by_itself(redis: RedisServer, corpus: str):
    claims = replace(driver(redis, corpus), lease_s=5.0)
    claims.renew()
    remaining_ms = Redis.from_url(redis.url).pttl(claims._driver_key(claims.driver))
    assert 0 < remaining_ms <= 5000


def test_corpora_do_not_know_each_other(redis: RedisServer, corpus: str):
    driver(redis, corpus).claim("a")
    assert driver(redis, corpus + "-other").claim("a") is Claim.OURS


def test_drivers_that_ask_at_once_never_share_a_unit(redis: RedisServer, corpus: str):
    units = [str(number) for number in range(200)]
    owned: list[list[str]] = []

    def take(seed: int) -> None:
        claims = driver(redis, corpus)
        shuffled = random.Random(seed).sample(units, len(units))
        owned.append([unit for unit in shuffled if claims.claim(unit) is Claim.OURS])

    threads = [threading.Thread(target=take, args=(seed,)) for seed in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(unit for mine in owned for unit in mine) == sorted(units)


def test_a_redis_that_is_away_is_waited_for_and_not_for_ever(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(redis_claims, "PATIENCE_S", 0.2)
    with RedisServer() as server:
        claims = driver(server, "corpus")
    with pytest.raises(UnavailableError, match="Redis"):
        claims.claim("a")


def test_an_address_of_another_kind_is_refused():
    with pytest.raises(ConfigError):
        open_claims(StoresConfig(), "memory://", "corpus", 1.0)


def test_a_sole_driver_owns_everything():
    assert SoleDriver().claim("a") is Claim.OURS
    assert SoleDriver().waiting(["a"]) == (0, 1)


def test_the_password_may_stand_in_a_file(corpus: str, tmp_path: Path):
    (tmp_path / "password").write_text("open sesame\n")
    config = StoresConfig(password_file=str(tmp_path / "password"))
    with RedisServer(password="open sesame") as server:
        address = server.url.partition("@")[2]
        assert open_claims(config, f"redis://{address}", corpus, 60.0).claim("a") is Claim.OURS
        assert open_claims(config, server.url, f"{corpus}-own", 60.0).claim("a") is Claim.OURS


def test_a_password_file_that_cannot_be_read_is_named(redis: RedisServer, corpus: str, tmp_path: Path):
    config = StoresConfig(password_file=str(tmp_path / "none"))
    with pytest.raises(ConfigError, match=r"stores\.password_file"):
        open_claims(config, redis.url, corpus, 60.0)
