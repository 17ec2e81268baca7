"""Waits for channels and serves the one that came last: whoever reconnects takes the place of its own lost self."""

from __future__ import annotations

import contextlib
import logging
import socket
from pathlib import Path
from threading import BoundedSemaphore, Lock, Thread
from typing import Protocol

from flashsd_ray.errors import ConfigError, FlashSDError, UnavailableError
from flashsd_ray.wire.channel import DEFAULT_MAX_FRAME_BYTES, Channel, parse_address

HANDSHAKE_TIMEOUT_S = 5.0
MAX_CONNECTIONS = 16  # strangers in their handshake included; more are turned away
logger = logging.getLogger(__name__)


class Handler(Protocol):
    """What answers the frames of a peer; is called by one thread at a time."""

    def handle(self, message: bytes | bytearray) -> bytes | None:
        """The answer; None where none is due.

        Raises:
            FlashSDError: the peer does not keep to the protocol; its channel is closed.
        """
        ...

    def forget(self) -> None:
        """The peer is gone, and nothing is held for it any more."""
        ...


class Listener:
    """Serves one peer at a time, each connection in a thread of its own."""

    def __init__(
        self,
        address: str,  # "unix:PATH", or "tcp:HOST:PORT" where port 0 means any free one
        key: bytes,
        handler: Handler,
        *,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        handshake_timeout_s: float = HANDSHAKE_TIMEOUT_S,
    ) -> None:
        """Peers can connect from now on; they are answered once ``serve`` runs.

        Raises:
            UnavailableError: the address is taken or not ours.
            ConfigError: the address has another form, or the key is empty.
        """
        if not key:
            raise ConfigError("a channel needs a key")
        family, place = parse_address(address)
        self._key = key
        self._handler = handler
        self._max_frame_bytes = max_frame_bytes
        self._handshake_timeout_s = handshake_timeout_s
        self._lock = Lock()  # of the handler and of _peer
        self._peer: Channel | None = None
        self._is_closed = False
        self._slots = BoundedSemaphore(MAX_CONNECTIONS)
        self._socket = socket.socket(family, socket.SOCK_STREAM)
        self._path = Path(address.removeprefix("unix:")) if family == socket.AF_UNIX else None
        try:
            self._bind(place)
        except OSError as error:
            self._socket.close()
            raise UnavailableError(f"cannot listen at {address}: {error.strerror or error}") from error
        self.address = address if self._path is not None else _tcp_address(self._socket)  # where peers find it

    def serve(self) -> None:
        """Peers are answered until ``close`` is called from another thread."""
        while True:
            try:
                connected, _ = self._socket.accept()
            except OSError:
                if self._is_closed:
                    return
                raise
            if self._slots.acquire(blocking=False):
                Thread(target=self._attend, args=(connected,), daemon=True).start()
            else:
                connected.close()

    def start(self) -> Thread:
        """The thread in which peers are answered until ``close`` is called."""
        thread = Thread(target=self.serve, daemon=True)
        thread.start()
        return thread

    def close(self) -> None:
        """Nobody is answered any more, and the address is free."""
        if self._is_closed:
            return
        self._is_closed = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes the thread that accepts
        self._socket.close()
        if self._path is not None:
            self._path.unlink(missing_ok=True)
        peer = self._peer
        if peer is not None:
            peer.interrupt()

    def _bind(self, place: str | tuple[str, int]) -> None:
        if self._path is None:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        elif self._path.is_socket():
            self._path.unlink()  # of a listener that was killed
        self._socket.bind(place)
        if self._path is not None:
            self._path.chmod(0o600)
        self._socket.listen()

    def _attend(self, connected: socket.socket) -> None:
        channel = Channel(connected, max_frame_bytes=self._max_frame_bytes, timeout_s=self._handshake_timeout_s)
        try:
            channel.prove_to_client(self._key)
            channel.timeout_s = None  # a lane may have nothing to say for hours
            self._welcome(channel)
            while True:
                answer = self._handle(channel, channel.receive())
                if answer is not None:
                    channel.send(answer)
        except UnavailableError as error:
            logger.info("a peer has left", extra={"reason": str(error)})
        except FlashSDError as error:
            logger.warning("a peer was turned away: %s", error)
        except Exception:
            logger.exception("a peer's message could not be answered; its channel is closed")
        finally:
            self._part(channel)
            self._slots.release()

    def _welcome(self, channel: Channel) -> None:
        with self._lock:
            if self._is_closed:
                raise UnavailableError("this listener is closed")
            previous, self._peer = self._peer, channel
            if previous is not None:
                previous.interrupt()
                self._handler.forget()

    def _handle(self, channel: Channel, message: bytearray) -> bytes | None:
        with self._lock:
            if self._peer is not channel:
                raise UnavailableError("another peer has taken the place of this one")
            return self._handler.handle(message)

    def _part(self, channel: Channel) -> None:
        with self._lock:
            if self._peer is channel:
                self._peer = None
                self._handler.forget()
        channel.close()


def _tcp_address(bound: socket.socket) -> str:
    host, port = bound.getsockname()[:2]
    return f"tcp:[{host}]:{port}" if ":" in host else f"tcp:{host}:{port}"
