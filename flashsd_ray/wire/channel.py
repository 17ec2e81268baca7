"""Frames of bytes between two processes: over a Unix socket on one node, over TCP between nodes.

Both ends prove that they know a key before anything else is read. Frames arrive in order, and any number may be under
way: who cannot write because the other end does not read takes in what arrives meanwhile, so that two ends never wait
for each other. ``multiprocessing.connection`` does nearly this, but a peer that is silent during its handshake stops it
for good, and two ends that both send much at once stop each other.
"""

from __future__ import annotations

import contextlib
import hmac
import secrets
import select
import socket
import struct
from collections import deque

from flashsd_ray.errors import AuthenticationError, ConfigError, FlashSDError, UnavailableError, WireError

DEFAULT_MAX_FRAME_BYTES = 64 * 2**20
CHALLENGE_BYTES = 32
PROOF_BYTES = 32  # of SHA-256
MAX_ARRIVED_FRAMES = 4  # bytes of so many largest frames may arrive while this end is writing
SMALL_FRAME = 4096  # is copied behind its length instead of being written by itself
_LENGTH = struct.Struct("<I")


class Channel:
    """One end of a connection; belongs to one thread, others may only ``interrupt`` it."""

    def __init__(
        self,
        connected: socket.socket,
        *,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        timeout_s: float | None = None,  # longest wait for the next bytes to come or go; None: as long as it takes
    ) -> None:
        self.timeout_s = timeout_s
        self._max_frame_bytes = max_frame_bytes
        self._socket = connected
        self._arrived: deque[bytearray] = deque()
        self._missing = memoryview(b"")  # of the bytes that come next
        self._expect(_LENGTH.size, is_length=True)
        connected.setblocking(False)
        if connected.family != socket.AF_UNIX:
            connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        self._ready = select.poll()
        self._ready.register(connected, select.POLLIN)

    @classmethod
    def connect(
        cls,
        address: str,  # "unix:PATH" or "tcp:HOST:PORT"
        key: bytes,
        *,
        max_frame_bytes: int = DEFAULT_MAX_FRAME_BYTES,
        timeout_s: float | None = None,
    ) -> Channel:
        """A channel to whoever listens at the address; both ends have proved that they know the key.

        Raises:
            UnavailableError: nobody answers there in time.
            AuthenticationError: whoever answers has another key.
            ConfigError: the address has another form.
        """
        family, place = parse_address(address)
        connected = socket.socket(family, socket.SOCK_STREAM)
        try:
            connected.settimeout(timeout_s)
            connected.connect(place)
            channel = cls(connected, max_frame_bytes=max_frame_bytes, timeout_s=timeout_s)
            channel.prove_to_server(key)
        except OSError as error:
            connected.close()
            raise UnavailableError(f"nobody answers at {address}: {error.strerror or error}") from error
        except FlashSDError:
            connected.close()
            raise
        return channel

    def request(self, frame: bytes) -> bytearray:
        """The frame that answers this one, when no other answer is outstanding.

        Raises:
            UnavailableError: the other end is lost or silent.
            WireError: a frame is larger than this channel takes.
        """
        self.send(frame)
        return self.receive()

    def send(self, frame: bytes) -> None:
        """The frame is on its way.

        Raises:
            UnavailableError: the other end is lost, or reads nothing.
            WireError: the frame is larger than this channel takes; nothing was sent.
        """
        if len(frame) > self._max_frame_bytes:
            raise WireError(f"a frame of {len(frame)} bytes is too large, this channel takes {self._max_frame_bytes}")
        head = _LENGTH.pack(len(frame))
        if len(frame) <= SMALL_FRAME:
            self._write(head + frame)
        else:
            self._write(head)
            self._write(frame)

    def receive(self) -> bytearray:
        """The next frame.

        Raises:
            UnavailableError: the other end is lost or silent.
            WireError: the frame is larger than this channel takes.
        """
        while not self._arrived:
            if not self._take_in():
                self._wait()
        return self._arrived.popleft()

    def interrupt(self) -> None:
        """Both ends are told that the channel is over; to be called from any thread."""
        with contextlib.suppress(OSError):  # the other end was faster
            self._socket.shutdown(socket.SHUT_RDWR)

    def close(self) -> None:
        """Both ends are told that the channel is over, and its socket is free."""
        self.interrupt()
        self._socket.close()

    def prove_to_server(self, key: bytes) -> None:
        """The server knows that this end has the key, and the other way round.

        Raises:
            UnavailableError: the server is lost or silent.
            AuthenticationError: it has another key.
        """
        challenges = self._read(CHALLENGE_BYTES) + secrets.token_bytes(CHALLENGE_BYTES)
        self._write(challenges[CHALLENGE_BYTES:] + _proof(key, b"client", challenges))
        if not hmac.compare_digest(self._read(PROOF_BYTES), _proof(key, b"server", challenges)):
            raise AuthenticationError("the other end of a channel has another key")

    def prove_to_client(self, key: bytes) -> None:
        """The client knows that this end has the key, and the other way round.

        Raises:
            UnavailableError: the client is lost or silent.
            AuthenticationError: it has another key, and was told so.
        """
        challenge = secrets.token_bytes(CHALLENGE_BYTES)
        self._write(challenge)
        answer = self._read(CHALLENGE_BYTES + PROOF_BYTES)
        challenges = challenge + answer[:CHALLENGE_BYTES]
        if not hmac.compare_digest(answer[CHALLENGE_BYTES:], _proof(key, b"client", challenges)):
            self._write(bytes(PROOF_BYTES))
            raise AuthenticationError("the other end of a channel has another key")
        self._write(_proof(key, b"server", challenges))

    def _write(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            try:
                view = view[self._socket.send(view, socket.MSG_NOSIGNAL) :]
            except BlockingIOError:
                self._wait_to_write()
            except OSError as error:
                raise _lost(error) from error

    def _wait_to_write(self) -> None:
        self._ready.modify(self._socket, select.POLLIN | select.POLLOUT)
        try:
            events = self._wait()
        finally:
            self._ready.modify(self._socket, select.POLLIN)
        if events & select.POLLIN:
            # Never more than is there: the other end may be in the middle of a frame, waiting for this end to read.
            self._take_in()
            if sum(map(len, self._arrived)) > MAX_ARRIVED_FRAMES * self._max_frame_bytes:
                raise UnavailableError("the other end of a channel sends without reading")

    def _take_in(self) -> bool:
        """Whether some bytes were there; they are part of the next frame."""
        try:
            count = self._socket.recv_into(self._missing)
        except BlockingIOError:
            return False
        except OSError as error:
            raise _lost(error) from error
        if not count:
            raise UnavailableError("the other end of a channel is closed")
        self._missing = self._missing[count:]
        if not self._missing:
            self._complete()
        return True

    def _complete(self) -> None:
        if not self._is_length:
            self._arrived.append(self._expected)
            self._expect(_LENGTH.size, is_length=True)
            return
        (size,) = _LENGTH.unpack(self._expected)
        if size > self._max_frame_bytes:
            raise WireError(f"a frame of {size} bytes is announced, this channel takes {self._max_frame_bytes}")
        self._expect(size, is_length=False)
        if not size:
            self._complete()

    def _expect(self, size: int, *, is_length: bool) -> None:
        self._expected = bytearray(size)
        self._missing = memoryview(self._expected)
        self._is_length = is_length

    def _read(self, size: int) -> bytes:
        """So many bytes of a handshake."""
        self._expect(size, is_length=False)
        return bytes(self.receive())

    def _wait(self) -> int:
        ready = self._ready.poll(None if self.timeout_s is None else self.timeout_s * 1000)
        if not ready:
            raise UnavailableError(f"the other end of a channel was silent for {self.timeout_s} s")
        return ready[0][1]


def parse_address(address: str) -> tuple[socket.AddressFamily, str | tuple[str, int]]:
    """The kind of socket that the address means, and the place as that kind takes it.

    Raises:
        ConfigError: it is neither ``unix:PATH`` nor ``tcp:HOST:PORT``.
    """
    kind, _, place = address.partition(":")
    host, _, port = place.rpartition(":")
    if kind == "unix" and place:
        return socket.AF_UNIX, place
    if kind == "tcp" and host and port.isdecimal() and int(port) < 2**16:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        return family, (host.strip("[]"), int(port))
    raise ConfigError(f"a channel's address is unix:PATH or tcp:HOST:PORT, got {address!r}")


def _proof(key: bytes, side: bytes, challenges: bytes) -> bytes:
    if not key:
        raise ConfigError("a channel needs a key")
    return hmac.digest(key, side + challenges, "sha256")


def _lost(error: OSError) -> UnavailableError:
    return UnavailableError(f"the other end of a channel is lost: {error.strerror or error}")
