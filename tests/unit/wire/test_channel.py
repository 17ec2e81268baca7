"""Frames arrive whole and in order, strangers and broken peers harm nobody, and nobody waits for ever."""

from __future__ import annotations

import contextlib
import socket
import struct
import tempfile
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path
from queue import SimpleQueue
from threading import Event, Thread

import pytest

from flashsd_ray.errors import AuthenticationError, ConfigError, UnavailableError, WireError
from flashsd_ray.wire import listener as listening
from flashsd_ray.wire.channel import Channel, parse_address
from flashsd_ray.wire.listener import Listener

KEY = b"open sesame"
LIMIT = 2**20
SILENCE_S = 0.05  # long enough for a reply on loopback never to be awaited in vain in these tests


class Echo:
    """Answers with what it is told; some words mean something."""

    def __init__(self) -> None:
        self.gate = Event()
        self.heard: SimpleQueue[bytes] = SimpleQueue()
        self.forgotten: SimpleQueue[None] = SimpleQueue()

    def handle(self, message: bytes | bytearray) -> bytes | None:
        self.heard.put(bytes(message))
        if message == b"hang":
            self.gate.wait()
        if message == b"crash":
            raise RuntimeError("a bug")
        if message == b"protest":
            raise WireError("not a message")
        return None if message == b"quiet" else bytes(message)

    def forget(self) -> None:
        self.forgotten.put(None)


@pytest.fixture(params=["unix", "tcp"])
def address(request: pytest.FixtureRequest) -> Iterator[str]:
    with tempfile.TemporaryDirectory(prefix="fsd") as directory:
        yield f"unix:{directory}/socket" if request.param == "unix" else "tcp:127.0.0.1:0"


@pytest.fixture
def echo() -> Iterator[Echo]:
    echo = Echo()
    yield echo
    echo.gate.set()


@pytest.fixture
def listener(address: str, echo: Echo) -> Iterator[Listener]:
    listener = Listener(address, KEY, echo, max_frame_bytes=LIMIT)
    thread = listener.start()
    yield listener
    echo.gate.set()
    listener.close()
    thread.join()


def connect(listener: Listener, key: bytes = KEY, timeout_s: float = 20.0) -> Channel:
    return Channel.connect(listener.address, key, max_frame_bytes=LIMIT, timeout_s=timeout_s)


def stranger(listener: Listener) -> socket.socket:
    family, place = parse_address(listener.address)
    connected = socket.socket(family)
    connected.settimeout(20.0)
    connected.connect(place)
    return connected


def pair(timeout_s: float | None = 20.0) -> tuple[Channel, Channel]:
    ours, theirs = socket.socketpair()
    return (
        Channel(ours, max_frame_bytes=LIMIT, timeout_s=timeout_s),
        Channel(theirs, max_frame_bytes=LIMIT, timeout_s=timeout_s),
    )


def test_frames_of_every_size_come_back(listener: Listener) -> None:
    with closing(connect(listener)) as channel:
        for size in (0, 1, 100, 4095, 4096, 4097, 65536, LIMIT):
            frame = bytes(index % 251 for index in range(size))
            assert channel.request(frame) == frame


def test_answers_come_in_the_order_of_the_questions(listener: Listener) -> None:
    with closing(connect(listener)) as channel:
        for word in (b"one", b"quiet", b"two", b"quiet", b"three"):
            channel.send(word)
        assert [channel.receive() for _ in range(3)] == [b"one", b"two", b"three"]


def test_frames_may_arrive_in_pieces() -> None:
    ours, theirs = socket.socketpair()
    with closing(Channel(ours, timeout_s=20.0)) as channel, theirs:
        message = struct.pack("<I", 5) + b"hello"

        def drip() -> None:
            for byte in message:
                theirs.send(bytes([byte]))

        thread = Thread(target=drip)
        thread.start()
        assert channel.receive() == b"hello"
        thread.join()


def test_two_ends_that_send_much_at_once_do_not_wait_for_each_other() -> None:
    left, right = pair()
    frame = bytes(LIMIT)  # larger than any socket buffer

    def talk(channel: Channel) -> None:
        for _ in range(3):
            channel.send(frame)
        for _ in range(3):
            assert len(channel.receive()) == LIMIT
        talked.put(True)

    talked: SimpleQueue[bool] = SimpleQueue()
    threads = [Thread(target=talk, args=(channel,)) for channel in (left, right)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert talked.qsize() == 2


def send_for_ever(channel: Channel) -> None:
    while True:
        channel.send(bytes(LIMIT))


def test_a_peer_that_sends_without_reading_is_given_up() -> None:
    ours, theirs = socket.socketpair()
    frame = struct.pack("<I", LIMIT) + bytes(LIMIT)

    def flood() -> None:
        with contextlib.suppress(OSError):  # the other end has had enough
            while True:
                theirs.sendall(frame)

    thread = Thread(target=flood)
    thread.start()
    with closing(Channel(ours, max_frame_bytes=LIMIT, timeout_s=20.0)) as channel, theirs:
        with pytest.raises(UnavailableError, match="without reading"):
            send_for_ever(channel)
        channel.interrupt()
        thread.join()


@pytest.mark.parametrize("listener_key", [b"another key", b""])
def test_another_key_is_refused(listener: Listener, listener_key: bytes) -> None:
    with pytest.raises(AuthenticationError if listener_key else ConfigError):
        connect(listener, listener_key)
    with closing(connect(listener)) as channel:
        assert channel.request(b"still here") == b"still here"


def test_a_client_finds_out_a_server_without_the_key() -> None:
    left, right = pair()

    def pretend() -> None:
        right._write(bytes(32))
        right._read(64)
        right._write(bytes(32))

    thread = Thread(target=pretend)
    thread.start()
    with pytest.raises(AuthenticationError):
        left.prove_to_server(KEY)
    thread.join()


def test_strangers_who_say_nothing_or_nonsense_stop_nobody(listener: Listener, echo: Echo) -> None:
    silent, loud = stranger(listener), stranger(listener)
    loud.sendall(b"GET / HTTP/1.1\r\n" * 8)
    with silent, loud, closing(connect(listener)) as channel:
        assert channel.request(b"hello") == b"hello"
        assert len(loud.recv(32, socket.MSG_WAITALL)) == 32  # the challenge
        assert loud.recv(100, socket.MSG_WAITALL) == bytes(32)  # not a proof; then the end
        assert silent.recv(100)  # the challenge; it may still answer
    assert echo.heard.get() == b"hello"
    assert echo.heard.empty()


def test_there_is_room_for_so_many_strangers_only(listener: Listener) -> None:
    strangers = [stranger(listener) for _ in range(listening.MAX_CONNECTIONS)]
    for one in strangers:
        assert len(one.recv(32, socket.MSG_WAITALL)) == 32  # is attended to
    with pytest.raises(UnavailableError):
        connect(listener)
    for one in strangers:
        one.close()


def test_a_stranger_is_shown_out_after_a_while(address: str, echo: Echo) -> None:
    listener = Listener(address, KEY, echo, handshake_timeout_s=SILENCE_S)
    thread = listener.start()
    with stranger(listener) as one:
        assert len(one.recv(33, socket.MSG_WAITALL)) == 32  # the challenge, then the end
    listener.close()
    thread.join()


def test_a_silent_peer_is_noticed(listener: Listener) -> None:
    with closing(connect(listener)) as channel:
        channel.timeout_s = SILENCE_S
        with pytest.raises(UnavailableError, match="silent"):
            channel.request(b"hang")


def test_a_peer_that_takes_nothing_is_noticed() -> None:
    left, _right = pair(timeout_s=SILENCE_S)
    with closing(left), pytest.raises(UnavailableError, match="silent"):
        send_for_ever(left)


def test_a_lost_peer_is_noticed(listener: Listener) -> None:
    with closing(connect(listener)) as channel:
        listener.close()
        with pytest.raises(UnavailableError):
            send_for_ever(channel)
    with pytest.raises(UnavailableError, match="nobody answers"):
        connect(listener)


@pytest.mark.parametrize("word", [b"crash", b"protest"])
def test_a_handler_that_fails_ends_one_channel_only(listener: Listener, echo: Echo, word: bytes) -> None:
    with closing(connect(listener)) as channel, pytest.raises(UnavailableError):
        channel.request(word)
    echo.forgotten.get()
    with closing(connect(listener)) as channel:
        assert channel.request(b"hello") == b"hello"


def test_whoever_comes_last_is_served(listener: Listener, echo: Echo) -> None:
    with closing(connect(listener)) as first, closing(connect(listener)) as second:
        assert second.request(b"hello") == b"hello"
        with pytest.raises(UnavailableError):
            first.request(b"hello")
        echo.forgotten.get()
        assert second.request(b"hello again") == b"hello again"
    echo.forgotten.get()
    assert echo.forgotten.empty()


def test_frames_that_are_too_large_are_refused_at_both_ends(listener: Listener) -> None:
    with closing(connect(listener)) as channel:
        with pytest.raises(WireError, match=f"takes {LIMIT}"):
            channel.send(bytes(LIMIT + 1))
        assert channel.request(b"nothing was sent") == b"nothing was sent"
    ours, theirs = socket.socketpair()
    with closing(Channel(ours, max_frame_bytes=LIMIT)) as channel, theirs:
        theirs.send(struct.pack("<I", 2**32 - 1))
        with pytest.raises(WireError, match="announced"):
            channel.receive()


def test_a_socket_left_behind_is_taken_over_and_other_files_are_not(echo: Echo) -> None:
    with tempfile.TemporaryDirectory(prefix="fsd") as directory:
        path = Path(directory) / "socket"
        with socket.socket(socket.AF_UNIX) as left_behind:
            left_behind.bind(str(path))
        listener = Listener(f"unix:{path}", KEY, echo)
        assert path.stat().st_mode & 0o777 == 0o600
        listener.close()
        assert not path.exists()
        path.write_text("mine")
        with pytest.raises(UnavailableError, match="cannot listen"):
            Listener(f"unix:{path}", KEY, echo)
        assert path.read_text() == "mine"


@pytest.mark.parametrize("address", ["", "unix:", "tcp:", "tcp:1", "tcp:host:http", "tcp:host:70000", "udp:h:1", "/a"])
def test_an_address_of_another_form_is_refused(address: str) -> None:
    with pytest.raises(ConfigError, match=r"unix:PATH or tcp:HOST:PORT"):
        parse_address(address)


def test_addresses_mean_sockets() -> None:
    assert parse_address("unix:/run/a:b") == (socket.AF_UNIX, "/run/a:b")
    assert parse_address("tcp:example.org:80") == (socket.AF_INET, ("example.org", 80))
    assert parse_address("tcp:[::1]:80") == (socket.AF_INET6, ("::1", 80))
