"""Processes of a measurement: started fresh, told what to do through a pipe, ended with their parent."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import get_context
from multiprocessing.connection import Connection
from typing import Any


@contextmanager
def process(
    run: Callable[..., None],  # called there with its end of a pipe; returns when the pipe is closed
    *arguments: Any,
    grace_s: float,  # longest time that it gets to end in
) -> Iterator[tuple[Connection, int]]:
    """Our end of the pipe, and the id of the process; after the block it has ended."""
    context = get_context("spawn")  # a fork would inherit threads of torch, Ray and gRPC in the middle of anything
    ours, theirs = context.Pipe()
    started = context.Process(target=_ignoring_interrupts, args=(run, theirs, *arguments))
    started.start()
    theirs.close()
    assert started.pid is not None
    try:
        yield ours, started.pid
    finally:
        ours.close()
        started.join(grace_s)
        if started.is_alive():
            started.kill()
            started.join()


def _ignoring_interrupts(run: Callable[..., None], *arguments: Any) -> None:
    # A terminal interrupts all its processes; the one that measures ends the others.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    run(*arguments)
