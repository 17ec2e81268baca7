"""Drafters behind a channel: over a real socket, in a process of their own, or over one that tests can break."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from multiprocessing.connection import Connection

from flashsd_ray.actors.drafter_front import DrafterFront
from flashsd_ray.actors.drafter_host import DrafterHost
from flashsd_ray.actors.remote_drafter import RemoteDrafter
from flashsd_ray.config import Config, PlacementConfig
from flashsd_ray.errors import FlashSDError, UnavailableError
from flashsd_ray.models.drafters import TargetView
from flashsd_ray.wire.listener import Handler
from tests.tiny_drafting import Drafter

KEY = b"a key for tests"
MAX_MESSAGE_BYTES = 2**20
PATIENT = PlacementConfig(drafter_timeout_s=60.0)  # a busy machine is not a lost drafter


def host_of(drafter: Drafter, view: TargetView) -> DrafterHost:
    return DrafterHost(drafter, view, max_message_bytes=MAX_MESSAGE_BYTES)


@contextmanager
def served(drafter: Drafter, view: TargetView) -> Iterator[RemoteDrafter]:
    """The drafter behind a loopback connection."""
    listener = host_of(drafter, view).listen("tcp:127.0.0.1:0", KEY)
    thread = listener.start()
    remote = RemoteDrafter.at(listener.address, KEY, DrafterFront.of(drafter, view), PATIENT)
    try:
        assert not remote.is_lost
        yield remote
    finally:
        remote.disconnect()
        listener.close()
        thread.join()


def serve_in_process(config: Config, address: str, ready: Connection) -> None:
    """Runs in a process of its own, until it is killed."""
    listener = DrafterHost.load(config).listen(address, KEY)
    ready.send(listener.address)
    listener.serve()


class BreakableChannel:
    """A channel to a handler of this process; as long as ``is_silent``, nothing is heard from it."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.sent: list[bytes] = []
        self.answers: deque[bytes] = deque()
        self.is_silent = False
        self.is_closed = False

    def send(self, frame: bytes) -> None:
        if self.is_closed:
            raise UnavailableError("the other end of a channel is closed")
        self.sent.append(frame)
        if not self.is_silent:
            answer = self.handler.handle(frame)
            if answer is not None:
                self.answers.append(answer)

    def receive(self) -> bytes:
        if self.is_closed or not self.answers:
            raise UnavailableError("the other end of a channel was silent")
        return self.answers.popleft()

    def request(self, frame: bytes) -> bytes:
        self.send(frame)
        return self.receive()

    def close(self) -> None:
        if not self.is_closed:
            self.is_closed = True
            self.handler.forget()


class Switchboard:
    """Connects while it is told to; remembers the channels that it made."""

    def __init__(self, handler: Handler) -> None:
        self.handler = handler
        self.is_up = True
        self.num_attempts = 0
        self.channels: list[BreakableChannel] = []

    def __call__(self) -> BreakableChannel:
        self.num_attempts += 1
        if not self.is_up:
            raise UnavailableError("nobody answers")
        self.channels.append(BreakableChannel(self.handler))
        return self.channels[-1]

    @property
    def last(self) -> BreakableChannel:
        return self.channels[-1]


def at_once(connect: Callable[[], BreakableChannel]) -> Future[BreakableChannel]:
    """An attempt to reconnect that is over before anybody asks."""
    future: Future[BreakableChannel] = Future()
    try:
        future.set_result(connect())
    except FlashSDError as error:
        future.set_exception(error)
    return future
