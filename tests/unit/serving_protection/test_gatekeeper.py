"""The door: keys from a real file that changes, limits by caller, slots that always come back, many threads."""

from __future__ import annotations

import logging
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import AuthenticationError, ConfigError, OverloadedError
from flashsd_ray.serving.protection import Admission, Gatekeeper


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
def keys_file(tmp_path: Path) -> Path:
    path = tmp_path / "keys"
    write(path, "anna:key-a\nbert:key-b\n")
    return path


def write(path: Path, text: str, mode: int = 0o600) -> None:
    """The file is replaced, as an operator's tool does it."""
    new = path.with_suffix(".new")
    new.write_text(text, encoding="utf-8")
    new.chmod(mode)
    new.replace(path)


def test_without_keys_everybody_is_let_in(clock: Clock) -> None:
    gatekeeper = Gatekeeper(ServingConfig(), clock=clock)
    for credentials in (None, "", "Bearer anything"):
        with gatekeeper.admit(credentials) as admission:
            assert admission.caller == ""
        assert gatekeeper.identify(credentials) == ""


@pytest.mark.parametrize("credentials", ["Bearer key-a", "bearer key-a", "BEARER  key-a ", "key-a", " key-a "])
def test_a_key_is_known_with_and_without_its_scheme(keys_file: Path, clock: Clock, credentials: str) -> None:
    gatekeeper = Gatekeeper(ServingConfig(keys_file=str(keys_file)), clock=clock)
    assert gatekeeper.admit(credentials).caller == "anna"
    assert gatekeeper.identify(credentials) == "anna"


@pytest.mark.parametrize("credentials", [None, ""])
def test_a_caller_without_a_key_is_told_how_to_send_one(keys_file: Path, clock: Clock, credentials: str | None) -> None:
    gatekeeper = Gatekeeper(ServingConfig(keys_file=str(keys_file)), clock=clock)
    for ask in (gatekeeper.admit, gatekeeper.identify):
        with pytest.raises(AuthenticationError, match=r"Authorization: Bearer KEY"):
            ask(credentials)


@pytest.mark.parametrize(
    "credentials", ["Bearer", "Bearer ", "Bearer key-c", "Basic key-a", "anna:key-a", "key-a key-a"]
)
def test_a_wrong_key_is_refused_and_not_repeated(keys_file: Path, clock: Clock, credentials: str) -> None:
    gatekeeper = Gatekeeper(ServingConfig(keys_file=str(keys_file)), clock=clock)
    with pytest.raises(AuthenticationError, match=r"^this API key is not known here$"):
        gatekeeper.admit(credentials)


def test_the_rate_counts_for_each_caller_alone(keys_file: Path, clock: Clock) -> None:
    config = ServingConfig(keys_file=str(keys_file), requests_per_minute=6, burst_requests=2)
    gatekeeper = Gatekeeper(config, clock=clock)
    for _ in range(2):
        gatekeeper.admit("key-a").release()
    with pytest.raises(OverloadedError, match=r"serving.requests_per_minute allows 6") as caught:
        gatekeeper.admit("key-a")
    assert caught.value.retry_after_s == 10.0
    gatekeeper.admit("key-b").release()
    clock.now_s += caught.value.retry_after_s
    gatekeeper.admit("key-a").release()


def test_without_keys_the_limits_count_for_all_together(clock: Clock) -> None:
    gatekeeper = Gatekeeper(ServingConfig(requests_per_minute=60, burst_requests=1), clock=clock)
    gatekeeper.admit("key-a").release()
    with pytest.raises(OverloadedError):
        gatekeeper.admit("key-b")


def test_two_keys_of_one_caller_share_its_slots(keys_file: Path, clock: Clock) -> None:
    write(keys_file, "anna:old\nanna:new\n")
    gatekeeper = Gatekeeper(ServingConfig(keys_file=str(keys_file), concurrent_requests=1), clock=clock)
    with gatekeeper.admit("old"), pytest.raises(OverloadedError, match=r"serving.concurrent_requests allows 1"):
        gatekeeper.admit("new")


def test_a_wrong_key_uses_up_nothing(keys_file: Path, clock: Clock) -> None:
    config = ServingConfig(keys_file=str(keys_file), requests_per_minute=1, burst_requests=1, concurrent_requests=1)
    gatekeeper = Gatekeeper(config, clock=clock)
    for _ in range(3):
        with pytest.raises(AuthenticationError):
            gatekeeper.admit("wrong")
    assert gatekeeper.admit("key-a").caller == "anna"


def test_a_slot_comes_back_when_the_body_raises(clock: Clock) -> None:
    gatekeeper = Gatekeeper(ServingConfig(concurrent_requests=1), clock=clock)
    for _ in range(3):
        with pytest.raises(KeyError), gatekeeper.admit(None):
            raise KeyError


def test_a_slot_comes_back_once_however_often_it_is_released(clock: Clock) -> None:
    gatekeeper = Gatekeeper(ServingConfig(concurrent_requests=1), clock=clock)
    first = gatekeeper.admit(None)
    for _ in range(3):
        first.release()
    with gatekeeper.admit(None), pytest.raises(OverloadedError):
        gatekeeper.admit(None)


def test_a_slot_comes_back_from_a_request_that_was_dropped_before_it_began(clock: Clock) -> None:
    gatekeeper = Gatekeeper(ServingConfig(concurrent_requests=1), clock=clock)

    def answer(admission: Admission) -> object:
        with admission:
            yield "never asked for"

    dropped = answer(gatekeeper.admit(None))
    with pytest.raises(OverloadedError):
        gatekeeper.admit(None)
    del dropped
    with gatekeeper.admit(None):
        pass


@given(st.lists(st.tuples(st.integers(0, 3), st.sampled_from(["key-a", "key-b"])), max_size=40))
def test_open_requests_never_exceed_the_limit_of_their_caller(moves: list[tuple[int, str]]) -> None:
    gatekeeper = Gatekeeper(ServingConfig(concurrent_requests=2), clock=Clock())
    held: list[Admission] = []
    for move, key in moves:
        if move == 0 and held:
            held.pop().release()
            continue
        try:
            held.append(gatekeeper.admit(key))
        except OverloadedError:
            assert len(held) == 2
        assert len(held) <= 2
    held.clear()
    assert len([gatekeeper.admit(None) for _ in range(2)]) == 2


def test_many_threads_never_hold_more_slots_than_there_are(clock: Clock) -> None:
    gatekeeper = Gatekeeper(ServingConfig(concurrent_requests=3), clock=clock)
    lock = threading.Lock()
    num_open, most_open, num_refused = 0, 0, 0

    def visit(_: int) -> None:
        nonlocal num_open, most_open, num_refused
        try:
            with gatekeeper.admit(None):
                with lock:
                    num_open += 1
                    most_open = max(most_open, num_open)
                with lock:
                    num_open -= 1
        except OverloadedError:
            with lock:
                num_refused += 1

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(visit, range(2000)))
    assert num_open == 0
    assert 1 <= most_open <= 3
    assert num_refused < 2000
    assert len([gatekeeper.admit(None) for _ in range(3)]) == 3


def test_a_changed_file_counts_after_a_second(keys_file: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    gatekeeper = Gatekeeper(ServingConfig(keys_file=str(keys_file)), clock=clock)
    write(keys_file, "carl:key-c\n")
    assert gatekeeper.identify("key-a") == "anna"
    clock.now_s += 0.9
    assert gatekeeper.identify("key-a") == "anna"
    clock.now_s += 0.2
    with caplog.at_level(logging.INFO):
        assert gatekeeper.identify("key-c") == "carl"
    assert "read again: 1 keys" in caplog.text
    assert "key-c" not in caplog.text
    with pytest.raises(AuthenticationError):
        gatekeeper.identify("key-a")


@pytest.mark.parametrize("damage", ["missing", "empty", "wrong", "bytes"])
def test_a_file_that_breaks_leaves_the_last_keys_in_force_until_it_is_mended(
    keys_file: Path, clock: Clock, damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    gatekeeper = Gatekeeper(ServingConfig(keys_file=str(keys_file)), clock=clock)
    if damage == "missing":
        keys_file.unlink()
    elif damage == "bytes":
        keys_file.write_bytes(b"anna:\xff\xfe")
    else:
        write(keys_file, {"empty": "", "wrong": "key-a"}[damage])
    for _ in range(3):
        clock.now_s += 1.0
        assert gatekeeper.identify("key-a") == "anna"
    assert len(caplog.records) == 1  # said once, not at every look
    assert "the keys from before stay in force: serving.keys_file" in caplog.text
    assert "key-a" not in caplog.text
    write(keys_file, "anna:mended\n")
    clock.now_s += 1.0
    assert gatekeeper.identify("mended") == "anna"


def test_a_request_of_a_caller_whose_key_was_taken_away_still_gives_its_slot_back(
    keys_file: Path, clock: Clock
) -> None:
    gatekeeper = Gatekeeper(ServingConfig(keys_file=str(keys_file), concurrent_requests=1), clock=clock)
    admission = gatekeeper.admit("key-a")
    write(keys_file, "bert:key-b\n")
    clock.now_s += 1.0
    admission.release()
    assert gatekeeper.admit("key-b").caller == "bert"
    write(keys_file, "anna:key-a\n")
    clock.now_s += 1.0
    assert gatekeeper.admit("key-a").caller == "anna"


@pytest.mark.parametrize(("mode", "warns"), [(0o600, False), (0o640, False), (0o644, True), (0o604, True)])
def test_a_file_that_everybody_can_read_is_pointed_out(
    tmp_path: Path, clock: Clock, mode: int, warns: bool, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "keys"
    write(path, "anna:key-a\n", mode)
    Gatekeeper(ServingConfig(keys_file=str(path)), clock=clock)
    assert ("everybody on this machine can read the keys in" in caplog.text) is warns


def test_a_file_may_begin_with_a_byte_order_mark(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "keys"
    path.write_text("anna:key-a\n", encoding="utf-8-sig")
    assert Gatekeeper(ServingConfig(keys_file=str(path)), clock=clock).identify("key-a") == "anna"


@pytest.mark.parametrize("kind", ["missing", "directory", "bytes"])
def test_a_server_does_not_start_with_a_file_that_is_no_keys_file(tmp_path: Path, clock: Clock, kind: str) -> None:
    path = tmp_path / "keys"
    if kind == "directory":
        path.mkdir()
    elif kind == "bytes":
        path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(ConfigError, match=r"^serving.keys_file .*keys (cannot be read: |is not a UTF-8 text)"):
        Gatekeeper(ServingConfig(keys_file=str(path)), clock=clock)


def test_a_burst_of_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"serving.burst_requests must be positive"):
        ServingConfig(burst_requests=0)
