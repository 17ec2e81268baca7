"""A server that is lost is looked for at intervals by one thread, whatever callers do meanwhile."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest

from flashsd_ray.stores.link import Link
from tests.unit.stores.turns import Turns, until_retries_end


class Server:
    """Answers an attempt with what the test has set."""

    def __init__(self) -> None:
        self.problem = ""
        self.num_attempts = 0

    def __call__(self) -> str:
        self.num_attempts += 1
        return self.problem


@pytest.fixture
def server() -> Server:
    return Server()


@pytest.fixture
def turns() -> Iterator[Turns]:
    turns = Turns()
    yield turns
    turns.close()
    until_retries_end()


@pytest.fixture
def link(server: Server, turns: Turns) -> Link:
    return Link("server", server, 2.0, wait=turns)


def test_a_server_that_is_there_needs_one_attempt(link: Link, server: Server, turns: Turns) -> None:
    link.open()
    assert (link.problem, server.num_attempts, turns.waits_s) == ("", 1, [])


def test_attempts_follow_at_intervals_until_one_succeeds(
    link: Link, server: Server, turns: Turns, caplog: pytest.LogCaptureFixture
) -> None:
    server.problem = "it is away"
    with caplog.at_level(logging.INFO):
        link.open()
        turns.until_waiting()
        for num_attempts in (2, 3):
            assert link.problem == server.problem
            server.problem = f"away {num_attempts}"
            turns.give()
            turns.until_waiting()
            assert server.num_attempts == num_attempts
        server.problem = ""
        turns.give()
        until_retries_end()
    assert link.problem == ""
    assert server.num_attempts == 4
    assert turns.waits_s == [2.0] * 3
    assert [record.message for record in caplog.records] == ["it is away", "server is reached again"]


def test_many_who_lose_it_at_once_start_one_search(link: Link, server: Server, turns: Turns) -> None:
    link.open()
    server.problem = "it is away"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(link.lose, ["first"] * 64))
    turns.until_waiting()
    turns.give()
    turns.until_waiting()
    assert server.num_attempts == 2
    assert len(turns.waits_s) == 2


def test_it_can_be_lost_again(link: Link, server: Server, turns: Turns) -> None:
    link.open()
    for _ in range(3):
        link.lose("it is away")
        assert link.problem == "it is away"
        turns.give()
        until_retries_end()
        assert link.problem == ""
    assert server.num_attempts == 4


def test_nothing_is_tried_once_it_is_closed(link: Link, server: Server, turns: Turns) -> None:
    link.open()
    link.lose("it is away")
    turns.until_waiting()
    link.close()
    turns.close()
    until_retries_end()
    assert server.num_attempts == 1
    assert link.problem == "the connection to server is closed"
    link.lose("again")
    assert link.problem == "the connection to server is closed"


def test_an_attempt_that_succeeds_while_it_is_closed_does_not_open_it(link: Link, server: Server, turns: Turns) -> None:
    link.open()
    link.lose("it is away")
    turns.until_waiting()
    link.close()
    turns.give()  # the wait ends as if nothing had happened
    until_retries_end()
    assert link.problem == "the connection to server is closed"


def test_without_a_test_the_wait_ends_when_it_is_closed(server: Server) -> None:
    link = Link("server", server, 3600.0)
    server.problem = "it is away"
    link.open()
    link.close()
    until_retries_end()
    assert server.num_attempts == 1
