"""Processes end with the block that started them, whatever happens."""

from __future__ import annotations

import os
import time
from contextlib import suppress
from multiprocessing.connection import Connection

import pytest

from flashsd_ray.bench.serving.processes import process


def echo(pipe: Connection) -> None:
    with suppress(EOFError):
        pipe.send(pipe.recv() * 2)
        pipe.recv()


def hang(pipe: Connection) -> None:
    pipe.send("hanging")
    while True:
        time.sleep(60)


def has_ended(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return True
    return False


def test_a_process_ends_when_its_pipe_is_closed() -> None:
    with process(echo, grace_s=60.0) as (pipe, pid):
        pipe.send(21)
        assert pipe.recv() == 42
    assert has_ended(pid)


def test_a_process_that_hangs_is_killed_also_after_an_error() -> None:
    pids = []

    def interrupted() -> None:
        with process(hang, grace_s=0.0) as (pipe, pid):
            pids.append(pid)
            assert pipe.recv() == "hanging"
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        interrupted()
    assert has_ended(pids[0])
