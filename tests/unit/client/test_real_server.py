"""The client against the server of this package, over a wire that can be cut."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np
import pytest

from flashsd_ray.cli.main import main
from flashsd_ray.client import AnswerFinished, AsyncClient, Closed, Refused, Resumed, Retries, Video
from flashsd_ray.config import Config, with_overrides
from flashsd_ray.errors import (
    AuthenticationError,
    InvalidRequestError,
    MediaLimitError,
    NotFoundError,
    OverloadedError,
    SequenceError,
)
from flashsd_ray.serving.grpc.edge import open_grpc_edge
from flashsd_ray.types import FinishReason, SamplingParams
from tests.fake_service import EchoService
from tests.media_files import make_video
from tests.unit.client.conftest import FakeTime


class Wire:
    """Passes bytes between clients and a server until it is cut."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._connections: list[asyncio.Task[None]] = []
        self._server: asyncio.Server | None = None

    @property
    def address(self) -> str:
        assert self._server is not None
        return f"localhost:{self._server.sockets[0].getsockname()[1]}"

    async def open(self) -> None:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", 0)

    async def cut(self) -> None:
        """Every connection that is there is gone; new ones are accepted."""
        connections, self._connections = self._connections, []
        for connection in connections:
            connection.cancel()
        await asyncio.gather(*connections, return_exceptions=True)

    async def close(self) -> None:
        assert self._server is not None
        self._server.close()
        await self.cut()

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self._connections.append(task)
        there, back = await asyncio.open_connection("127.0.0.1", self._port)
        try:
            await asyncio.gather(_copy(reader, back), _copy(there, writer))
        except (OSError, asyncio.CancelledError):
            pass
        finally:
            for end in (writer, back):
                end.transport.abort()


async def _copy(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    while data := await reader.read(2**16):
        writer.write(data)
        await writer.drain()
    writer.close()


@asynccontextmanager
async def wired(service: EchoService, *settings: str) -> AsyncIterator[Wire]:
    """A wire to a server of this service."""
    edge = await open_grpc_edge(service, with_overrides(Config(), ["serving.grpc_port=0", *settings]))
    wire = Wire(edge.port)
    await wire.open()
    try:
        yield wire
    finally:
        await wire.close()
        await edge.stop(0)


@pytest.fixture
def service() -> EchoService:
    return EchoService()


async def until(holds: Callable[[], bool]) -> None:
    """Returns when it holds; the test's own limit ends it otherwise."""
    while not holds():  # noqa: ASYNC110 (the service has no event for it)
        await asyncio.sleep(0)


def frame(number: int) -> np.ndarray:
    return np.full((8, 8, 3), number, np.uint8)


async def test_captions(service: EchoService, clip: Path) -> None:
    async with wired(service) as wire, AsyncClient(wire.address) as client:
        caption = await client.caption(Video(clip, num_frames=3), "What is it?", request_id="mine")
        assert (caption.text, caption.finish_reason) == ("3 frames: What is it?", FinishReason.STOP)
        assert caption.request_id.startswith("mine")
        assert caption.statistics.tau == 1.0
        (request,) = service.asked
        (seen,) = request.conversation.visuals
        assert seen.kind == "video"
        frames = [frame(1), frame(2)]
        sampling = SamplingParams(max_new_tokens=4, logprobs=1)
        pieces = [piece async for piece in client.stream(frames, "What is it?", sampling=sampling)]
        assert "".join(piece.text for piece in pieces) == "2 frames: What is"
        assert pieces[-1].finish_reason is FinishReason.LENGTH
        assert len(pieces[0].logprobs[0].top) == 1
        assert [visual.frames[0].tolist() for visual in service.asked[1].conversation.visuals] == [
            one.tolist() for one in frames
        ]
        model = await client.model()
        assert (model.name, model.max_message_bytes) == ("echo", Config().serving.max_body_bytes)


async def test_errors(service: EchoService, tmp_path: Path) -> None:
    (tmp_path / "keys").write_text("tester:secret-key-of-the-tester\n")
    (tmp_path / "keys").chmod(0o600)
    service.fails = lambda request: OverloadedError("full", retry_after_s=2.0) if request.draft_length == 1 else None
    once = Retries(attempts=1)
    settings = (f"serving.keys_file={tmp_path / 'keys'}", "serving.max_body_bytes=100000")
    async with wired(service, *settings) as wire:
        async with AsyncClient(wire.address, api_key="wrong") as client:
            with pytest.raises(AuthenticationError):
                await client.model()
        async with AsyncClient(wire.address, api_key="secret-key-of-the-tester", retries=once) as client:
            with pytest.raises(OverloadedError, match=r"^full$") as caught:
                await client.caption((), "Hello?", draft_length=1)
            assert caught.value.retry_after_s == 2.0
            with pytest.raises(NotFoundError, match="no model 'other'"):
                await client.caption((), "Hello?", model="other")
            with pytest.raises(InvalidRequestError):
                await client.caption(b"this is no video", "What is it?")
            with pytest.raises(MediaLimitError, match=r"serving.max_body_bytes"):
                await client.caption(np.zeros((200, 200, 3), np.uint8), "What is it?")


async def test_closing_early_frees_the_request(service: EchoService) -> None:
    service.gate.clear()
    async with wired(service) as wire, AsyncClient(wire.address) as client:
        pieces = client.stream((), "What is it?")
        waiting = asyncio.ensure_future(pieces.__anext__())
        await until(lambda: bool(service.open))
        waiting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await waiting
        await until(lambda: not service.open)


async def test_a_live_session(service: EchoService) -> None:
    async with wired(service) as wire, AsyncClient(wire.address) as client:
        async with client.watch(prompt="What is it?") as session:
            with pytest.raises(SequenceError):
                await session.answer()
            for number in range(20):
                await session.send(frame(number), number / 10)
            answer = await session.answer()
            assert answer.text == "20 frames: What is it?"
            await session.end()
            assert isinstance([event async for event in session.events()][-1], Closed)
        assert session.progress.num_acknowledged == 20


async def test_a_cut_wire_loses_nothing(service: EchoService, time: FakeTime) -> None:
    async with (
        wired(service) as wire,
        AsyncClient(wire.address) as client,
        client.watch(prompt="What is it?") as session,
    ):
        events = session.events()
        for cut in range(3):
            for number in range(5):
                await session.send(frame(number), cut + number / 10)
            await wire.cut()
            assert isinstance(await events.__anext__(), Resumed)
        answer = await session.answer()
        assert answer.text == "15 frames: What is it?"
        assert session.progress.num_acknowledged == session.progress.num_sent == 15


async def test_a_wire_that_is_cut_before_the_answer(service: EchoService) -> None:
    async with (
        wired(service) as wire,
        AsyncClient(wire.address) as client,
        client.watch(prompt="What is it?") as session,
    ):
        await session.send(frame(0), 0.0)
        service.gate.clear()
        answer = asyncio.ensure_future(session.answer())
        await until(lambda: bool(service.open))
        await wire.cut()
        service.gate.set()
        assert (await answer).text == "1 frames: What is it?"


async def test_captions_of_a_session(service: EchoService) -> None:
    async with (
        wired(service) as wire,
        AsyncClient(wire.address) as client,
        client.watch(prompt="What is it?", mode="periodic", period_s=1.0) as session,
    ):
        for number in range(8):
            await session.send(frame(number), number / 4)
        with pytest.raises(InvalidRequestError, match="8, 8"):
            await session.send(np.zeros((8, 8), np.uint8))
        await session.send(frame(9), 0.5)  # runs backwards
        await session.end()
        events = [event async for event in session.events()]
    texts = [event.text for event in events if isinstance(event, AnswerFinished)]
    assert texts == ["4 frames: What is it?"] * 2
    assert [event.frame for event in events if isinstance(event, Refused)] == [8]


async def test_the_command_plays_a_video(
    service: EchoService, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("flashsd_ray.cli.loading.quiet_libraries", lambda: None)
    (tmp_path / "clip.mp4").write_bytes(make_video(num_frames=24, fps=8))
    async with wired(service) as wire:
        command = ["stream", str(tmp_path / "clip.mp4"), "--server", wire.address, "--fps", "all"]
        command += ["--prompt", "What?"]
        assert await asyncio.to_thread(main, [*command, "--speed", "max"]) == 0
        assert capsys.readouterr() == ("24 frames: What?\n", "")
        assert await asyncio.to_thread(main, [*command, "--speed", "max", "--every", "1", "--format", "vtt"]) == 0
        captured = capsys.readouterr()
        assert captured.out.startswith("WEBVTT\n\n1\n00:00:00.000 --> 00:00:01.000\n8 frames: What?\n\n")
        assert captured.out.count("-->") == 3
