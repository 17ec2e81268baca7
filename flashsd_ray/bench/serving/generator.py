"""The load generator: a process of its own, so that the time it needs is not the measuring process'."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.connection import Connection

from flashsd_ray.bench.serving.asker import asker_of
from flashsd_ray.bench.serving.asks import Outcome
from flashsd_ray.bench.serving.load import Load, carry_out
from flashsd_ray.bench.serving.processes import process
from flashsd_ray.errors import FlashSDError, UnavailableError

ONE_MORE = "one more"
GRACE_S = 2.0  # it holds nothing that would have to be finished


class LoadGenerator:
    """Carries out one load after the other."""

    def __init__(self, pipe: Connection) -> None:
        self._pipe = pipe

    def run(self, load: Load, on_end: Callable[[], None] = lambda: None) -> list[Outcome]:
        """The outcomes, in the order of the requests.

        Raises:
            FlashSDError: the server cannot be reached.
        """
        try:
            self._pipe.send(load)
            while True:
                message = self._pipe.recv()
                if isinstance(message, FlashSDError):
                    raise message
                if message != ONE_MORE:
                    outcomes: list[Outcome] = message
                    return outcomes
                on_end()
        except (EOFError, OSError) as error:
            raise UnavailableError("the load generator has ended unexpectedly") from error


@contextmanager
def load_generator() -> Iterator[LoadGenerator]:
    """A load generator; after the block its process has ended."""
    with process(_generate, grace_s=GRACE_S) as (pipe, _):
        yield LoadGenerator(pipe)


def _generate(pipe: Connection) -> None:
    while True:
        try:
            load: Load = pipe.recv()
            pipe.send(_result(load, pipe))
        except (EOFError, ConnectionError):
            return  # nobody wants to know any more


def _result(load: Load, pipe: Connection) -> list[Outcome] | FlashSDError:
    try:
        return asyncio.run(_outcomes(load, pipe))
    except FlashSDError as error:
        return error


async def _outcomes(load: Load, pipe: Connection) -> list[Outcome]:
    asker = asker_of(load.edge, load.address, load.authority)
    try:
        await asker.open()
        return await carry_out(load, asker, on_end=lambda: pipe.send(ONE_MORE))
    finally:
        await asker.close()
