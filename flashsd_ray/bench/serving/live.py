"""Live video: how soon after a question the first text comes, against the same frames sent whole; and an hour of it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import aclosing
from dataclasses import dataclass
from time import perf_counter

import numpy as np

from flashsd_ray.bench.intervals import Ratio, ratio_of_totals
from flashsd_ray.bench.serving.memory import Reading, Watch
from flashsd_ray.client import AnswerDelta, AnswerFinished, AsyncClient, AsyncSession, Retries, Video
from flashsd_ray.errors import UnavailableError
from flashsd_ray.training.town.render import clip
from flashsd_ray.types import SamplingParams

FIRST_SEED = 940_000  # away from the clips of other measurements
FRAME_PIXELS = 192
FRAMES_PER_SECOND = 2.0  # of the video time that frames are sent with
POLL_S = 0.002


@dataclass(frozen=True, slots=True, kw_only=True)
class Latency:
    """Seconds to the first text, live and whole."""

    ratio: Ratio  # how many times sooner live is
    live_s: Sequence[float]
    whole_s: Sequence[float]  # of the same clips, in the same order
    num_frames: int

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "num_frames": self.num_frames,
            "sooner": self.ratio.as_dict(),
            "live_s": list(self.live_s),
            "whole_s": list(self.whole_s),
        }


async def compare(
    address: str,
    *,
    num_clips: int,
    num_frames: int,
    prompt: str,
    max_new_tokens: int,
    on_pair: Callable[[], None] = lambda: None,
) -> Latency:
    """Each clip is sent live and whole, each way going first in turn, after one clip that warms up.

    Raises:
        FlashSDError: the server cannot be reached, or a request was refused.
    """
    sampling = SamplingParams(max_new_tokens=max_new_tokens)
    live_s, whole_s = list[float](), list[float]()
    async with AsyncClient(address, retries=Retries(attempts=1)) as client:
        for number in range(num_clips + 1):
            frames = clip(FIRST_SEED + number, "heldout", frame_count=num_frames, size_px=FRAME_PIXELS).frames
            measured: dict[str, float] = {}
            for way in ("live", "whole") if number % 2 else ("whole", "live"):
                ask = ask_live if way == "live" else ask_whole
                # Caches know frames by their content, and each way has to do its own work.
                measured[way] = await ask(client, marked(frames, way == "live"), prompt, sampling)
            if number:
                live_s.append(measured["live"])
                whole_s.append(measured["whole"])
            on_pair()
    return Latency(ratio=ratio_of_totals(whole_s, live_s), live_s=live_s, whole_s=whole_s, num_frames=num_frames)


async def ask_live(
    client: AsyncClient,
    frames: np.ndarray,  # [F, H, W, 3] uint8
    prompt: str,
    sampling: SamplingParams,
) -> float:
    """Seconds from sending the last frame and the question to the first text, where the server had kept up before."""
    async with client.watch(sampling=sampling) as session:
        for index, frame in enumerate(frames[:-1]):
            await session.send(frame, index / FRAMES_PER_SECOND)
        await _acknowledged(session, len(frames) - 1)
        start_s, first_s = perf_counter(), 0.0
        await session.send(frames[-1], (len(frames) - 1) / FRAMES_PER_SECOND)
        async with aclosing(session.ask(prompt)) as events:
            async for event in events:
                if isinstance(event, AnswerDelta) and event.text and not first_s:
                    first_s = perf_counter()
    return _since(start_s, first_s)


async def ask_whole(
    client: AsyncClient,
    frames: np.ndarray,  # [F, H, W, 3] uint8
    prompt: str,
    sampling: SamplingParams,
) -> float:
    """Seconds from sending all frames and the question to the first text."""
    video = Video(frames, timestamps_s=[index / FRAMES_PER_SECOND for index in range(len(frames))])
    start_s, first_s = perf_counter(), 0.0
    async with aclosing(client.stream(video, prompt, sampling=sampling)) as pieces:
        async for piece in pieces:
            if piece.text and not first_s:
                first_s = perf_counter()
    return _since(start_s, first_s)


def marked(
    frames: np.ndarray,  # [F, H, W, 3] uint8
    mark: bool,
) -> np.ndarray:
    """The same frames but for the last bit of one pixel in each, which says the mark."""
    changed = frames.copy()
    changed[:, 0, 0, 0] = (changed[:, 0, 0, 0] & 0xFE) | mark
    return changed


def _since(start_s: float, first_s: float) -> float:
    if not first_s:
        raise UnavailableError("an answer had no text")
    return first_s - start_s


async def _acknowledged(session: AsyncSession, num_frames: int) -> None:
    while session.progress.num_acknowledged < num_frames:
        if session.progress.num_refused:
            raise UnavailableError("the server refused a frame")
        await asyncio.sleep(POLL_S)


@dataclass(frozen=True, slots=True, kw_only=True)
class Hour:
    """A long session: what it answered and what memory the server took meanwhile."""

    num_frames: int
    num_captions: int
    num_refused: int
    readings: Sequence[Reading]  # at seconds of video time
    seconds: float  # that it took

    def as_dict(self) -> dict[str, object]:
        """For JSON; the readings stand elsewhere."""
        return {
            "num_frames": self.num_frames,
            "num_captions": self.num_captions,
            "num_refused": self.num_refused,
            "seconds": self.seconds,
        }


async def play_hour(
    address: str,
    watch: Watch,
    *,
    num_frames: int,  # one for each second of video
    period_s: float,  # between two captions, in video time
    prompt: str,
    max_new_tokens: int,
    on_frame: Callable[[], None] = lambda: None,
) -> Hour:
    """Frames are sent as fast as the server takes them, with the times of one a second; memory is read every period.

    Raises:
        FlashSDError: the server cannot be reached, or the session was lost.
    """
    start_s = perf_counter()
    sampling = SamplingParams(max_new_tokens=max_new_tokens)
    async with (
        AsyncClient(address) as client,
        client.watch(prompt=prompt, mode="periodic", period_s=period_s, sampling=sampling) as session,
    ):
        counting = asyncio.create_task(_num_captions(session))
        for second, frame in enumerate(_frames(num_frames, round(period_s))):
            await session.send(frame, float(second))
            on_frame()
            if second % round(period_s) == 0:
                await _acknowledged(session, second + 1)
                watch.read(float(second))
        await session.end()
        num_captions = await counting
        watch.read(float(num_frames))
        return Hour(
            num_frames=num_frames,
            num_captions=num_captions,
            num_refused=session.progress.num_refused,
            readings=watch.readings,
            seconds=perf_counter() - start_s,
        )


async def _num_captions(session: AsyncSession) -> int:
    num_captions = 0
    async for event in session.events():
        num_captions += isinstance(event, AnswerFinished)
    return num_captions


def _frames(count: int, frames_per_scene: int) -> Iterator[np.ndarray]:  # each [H, W, 3] uint8
    for start in range(0, count, frames_per_scene):
        length = min(frames_per_scene, count - start)
        shown = clip(FIRST_SEED + 10_000 + start, "heldout", frame_count=length, size_px=FRAME_PIXELS)
        yield from shown.frames
