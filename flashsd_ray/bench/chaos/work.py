"""What is asked while parts are hurt, and what every answer must be."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Literal, TypeAlias

import numpy as np

from flashsd_ray.bench.chaos.oracle import Said
from flashsd_ray.bench.chaos.parts import ENCODER_POISON, LANE_POISON
from flashsd_ray.bench.chaos.schedule import Fault
from flashsd_ray.bench.serving.asks import Ask
from flashsd_ray.bench.serving.clips import ClipFile, held_out_clips, mixed_asks
from flashsd_ray.bench.serving.expected import request_of
from flashsd_ray.bench.serving.progress import counted
from flashsd_ray.config import Config
from flashsd_ray.engine.answers import Caption
from flashsd_ray.engine.local import Engine
from flashsd_ray.media import load_visual_bytes
from flashsd_ray.types import CaptionRequest, SamplingParams, Turn, VisualInput

Way: TypeAlias = Literal["http", "grpc", "live"]
WAYS: tuple[Way, ...] = ("http", "grpc", "live", "grpc", "http")
FRAMES_PER_SECOND = 2.0  # of live video
LIVE_TOKENS = 24
MAX_CLIPS = 24  # asked again and again, with other seeds
QUESTIONS = ("What happens?", "Describe the video in detail.")  # of a live session; each after half of the frames


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """One request of the load; a live session counts as one."""

    name: str
    way: Way
    ask: Ask
    fault: Fault | None = None  # it is a poison

    @property
    def is_poison(self) -> bool:
        """Whether it kills what takes it."""
        return self.fault is not None


def works(num_requests: int, faults: Sequence[Fault]) -> list[Work]:
    """The load, poisons among it where the schedule has them."""
    clips = held_out_clips(min(MAX_CLIPS, num_requests))
    asks = mixed_asks(clips)
    found = []
    for number in range(num_requests):
        ask = asks[number % len(asks)]
        sampling = replace(ask.sampling, seed=ask.sampling.seed + number, logprobs=None)
        name = f"request {number}"
        found.append(
            Work(
                name=name, way=WAYS[number % len(WAYS)], ask=replace(ask, name=name, sampling=sampling, timeout_s=None)
            )
        )
    for index, fault in enumerate(fault for fault in faults if fault.action == "poison"):
        poison = _poison(clips[index % len(clips)], index, fault)
        found.insert(min(fault.after + index, len(found)), poison)
    return found


def _poison(clip: ClipFile, index: int, fault: Fault) -> Work:
    is_lane = fault.target == "lane"
    ask = Ask(
        name=f"poison {index}",
        prompt=f"What is shown in clip {index}?{'' if is_lane else ENCODER_POISON}",
        picture=clip.content,
        sampling=SamplingParams(max_new_tokens=32, stop=(LANE_POISON,) if is_lane else ()),
    )
    return Work(name=ask.name, way="http" if index % 2 else "grpc", ask=ask, fault=fault)


def expected(config: Config, load: Sequence[Work]) -> Mapping[str, tuple[Said, ...]]:
    """By its name, what each request must come to: decoded alone and without drafts by an engine of this process.

    Raises:
        CheckpointError: the model cannot be loaded.
    """
    engine = Engine.local(config)
    answers = {}
    for work in counted("undisturbed answers", load):
        requests = live_requests(work.ask, config) if work.way == "live" else [request_of(work.ask, config)]
        answers[work.name] = tuple(said(engine.caption(request)) for request in requests)
    return answers


def said(caption: Caption) -> Said:
    """The whole answer."""
    return Said(text=caption.text, token_ids=caption.token_ids, finish_reason=caption.finish_reason.value)


def live_frames(ask: Ask, config: Config) -> np.ndarray:  # [F, H, W, 3] uint8
    """The frames that the session is sent."""
    return load_visual_bytes(ask.picture, ask.name, config.media).frames


def live_sampling(ask: Ask) -> SamplingParams:
    """How the questions of the session are answered."""
    return replace(ask.sampling, max_new_tokens=LIVE_TOKENS, stop=())


def halves(num_frames: int) -> tuple[int, int]:
    """After how many frames each question is asked."""
    return max(1, num_frames // 2), num_frames


def live_requests(ask: Ask, config: Config) -> list[CaptionRequest]:
    """The questions of the session, as if each had been asked about the frames before it at once."""
    frames = live_frames(ask, config)
    found = []
    for stop, question in zip(halves(len(frames)), QUESTIONS, strict=True):
        times_s = np.arange(stop) / FRAMES_PER_SECOND
        visual = VisualInput(kind="video", frames=frames[:stop], timestamps_s=times_s, duration_s=float(times_s[-1]))
        turns = (Turn(role="user", parts=(visual, question)),)
        name = f"{ask.name}, {stop} frames"
        found.append(CaptionRequest(request_id=name, turns=turns, sampling=live_sampling(ask), draft_length=0))
    return found
