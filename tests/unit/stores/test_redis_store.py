"""Against a real redis-server: lost, returned, hung, protected, foreign values; nobody waits and nothing is raised."""

from __future__ import annotations

import contextlib
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from redis import Redis
from redis.client import Pipeline

from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import ConfigError
from flashsd_ray.stores.redis_store import RedisStore
from flashsd_ray.stores.store import open_store
from tests.redis_server import RedisServer, make_certificates, needs_redis
from tests.unit.stores.turns import Turns, until_retries_end

pytestmark = needs_redis

TTL_S = 60.0
PATIENT_S = 20.0  # never used up by a server that is well


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@pytest.fixture
def client(server: RedisServer) -> Iterator[Redis]:
    with server.client() as client:
        yield client


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns()
    yield turns
    turns.close()
    until_retries_end()


def store_at(url: str, turns: Turns | None = None, **settings: Any) -> RedisStore:
    return RedisStore(StoresConfig(**{"url": url, "timeout_s": PATIENT_S} | settings), wait=turns)


def test_keys_stand_under_the_prefix_with_their_time(server: RedisServer, client: Redis) -> None:
    store = store_at(server.url, prefix="ours")
    store.put("key", b"value", 30.0)
    assert client.keys() == [b"ours:key"]
    assert client.get("ours:key") == b"value"
    assert 29_000 < client.pttl("ours:key") <= 30_000
    assert store_at(server.url, prefix="theirs").get("key") is None


def test_two_stores_share_what_they_keep(server: RedisServer) -> None:
    first, second = open_store(StoresConfig(url=server.url)), open_store(StoresConfig(url=server.url))
    assert first.add("key", b"value", TTL_S)
    assert not second.add("key", b"other", TTL_S)
    assert second.get("key") == b"value"


@pytest.mark.parametrize("kind", ["list", "hash", "too large", "much too large"])
def test_a_foreign_value_under_our_key_is_a_miss_and_no_loss(server: RedisServer, client: Redis, kind: str) -> None:
    store = store_at(server.url, max_value_bytes=1000)
    store.put("ours", b"value", TTL_S)
    if kind == "list":
        client.rpush("flashsd:foreign", "item")
    elif kind == "hash":
        client.hset("flashsd:foreign", "field", "item")
    else:
        client.set("flashsd:foreign", bytes(1001 if kind == "too large" else 10**7))
    assert store.get("foreign") is None
    assert "cmdstat_getrange" not in client.info("commandstats")
    assert store.get_many(["foreign", "ours"]) == {"ours": b"value"}
    assert (store.health(), store.counts.errors) == ("", 0)
    assert not store.add("foreign", b"value", TTL_S)
    assert store.put("foreign", b"value", TTL_S)
    assert store.get("foreign") == b"value"


def test_a_value_that_grows_while_it_is_read_is_a_miss(
    server: RedisServer, client: Redis, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(server.url, max_value_bytes=1000)
    store.put("key", b"value", TTL_S)
    getrange = Pipeline.getrange

    def grow_first(line: Pipeline, *arguments: Any) -> Any:
        client.append("flashsd:key", bytes(1000))
        return getrange(line, *arguments)

    monkeypatch.setattr(Pipeline, "getrange", grow_first)
    assert store.get("key") is None
    assert store.health() == ""


@pytest.mark.parametrize("unix_socket", [False, True])
def test_a_redis_that_is_killed_is_lost_and_found_again(unix_socket: bool, turns: Turns) -> None:
    with RedisServer(unix_socket=unix_socket) as server:
        store = store_at(server.url, turns, retry_s=7.0)
        store.put("key", b"value", TTL_S)
        server.kill()
        assert store.get("key") is None
        assert store.put("key", b"value", TTL_S) is False
        assert store.add("key", b"value", TTL_S) is False
        store.delete("key")
        assert store.get_many(["key", "other"]) == {}
        assert store.health().startswith(f"Redis at {server.url} is not reached: ")
        assert (store.counts.errors, store.counts.misses) == (5, 3)
        turns.until_waiting()
        turns.give()  # an attempt in vain
        turns.until_waiting()
        server.start()
        assert store.get("key") is None  # nobody looks before the time has come
        turns.give()
        until_retries_end()
        assert store.health() == ""
        assert store.put("key", b"new", TTL_S)
        assert store.get("key") == b"new"
        assert turns.waits_s == [7.0, 7.0]


def test_a_redis_that_is_away_at_the_start_is_found_later(server: RedisServer, turns: Turns) -> None:
    server.kill()
    store = store_at(server.url, turns)
    assert "is not reached" in store.health()
    assert store.get("key") is None
    server.start()
    turns.give()
    until_retries_end()
    assert (store.health(), store.put("key", b"value", TTL_S)) == ("", True)


def test_a_redis_that_came_back_between_two_calls_was_never_away(server: RedisServer, turns: Turns) -> None:
    store = store_at(server.url, turns)
    assert store.get("key") is None
    server.restart()
    assert store.put("key", b"value", TTL_S)
    assert (store.health(), turns.waits_s) == ("", [])


def test_a_redis_that_hangs_costs_each_caller_one_timeout_and_later_ones_nothing(
    server: RedisServer, turns: Turns, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = store_at(server.url, turns, timeout_s=0.2)
    store.put("key", b"value", TTL_S)
    server.pause()
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(store.get, ["key"] * 4)) == [None] * 4
    assert store.health() == f"Redis at {server.url} did not answer within stores.timeout_s (0.2 s)."
    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", lambda *_: pytest.fail("a caller tried to connect"))
        assert [store.get("key") for _ in range(100)] == [None] * 100
    turns.give()
    turns.until_waiting()
    turns.until_waiting()
    assert store.health() != ""
    server.resume()
    turns.give()
    until_retries_end()
    assert (store.health(), store.get("key")) == ("", b"value")


def test_a_redis_that_hangs_at_the_start_is_no_error(server: RedisServer, turns: Turns) -> None:
    server.pause()
    store = store_at(server.url, turns, timeout_s=0.2)
    assert "did not answer within stores.timeout_s" in store.health()
    server.resume()
    turns.give()
    until_retries_end()
    assert store.health() == ""


def drip(listener: socket.socket) -> None:
    """A server that never ends the one value it has, and never falls silent."""
    peer, _ = listener.accept()
    with peer:
        while b"GETRANGE" not in (asked := peer.recv(1000)):
            peer.sendall(b"+OK\r\n" * asked.count(b"CLIENT"))
            peer.sendall(b"+PONG\r\n" * asked.count(b"PING"))
            peer.sendall(b":1000000\r\n:1\r\n" * asked.count(b"STRLEN"))
        peer.sendall(b"$1000000\r\n")
        peer.settimeout(0.01)
        while True:
            with contextlib.suppress(TimeoutError):
                peer.sendall(b"x")
                if peer.recv(1) == b"":
                    return


def test_an_answer_that_drips_in_ends_with_the_call(turns: Turns) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        dripping = pool.submit(drip, listener)
        store = store_at(f"redis://127.0.0.1:{listener.getsockname()[1]}", turns, timeout_s=0.3)
        assert store.health() == ""
        assert store.get("key") is None
        dripping.result(timeout=60)
        assert "did not answer within stores.timeout_s (0.3 s)" in store.health()


@pytest.mark.parametrize(
    "greeting",
    [b"HTTP/1.1 400 Bad Request\r\n\r\n", b":not a number\r\n", b"$-7\r\n", b"*1\r\n*1\r\n", b"\x00" * 100, b""],
)
def test_a_server_that_is_no_redis_is_lost_like_any_other(turns: Turns, greeting: bytes) -> None:
    def greet(listener: socket.socket) -> None:
        peer, _ = listener.accept()
        with peer:
            peer.recv(1000)
            peer.sendall(greeting)

    with socket.create_server(("127.0.0.1", 0)) as listener, ThreadPoolExecutor(1) as pool:
        greeted = pool.submit(greet, listener)
        store = store_at(f"redis://127.0.0.1:{listener.getsockname()[1]}", turns)
        greeted.result(timeout=60)
        assert store.health().startswith("Redis at redis://127.0.0.1:")
        assert store.get("key") is None


def test_a_password_opens_and_a_wrong_one_is_told_without_being_shown(
    turns: Turns, caplog: pytest.LogCaptureFixture
) -> None:
    with RedisServer(password="hunter2") as server, caplog.at_level(logging.DEBUG):
        assert store_at(server.url).put("key", b"value", TTL_S)
        for identity in ("someone:hunter3@", ":hunter3@", ""):
            store = store_at(f"redis://{identity}localhost:{server.port}/0", turns)
            sentence = f"Redis at redis://localhost:{server.port}/0 does not accept the user or password of stores.url."
            assert store.health() == sentence
            assert store.get("key") is None
    assert "does not accept" in caplog.text
    assert "hunter" not in caplog.text


def test_a_password_that_nobody_asked_for_is_told(server: RedisServer, turns: Turns) -> None:
    store = store_at(f"redis://:hunter2@localhost:{server.port}", turns)
    assert "does not accept the user or password" in store.health()


def test_a_user_with_few_rights_can_use_what_it_may(server: RedisServer, client: Redis) -> None:
    client.acl_setuser("reader", enabled=True, passwords=["+hunter2"], keys=["flashsd:*"], commands=["+@read"])
    client.set("flashsd:key", b"value")
    store = store_at(f"redis://reader:hunter2@localhost:{server.port}")
    assert store.health() == ""
    assert store.get("key") == b"value"
    assert store.put("key", b"other", TTL_S) is False
    assert store.health() == f"Redis at redis://localhost:{server.port}/0 refuses to write (NOPERM)."
    assert store.get("key") == b"value"  # what is refused does not keep the rest from working
    assert store.health() != ""
    client.acl_setuser("reader", commands=["+@write"])
    assert store.put("key", b"other", TTL_S)
    assert store.health() == ""


def test_a_redis_that_is_full_still_answers(server: RedisServer, client: Redis) -> None:
    store = store_at(server.url)
    store.put("key", b"value", TTL_S)
    client.config_set("maxmemory", "1")
    assert store.put("more", b"value", TTL_S) is False
    assert store.get("key") == b"value"
    assert store.health().endswith("refuses to write (OOM).")
    client.config_set("maxmemory", "0")
    assert store.put("more", b"value", TTL_S)
    assert store.health() == ""


def test_a_database_that_is_not_there_is_told(server: RedisServer, turns: Turns) -> None:
    store = store_at(f"redis://localhost:{server.port}/99", turns)
    assert "refuses the connection" in store.health()
    assert store.get("key") is None


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("certificates")


def test_tls_checks_the_certificate_and_the_name(folder: Path, tmp_path: Path, turns: Turns) -> None:
    certificates, others = make_certificates(folder), make_certificates(tmp_path)
    with RedisServer(tls=certificates) as server:
        store = store_at(server.url, tls_ca=str(certificates.authority))
        assert store.put("key", bytes(10**6), TTL_S)
        assert store.get("key") == bytes(10**6)
        assert store.health() == ""
        for url, authority in [
            (server.url, others.authority),
            (server.url, ""),
            (server.url.replace("localhost", "127.0.0.1"), certificates.authority),
        ]:
            store = store_at(url, turns, tls_ca=str(authority))
            assert "CERTIFICATE_VERIFY_FAILED" in store.health()
            assert store.get("key") is None
        store = store_at(server.url.replace("rediss", "redis"), turns)
        assert "is not reached" in store.health()


@pytest.mark.parametrize("text", [None, "no certificate"])
def test_authorities_that_cannot_be_read_are_told_at_once(tmp_path: Path, text: str | None) -> None:
    path = tmp_path / "ca.pem"
    if text is not None:
        path.write_text(text, encoding="utf-8")
    with pytest.raises(ConfigError, match=r"^stores.tls_ca: .*ca.pem holds no certificates: "):
        store_at("rediss://localhost", tls_ca=str(path))


def test_nothing_that_is_logged_holds_a_key_or_a_value(
    server: RedisServer, client: Redis, turns: Turns, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        store = store_at(server.url, turns)
        store.put("hunter-key", b"hunter-value", TTL_S)
        client.config_set("maxmemory", "1")
        store.put("hunter-key", b"hunter-value", TTL_S)
        server.kill()
        store.get("hunter-key")
    assert "is not reached" in caplog.text
    assert "hunter" not in caplog.text
    assert "hunter" not in store.health()


def test_a_closed_store_leaves_no_connection_behind(server: RedisServer, client: Redis) -> None:
    before = len(client.client_list())
    store = store_at(server.url)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(store.get, map(str, range(100))))
    assert len(client.client_list()) > before
    store.close()
    # The server notices in its own time; each question to it is a turn of its loop.
    assert any(len(client.client_list()) == before for _ in range(10_000))
