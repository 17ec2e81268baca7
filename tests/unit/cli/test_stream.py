"""``flashsd stream`` against a scripted server: what is sent, what is written, how it ends."""

from __future__ import annotations

import asyncio
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest

from flashsd_ray.cli import loading
from flashsd_ray.cli.main import main
from flashsd_ray.wire.v1 import captioning_pb2 as pb
from tests.media_files import make_picture, make_video, shown_numbers
from tests.unit.client.scripted import STATISTICS, Line, Servicer, serving

ROOT = Path(__file__).parents[3]
NUM_FRAMES, FPS = 8, 4

# Whoever started the tests in the background had interrupts ignored, which a command would inherit.
HEEDING_INTERRUPTS = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)
from flashsd_ray.cli.main import main
sys.exit(main())
"""


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


Command = Callable[..., Awaitable[Outcome]]


@pytest.fixture
def video(tmp_path: Path) -> Path:
    """Eight numbered frames, four a second."""
    path = tmp_path / "clip.mp4"
    path.write_bytes(make_video(num_frames=NUM_FRAMES, fps=FPS))
    return path


@pytest.fixture
def servicer() -> Servicer:
    return Servicer(model=pb.Model(name="demo", drafter="flash", compressor="flash", dtype="float32"))


@pytest.fixture
async def address(servicer: Servicer) -> AsyncIterator[str]:
    async with serving(servicer) as found:
        yield found


@pytest.fixture
def flashsd(address: str, video: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Command:
    """Runs the verb on the video and the server, beside the server's event loop."""
    monkeypatch.setattr(loading, "quiet_libraries", lambda: None)

    async def run(*words: str | Path, path: str | Path = video, server: str = address) -> Outcome:
        command = ["stream", str(path), "--server", server, "--speed", "max", "--fps", "all", *map(str, words)]
        code = await asyncio.wait_for(asyncio.to_thread(main, command), 60)
        captured = capsys.readouterr()
        return Outcome(code, captured.out, captured.err)

    return run


class Recorder:
    """What the server has seen of a session."""

    def __init__(self) -> None:
        self.openings: list[pb.Open] = []
        self.numbers: list[int] = []
        self.times_s: list[float] = []

    async def frame(self, line: Line) -> None:
        """The next frame is read and taken over."""
        sent = await line.read("frame")
        raw = sent.image.raw
        pixels = np.frombuffer(raw.rgb, np.uint8).reshape(1, raw.height, raw.width, 3)
        self.numbers += shown_numbers(pixels)
        self.times_s.append(sent.timestamp_s)
        await line.say(frame_ack=pb.FrameAck(frame=len(self.numbers) - 1, frames_held=len(self.numbers)))

    async def on_demand(self, line: Line) -> None:
        """A session that is asked once, after so many frames as come."""
        await line.opened()
        self.openings.append(line.opening)
        async for message in line.requests:
            kind = message.WhichOneof("message")
            if kind == "frame":
                pixels = np.frombuffer(message.frame.image.raw.rgb, np.uint8).reshape(1, 48, 80, 3)
                self.numbers += shown_numbers(pixels)
                self.times_s.append(message.frame.timestamp_s)
                await line.say(frame_ack=pb.FrameAck(frame=len(self.numbers) - 1, frames_held=len(self.numbers)))
            elif kind == "ask":
                await line.answer(message.ask.ask_id, "a ", "dog")
            else:
                break
        await line.close()


@pytest.fixture
def recorder() -> Recorder:
    return Recorder()


async def test_the_video_is_played_and_then_asked_about(
    flashsd: Command, servicer: Servicer, recorder: Recorder
) -> None:
    servicer.lines.append(recorder.on_demand)
    outcome = await flashsd("--prompt", "What?", "--max-new-tokens", "7", "--temperature", "0.5", "--draft-length", "3")
    assert outcome == Outcome(0, "a dog\n", "")
    assert recorder.numbers == list(range(NUM_FRAMES))
    assert recorder.times_s == pytest.approx([index / FPS for index in range(NUM_FRAMES)])
    (opening,) = recorder.openings
    assert (opening.prompt, opening.mode, opening.draft_length) == ("What?", pb.Open.MODE_ON_DEMAND, 3)
    assert (opening.sampling.max_new_tokens, opening.sampling.temperature) == (7, 0.5)


async def test_fewer_frames_a_second(flashsd: Command, servicer: Servicer, recorder: Recorder) -> None:
    servicer.lines.append(recorder.on_demand)
    assert (await flashsd("--fps", "2")).code == 0
    assert recorder.numbers == [0, 2, 4, 6]
    assert recorder.times_s == pytest.approx([0.0, 0.5, 1.0, 1.5])


async def test_frames_as_jpeg(flashsd: Command, servicer: Servicer) -> None:
    frames: list[bytes] = []

    async def script(line: Line) -> None:
        await line.opened()
        async for message in line.requests:
            if message.HasField("frame"):
                frames.append(message.frame.image.encoded)
            elif message.HasField("ask"):
                await line.answer(message.ask.ask_id, "a dog")
            else:
                await line.close()

    servicer.lines.append(script)
    assert (await flashsd("--jpeg", "80")).code == 0
    assert len(frames) == NUM_FRAMES
    assert all(content.startswith(b"\xff\xd8\xff") for content in frames)


async def test_json_holds_everything_that_is_known(
    flashsd: Command, servicer: Servicer, recorder: Recorder, video: Path
) -> None:
    servicer.lines.append(recorder.on_demand)
    outcome = await flashsd("--format", "json")
    (line,) = outcome.out.splitlines()
    described = json.loads(line)
    assert described["text"] == "a dog"
    assert (described["start_s"], described["end_s"], described["num_frames"]) == (0.0, 2.0, 3)
    assert (described["seconds_to_first_text"], described["tau"], described["rounds"]) == (0.25, 2.5, 2)
    assert (described["path"], described["model"], described["drafter"]) == (str(video), "demo", "flash")
    assert (described["finish_reason"], described["is_unchanged"]) == ("stop", False)


async def _periodic(line: Line) -> None:
    await line.opened()
    for index in range(NUM_FRAMES):
        await line.read("frame")
        await line.say(frame_ack=pb.FrameAck(frame=index, frames_held=index + 1))
    for number, text in enumerate(["a dog", "a dog", "a <cat>"]):
        ask_id = f"caption-{number}"
        is_unchanged = number == 1
        started = pb.AnswerStarted(ask_id=ask_id, start_s=2.0 * number, end_s=2.0 * number + 2, num_frames=4)
        await line.say(answer_started=started)
        if not is_unchanged:
            await line.say(answer_delta=pb.AnswerDelta(ask_id=ask_id, delta=pb.Delta(text=text)))
        await line.say(
            answer_finished=pb.AnswerFinished(
                ask_id=ask_id, text=text, finish_reason=1, statistics=STATISTICS, is_unchanged=is_unchanged
            )
        )
    await line.read("end")
    await line.close()


async def test_captions_while_the_video_runs(flashsd: Command, servicer: Servicer) -> None:
    servicer.lines.append(_periodic)
    outcome = await flashsd("--every", "2")
    assert outcome == Outcome(0, "[0:00.0-0:02.0] a dog\n[0:04.0-0:06.0] a <cat>\n", "")


async def test_changes_become_subtitles_without_gaps(
    flashsd: Command, servicer: Servicer, recorder: Recorder, tmp_path: Path
) -> None:
    openings = []

    async def script(line: Line) -> None:
        await _periodic(line)
        openings.append(line.opening)

    servicer.lines.append(script)
    outcome = await flashsd("--changes", "--format", "vtt", "--output", tmp_path / "out.vtt")
    assert outcome == Outcome(0, "", "")
    assert (tmp_path / "out.vtt").read_text() == (
        "WEBVTT\n\n1\n00:00:00.000 --> 00:00:04.000\na dog\n\n2\n00:00:04.000 --> 00:00:06.000\na &lt;cat&gt;\n\n"
    )
    assert [(opening.mode, opening.period_s) for opening in openings] == [(pb.Open.MODE_CHANGES, 2.0)]


async def test_text_is_written_while_frames_are_still_sent(
    flashsd: Command, servicer: Servicer, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, was_written = asyncio.get_running_loop(), asyncio.Event()

    class Watched(io.StringIO):
        def write(self, text: str) -> int:
            if "dog" in text:
                loop.call_soon_threadsafe(was_written.set)
            return super().write(text)

    async def script(line: Line) -> None:
        await line.opened(max_waiting_frames=2)
        await line.read("frame")
        await line.say(answer_delta=pb.AnswerDelta(ask_id="caption-1", delta=pb.Delta(text="a dog")))
        await was_written.wait()
        for index in range(NUM_FRAMES):
            await line.say(frame_ack=pb.FrameAck(frame=index, frames_held=1))
            await line.read("frame" if index < NUM_FRAMES - 1 else "end")
        await line.close()

    servicer.lines.append(script)
    monkeypatch.setattr(sys, "stdout", Watched())
    assert (await flashsd("--every", "1")).code == 0


async def test_refused_frames_cost_only_themselves(flashsd: Command, servicer: Servicer) -> None:
    async def script(line: Line) -> None:
        await line.opened()
        for index in range(NUM_FRAMES):
            await line.read("frame")
            await line.say(refused=pb.Refused(reason="too fast", code="RESOURCE_EXHAUSTED", frame=index))
        await line.answer((await line.read("ask")).ask_id, "nothing")
        await line.read("end")
        await line.close()

    servicer.lines.append(script)
    outcome = await flashsd()
    assert (outcome.code, outcome.out) == (1, "nothing\n")
    first, last = outcome.err.splitlines()
    assert first == "flashsd: error: frame 0: too fast"
    assert last == "flashsd: error: 8 frames, prompts or captions were refused in all"


async def test_a_refused_question(flashsd: Command, servicer: Servicer) -> None:
    async def script(line: Line) -> None:
        await line.opened()
        for _ in range(NUM_FRAMES):
            await line.read("frame")
        ask = await line.read("ask")
        await line.say(refused=pb.Refused(reason="no room", code="RESOURCE_EXHAUSTED", ask_id=ask.ask_id))
        await line.read("end")
        await line.close()

    servicer.lines.append(script)
    assert await flashsd() == Outcome(2, "", "flashsd: error: no room\n")


async def test_a_lost_connection_is_made_again(
    flashsd: Command, servicer: Servicer, recorder: Recorder, caplog: pytest.LogCaptureFixture
) -> None:
    async def first(line: Line) -> None:
        await line.opened()
        await recorder.frame(line)
        await recorder.frame(line)
        await line.drop()

    async def second(line: Line) -> None:
        await line.opened(next_frame=2)
        for _ in range(NUM_FRAMES - 2):
            await recorder.frame(line)
        await line.answer((await line.read("ask")).ask_id, "a dog")
        await line.read("end")
        await line.close()

    servicer.lines.extend([first, second])
    outcome = await flashsd()
    assert (outcome.code, outcome.out) == (0, "a dog\n")
    assert recorder.numbers == list(range(NUM_FRAMES))
    assert "the video goes on at frame 2" in caplog.text


async def test_a_session_that_is_lost(flashsd: Command, servicer: Servicer) -> None:
    async def first(line: Line) -> None:
        await line.opened()
        await line.answer("caption-1", "half a ")
        await line.say(answer_delta=pb.AnswerDelta(ask_id="caption-2", delta=pb.Delta(text="half a")))
        await line.read("frame")
        await line.drop()

    async def second(line: Line) -> None:
        from grpc import StatusCode

        await line.drop(StatusCode.NOT_FOUND, "no such session")

    servicer.lines.extend([first, second])
    outcome = await flashsd("--every", "1")
    assert outcome.code == 2
    assert outcome.err == "flashsd: error: no such session\n"
    assert outcome.out.endswith("half a\n"), "a line that was begun is ended"


async def test_the_key_comes_from_the_option_or_the_environment(
    flashsd: Command, servicer: Servicer, recorder: Recorder, monkeypatch: pytest.MonkeyPatch
) -> None:
    servicer.lines.extend([recorder.on_demand, Recorder().on_demand])
    monkeypatch.setenv("FLASHSD_API_KEY", "from the environment")
    assert (await flashsd()).code == 0
    assert (await flashsd("--api-key", "from the option")).code == 0
    keys = [sent["authorization"] for sent in servicer.metadata]
    assert keys == ["Bearer from the environment", "Bearer from the option"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--server", "localhost"], "a server is addressed as host:port; got 'localhost'"),
        (["--ca", "x.pem"], "certificates are given, but TLS is not switched on"),
        (["--jpeg", "101"], "jpeg_quality must be in 1..100"),
        (["--speed", "0"], "--speed: must be a number above 0, got 0"),
        (["--temperature", "-1"], "temperature must be in"),
        (["--output", "no/such/directory/x.txt"], "is no directory"),
    ],
)
async def test_mistakes_are_one_line(words: list[str], message: str, flashsd: Command) -> None:
    outcome = await flashsd(*words)
    assert (outcome.code, outcome.out) == (2, "")
    (line,) = outcome.err.splitlines()
    assert message in line


async def test_a_server_that_is_not_there(flashsd: Command) -> None:
    outcome = await flashsd(server="localhost:1")
    assert outcome.code == 2
    (line,) = outcome.err.splitlines()
    assert line.startswith("flashsd: error: localhost:1: ")


def test_the_libraries_of_the_client_are_not_installed(video: Path) -> None:
    program = (
        "import sys; sys.modules['grpc'] = None\n"
        f"from flashsd_ray.cli.main import main\nsys.exit(main(['stream', {str(video)!r}]))"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "flashsd: error: grpc is not installed; pip install 'flashsd_ray[client]'\n"


async def test_files_that_are_no_video_need_no_server(flashsd: Command, tmp_path: Path) -> None:
    (tmp_path / "picture.mp4").write_bytes(make_picture())
    (tmp_path / "half.mp4").write_bytes(make_video()[:900])
    for name, message in {
        "missing.mp4": "does not exist",
        "picture.mp4": "is a picture; a video is needed here",
        "half.mp4": "is truncated",
        "": "is a directory; a video file is needed here",
    }.items():
        outcome = await flashsd(path=tmp_path / name, server="localhost:1")
        assert outcome.code == 2
        assert message in outcome.err


@pytest.mark.parametrize("has_question", [False, True], ids=["between frames", "during the answer"])
async def test_an_interrupt_ends_the_session_politely(
    has_question: bool, address: str, servicer: Servicer, video: Path
) -> None:
    is_under_way, messages = asyncio.Event(), []

    async def script(line: Line) -> None:
        await line.opened()
        for index in range(NUM_FRAMES if has_question else 1):
            await line.read("frame")
            await line.say(frame_ack=pb.FrameAck(frame=index, frames_held=1))
        if has_question:
            ask = await line.read("ask")
            await line.say(answer_delta=pb.AnswerDelta(ask_id=ask.ask_id, delta=pb.Delta(text="a")))
        is_under_way.set()
        messages.extend([message.WhichOneof("message") async for message in line.requests])
        await line.close()

    servicer.lines.append(script)
    speed = "max" if has_question else "0.001"
    process = await asyncio.create_subprocess_exec(
        *(
            sys.executable,
            "-c",
            HEEDING_INTERRUPTS,
            "stream",
            str(video),
            "--server",
            address,
            "--speed",
            speed,
            "--fps",
            "all",
        ),
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stdout is not None
    await asyncio.wait_for(is_under_way.wait(), 60)
    if has_question:
        assert await asyncio.wait_for(process.stdout.readexactly(1), 60) == b"a"
    process.send_signal(signal.SIGINT)
    out, err = await asyncio.wait_for(process.communicate(), 60)
    assert (process.returncode, err.decode()) == (130, "")
    assert out.decode() == ("\n" if has_question else "")
    assert messages == (["cancel", "end"] if has_question else ["end"])
