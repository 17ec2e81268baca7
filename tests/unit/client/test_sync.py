"""The client without asyncio: the same answers, from any thread, and a program that ends when it should."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import pytest

import flashsd_ray
from flashsd_ray.client import AnswerDelta, AnswerFinished, Client, Closed
from flashsd_ray.errors import FlashSDError, SequenceError, UnavailableError
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from tests.media_files import make_video
from tests.unit.client.scripted import FINISHED, STARTED, Line, Servicer, delta, says, tells

ROOT = Path(__file__).parents[3]
T = TypeVar("T")

THREE_LINES = """
import sys
from flashsd_ray import Client
client = Client(sys.argv[1])
caption = client.caption(sys.argv[2], "Describe the video.")
print(caption.text, caption.statistics.tau)
"""


async def in_a_thread(work: Callable[[], T]) -> T:
    return await asyncio.wait_for(asyncio.to_thread(work), 60)


async def start(program: str, *words: str) -> asyncio.subprocess.Process:
    return await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        # Whoever started the tests in the background had interrupts ignored, which a program would inherit.
        f"import signal; signal.signal(signal.SIGINT, signal.default_int_handler)\n{program}",
        *words,
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )


async def test_captions_and_pieces(address: str, servicer: Servicer) -> None:
    servicer.captions.append(says())
    servicer.streams.append(tells(STARTED, delta("a "), delta("dog"), FINISHED))

    def work() -> None:
        with Client(address) as client:
            assert client.model().name == "scripted"
            assert client.caption(np.zeros((2, 2, 3), np.uint8), "Describe it.").text == "a dog"
            assert [piece.text for piece in client.stream((), "Describe it.")] == ["a ", "dog", ""]

    await in_a_thread(work)


async def test_many_threads_share_one_client(address: str, servicer: Servicer) -> None:
    servicer.captions.append(says())
    client = Client(address)
    captions = await asyncio.gather(*(asyncio.to_thread(client.caption, (), "Hello?") for _ in range(8)))
    assert [caption.text for caption in captions] == ["a dog"] * 8
    await in_a_thread(client.close)


async def test_leaving_the_loop_cancels_on_the_server(address: str, servicer: Servicer) -> None:
    servicer.streams.append(tells(STARTED, delta("a"), gate=asyncio.Event()))
    client = Client(address)

    def work() -> None:
        for _piece in client.stream((), "Hello?"):
            break

    await in_a_thread(work)
    await asyncio.wait_for(servicer.cancelled.wait(), 30)
    await in_a_thread(client.close)


async def test_a_session(address: str, servicer: Servicer) -> None:
    async def script(line: Line) -> None:
        await line.opened()
        await line.read("frame")
        await line.say(frame_ack=pb.FrameAck(frame=0, frames_held=1))
        await line.answer((await line.read("ask")).ask_id, "a ", "dog")
        await line.read("set_prompt")
        await line.answer((await line.read("ask")).ask_id, "a cat")
        await line.read("end")
        await line.answer("caption-1", "a bird")
        await line.close()

    servicer.lines.append(script)

    def work() -> list[Any]:
        with Client(address) as client, client.watch(prompt="Look.", mode="periodic", period_s=1.0) as session:
            assert (session.session_id, session.resume_token, session.next_frame) == ("session", "token", 0)
            session.send(np.zeros((2, 2, 3), np.uint8), 0.0)
            texts = [event.text for event in session.ask("What?") if isinstance(event, AnswerDelta)]
            assert texts == ["a ", "dog"]
            assert session.progress.num_acknowledged == 1
            session.set_prompt("And now?")
            assert session.answer().text == "a cat"
            session.end()
            return list(session.events())

    events = await in_a_thread(work)
    assert isinstance(events[-1], Closed)
    assert [event.text for event in events if isinstance(event, AnswerFinished)] == ["a bird"]


async def test_an_error_leaves_a_session_politely(address: str, servicer: Servicer) -> None:
    ended = asyncio.Event()

    async def script(line: Line) -> None:
        await line.opened()
        await line.read("end")
        ended.set()
        await line.close()

    servicer.lines.append(script)

    def work() -> None:
        with Client(address) as client, pytest.raises(ZeroDivisionError), client.watch():
            raise ZeroDivisionError

    await in_a_thread(work)
    assert ended.is_set()


async def test_a_client_that_nobody_refers_to_lets_go_of_the_server(address: str, servicer: Servicer) -> None:
    async def script(line: Line) -> None:
        await line.opened()
        await asyncio.Event().wait()

    servicer.lines.append(script)

    def work() -> None:
        session = Client(address).watch().__enter__()
        gc.collect()
        session.set_prompt("And now?")
        del session
        gc.collect()

    await in_a_thread(work)
    await asyncio.wait_for(servicer.cancelled.wait(), 30)


async def test_what_a_client_gave_keeps_it_alive(address: str, servicer: Servicer) -> None:
    servicer.streams.append(tells(STARTED, delta("a "), delta("dog"), FINISHED))

    def work() -> None:
        pieces = Client(address).stream((), "Hello?")
        assert next(pieces).text == "a "
        gc.collect()
        assert [piece.text for piece in pieces] == ["dog", ""]

    await in_a_thread(work)


def test_all_clients_share_one_thread() -> None:
    clients = [Client("localhost:1") for _ in range(3)]
    assert [thread.name for thread in threading.enumerate()].count("flashsd-client") == 1
    for client in clients:
        client.close()


def test_a_closed_client_says_so() -> None:
    client = Client("localhost:1")
    client.close()
    client.close()
    with pytest.raises(SequenceError, match="the client is closed"):
        client.model()
    with pytest.raises(SequenceError, match="the client is closed"):
        next(client.stream((), "Hello?"))


async def test_three_lines_to_a_caption(address: str, servicer: Servicer, tmp_path: Path) -> None:
    content = make_video(num_frames=2)
    (tmp_path / "clip.mp4").write_bytes(content)
    servicer.captions.append(says())
    process = await start(THREE_LINES, address, str(tmp_path / "clip.mp4"))
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, out.decode(), err.decode()) == (0, "a dog 2.5\n", "")
    assert servicer.requests[0].turns[0].parts[0].video.encoded == content


async def test_an_interrupt_cancels_on_the_server(address: str, servicer: Servicer) -> None:
    has_arrived, is_cancelled = asyncio.Event(), asyncio.Event()

    async def never(request: object, context: object) -> pb.CaptionResponse:
        has_arrived.set()
        try:
            await asyncio.Event().wait()
        finally:
            is_cancelled.set()
        raise AssertionError

    servicer.captions.append(never)
    program = "import sys; from flashsd_ray import Client; Client(sys.argv[1]).caption((), 'Hello?')"
    process = await start(program, address)
    await asyncio.wait_for(has_arrived.wait(), 60)
    process.send_signal(signal.SIGINT)
    _out, err = await asyncio.wait_for(process.communicate(), 60)
    assert err.decode().splitlines()[-1] == "KeyboardInterrupt"
    await asyncio.wait_for(is_cancelled.wait(), 30)


async def test_the_client_costs_little_to_import() -> None:
    program = (
        "import sys\nfrom flashsd_ray import AsyncClient, Client, SamplingParams\nimport flashsd_ray.client\n"
        "heavy = {'torch', 'transformers', 'av', 'ray', 'rich', 'fastapi', 'numpy', 'PIL'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    process = await start(program)
    _out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (0, "")


def test_both_clients_are_offered_by_the_package() -> None:
    assert flashsd_ray.Client is Client
    assert {"Client", "AsyncClient"} <= set(dir(flashsd_ray))


async def test_errors_cross_threads_as_they_are(address: str, servicer: Servicer) -> None:
    servicer.streams.append(tells(STARTED, delta("a")))
    client = Client(address)

    def work() -> None:
        with pytest.raises(UnavailableError, match="before its end") as caught:
            list(client.stream((), "Hello?"))
        assert isinstance(caught.value, FlashSDError)
        client.close()

    await in_a_thread(work)
