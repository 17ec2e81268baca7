"""Records of sessions: found by whom they belong to, with the token, and by nobody else."""

from __future__ import annotations

import pickle
from collections.abc import Iterator

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import NotFoundError, UnavailableError, WireError
from flashsd_ray.stores.memory import MemoryStore
from flashsd_ray.stores.redis_store import RedisStore
from flashsd_ray.stores.sessions import RECORD_VERSION, SessionRecord, SessionStore
from flashsd_ray.stores.store import Store
from flashsd_ray.wire.codec import decode, encode
from tests.redis_server import RedisServer, needs_redis

CONFIG = StoresConfig(session_ttl_s=100.0, timeout_s=20.0)
SETTINGS = {"prompt": "What happens?", "period_s": 2.5, "keep_first": 4, "stop": ["."], "draft_length": None}
OTHER_ID = "A" * 22

PLAIN = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-(2**63), 2**63), st.text(), st.binary(), st.floats(0, 1)),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(st.text(), inner, max_size=3)),
    max_leaves=8,
)


class Clock:
    """Seconds that pass when the test says so."""

    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def store(clock: Clock) -> Store:
    return MemoryStore(CONFIG, clock=clock)


@pytest.fixture
def sessions(store: Store, clock: Clock) -> SessionStore:
    return SessionStore(store, CONFIG, clock=clock)


def test_a_session_is_found_by_its_caller_with_its_token(sessions: SessionStore) -> None:
    record, token = sessions.create("anna", SETTINGS)
    assert record.settings == SETTINGS
    assert (record.caller, record.created_s, record.used_s) == ("anna", 1000.0, 1000.0)
    assert sessions.get(record.session_id, caller="anna", resume_token=token) == record


@given(st.dictionaries(st.text(), PLAIN, max_size=4), st.text())
def test_any_plain_settings_come_back(settings: dict[str, object], caller: str) -> None:
    sessions = SessionStore(MemoryStore(CONFIG), CONFIG)
    record, token = sessions.create(caller, settings)
    assert sessions.get(record.session_id, caller=caller, resume_token=token) == record


def test_ids_and_tokens_never_repeat_and_the_token_is_not_kept(sessions: SessionStore, store: Store) -> None:
    made = [sessions.create("anna", SETTINGS) for _ in range(100)]
    assert len({record.session_id for record, _ in made}) == len({token for _, token in made}) == 100
    for record, token in made:
        data = store.get(f"sessions:{record.session_id}")
        assert data is not None
        assert token.encode() not in data
        assert token not in repr(record)


@pytest.mark.parametrize("wrong", ["id", "caller", "token", "no caller", "no token", "odd token", "odd id", "long id"])
def test_what_belongs_to_somebody_else_is_not_there(sessions: SessionStore, wrong: str) -> None:
    record, token = sessions.create("anna", SETTINGS)
    session_id, caller = record.session_id, "anna"
    session_id = {"id": OTHER_ID, "odd id": "\ud800../*", "long id": session_id * 1000}.get(wrong, session_id)
    caller = {"caller": "bert", "no caller": ""}.get(wrong, caller)
    token = {"token": token[:-1] + "?", "no token": "", "odd token": "\ud800"}.get(wrong, token)
    with pytest.raises(NotFoundError) as caught:
        sessions.get(session_id, caller=caller, resume_token=token)
    with pytest.raises(NotFoundError) as absent:
        sessions.get(OTHER_ID, caller="anna", resume_token="token")
    assert str(caught.value) == str(absent.value)


def test_a_session_lives_as_long_as_it_is_used(sessions: SessionStore, clock: Clock) -> None:
    record, token = sessions.create("", SETTINGS)
    for _ in range(5):
        clock.now_s += 99.0
        record = sessions.put(record)
    assert (record.created_s, record.used_s) == (1000.0, clock.now_s)
    assert sessions.get(record.session_id, caller="", resume_token=token) == record
    clock.now_s += 100.0
    with pytest.raises(NotFoundError):
        sessions.get(record.session_id, caller="", resume_token=token)


def test_a_session_that_is_over_is_gone(sessions: SessionStore) -> None:
    record, token = sessions.create("anna", SETTINGS)
    sessions.delete(record)
    sessions.delete(record)
    with pytest.raises(NotFoundError):
        sessions.get(record.session_id, caller="anna", resume_token=token)


@pytest.mark.parametrize(
    "damage", ["garbage", "pickle", "not a mapping", "version", "missing", "more", "kind", "of another"]
)
def test_a_record_that_is_not_ours_is_not_there(sessions: SessionStore, store: Store, damage: str) -> None:
    record, token = sessions.create("anna", SETTINGS)
    name = f"sessions:{record.session_id}"
    good = decode(store.get(name) or b"")
    assert isinstance(good, dict)
    assert good["version"] == RECORD_VERSION
    foreign = {
        "garbage": b"\x80garbage",
        "pickle": pickle.dumps(good),
        "not a mapping": encode([1, 2]),
        "version": encode(good | {"version": RECORD_VERSION + 1}),
        "missing": encode({key: value for key, value in good.items() if key != "caller"}),
        "more": encode(good | {"more": 1}),
        "kind": encode(good | {"created_s": "yesterday"}),
        "of another": encode(good | {"session_id": OTHER_ID}),
    }[damage]
    assert store.put(name, foreign, 60.0)
    with pytest.raises(NotFoundError):
        sessions.get(record.session_id, caller="anna", resume_token=token)


def test_settings_that_cannot_be_kept_are_refused(sessions: SessionStore) -> None:
    with pytest.raises(WireError):
        sessions.create("anna", {"lock": object()})


@pytest.fixture
def server() -> Iterator[RedisServer]:
    with RedisServer() as server:
        yield server


@needs_redis
def test_a_session_is_found_at_another_edge(server: RedisServer) -> None:
    config = StoresConfig(url=server.url, timeout_s=20.0)
    here, there = (SessionStore(RedisStore(config), config) for _ in range(2))
    record, token = here.create("anna", SETTINGS)
    assert there.get(record.session_id, caller="anna", resume_token=token) == record
    with server.client() as client:
        assert 890_000 < client.pttl(f"flashsd:sessions:{record.session_id}") <= 900_000


@needs_redis
def test_a_lost_store_is_not_taken_for_an_expired_session(server: RedisServer) -> None:
    config = StoresConfig(url=server.url, timeout_s=20.0, retry_s=7.0)
    store = RedisStore(config)
    sessions = SessionStore(store, config)
    record, token = sessions.create("anna", SETTINGS)
    server.kill()
    with pytest.raises(UnavailableError) as caught:
        sessions.get(record.session_id, caller="anna", resume_token=token)
    assert caught.value.retry_after_s == 7.0
    assert "localhost" not in str(caught.value)
    other, _ = sessions.create("anna", SETTINGS)
    assert isinstance(sessions.put(other), SessionRecord)
    sessions.delete(other)
    store.close()
