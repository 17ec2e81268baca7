"""Questions as callers put them, turned into what goes over the wire."""

from __future__ import annotations

import math
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Literal, TypeAlias

from flashsd_ray.client.pictures import Image, Pictures, Source, Video, Visual, is_array
from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.types import SamplingParams
from flashsd_ray.wire.v1 import captioning_pb2 as pb

Mode: TypeAlias = Literal["on_demand", "periodic", "changes"]
Visuals: TypeAlias = "Visual | Sequence[Visual]"

MODES = {
    "on_demand": pb.Open.MODE_ON_DEMAND,
    "periodic": pb.Open.MODE_PERIODIC,
    "changes": pb.Open.MODE_CHANGES,
}
ROLES = {"user": pb.Turn.ROLE_USER, "assistant": pb.Turn.ROLE_ASSISTANT, "system": pb.Turn.ROLE_SYSTEM}


@dataclass(frozen=True, slots=True, eq=False)
class Turn:
    """What one side of a conversation said; here a string is text, and a file is a Path, an Image or a Video."""

    role: Literal["system", "user", "assistant"]
    parts: Visuals


@contextmanager
def _sendable() -> Iterator[None]:
    """Raises InvalidRequestError where a value does not fit into its field."""
    try:
        yield
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequestError(f"the request cannot be sent: {error}") from error


@_sendable()
def request_of(
    visuals: Visuals,
    prompt: str,
    pictures: Pictures,
    *,
    history: Sequence[Turn] = (),
    sampling: SamplingParams | None = None,
    draft_length: int | None = None,
    model: str = "",
) -> pb.CaptionRequest:
    """The question about the pictures, after what was said before.

    Raises:
        InvalidRequestError: something in it cannot be sent.
    """
    parts = [*(pictures.part(visual) for visual in _several(visuals)), pb.Part(text=prompt)]
    earlier = [_turn(turn, pictures) for turn in history]
    return pb.CaptionRequest(
        model=model,
        turns=[*earlier, pb.Turn(role=pb.Turn.ROLE_USER, parts=parts)],
        sampling=None if sampling is None else sampling_of(sampling),
        draft_length=draft_length,
    )


@_sendable()
def opening_of(
    *,
    mode: Mode,
    period_s: float,
    sampling: SamplingParams | None,
    draft_length: int | None,
    keep_first: int,
    max_frames: int,
    prompt: str,
    model: str,
    session_id: str,
    resume_token: str,
) -> pb.Open:
    """The first message of a live session.

    Raises:
        InvalidRequestError: a parameter is out of range.
    """
    if mode not in MODES:
        raise InvalidRequestError(f"mode must be one of {', '.join(MODES)}, got {mode!r}")
    if not (math.isfinite(period_s) and period_s >= 0):
        raise InvalidRequestError(f"period_s must be 0 or more, got {period_s}")
    if bool(session_id) != bool(resume_token):
        raise InvalidRequestError("session_id and resume_token go together")
    return pb.Open(
        model=model,
        session_id=session_id,
        resume_token=resume_token,
        mode=MODES[mode],
        period_s=period_s,
        prompt=prompt,
        sampling=None if sampling is None else sampling_of(sampling),
        keep_first=keep_first,
        max_frames=max_frames,
        draft_length=draft_length,
    )


@_sendable()
def frame_of(frame: Source, timestamp_s: float | None, pictures: Pictures) -> pb.Frame:
    """One frame of a live video.

    Raises:
        InvalidRequestError: it is no picture.
    """
    return pb.Frame(image=pictures.image(frame), timestamp_s=timestamp_s)


@_sendable()
def ask_of(ask_id: str, prompt: str, sampling: SamplingParams | None, *, keep_history: bool) -> pb.Ask:
    """One question about a live video.

    Raises:
        InvalidRequestError: a sampling parameter has no place on the wire.
    """
    return pb.Ask(
        prompt=prompt,
        ask_id=ask_id,
        sampling=None if sampling is None else sampling_of(sampling),
        keep_history=keep_history,
    )


@_sendable()
def sampling_of(sampling: SamplingParams) -> pb.Sampling:
    """How tokens are chosen.

    Raises:
        InvalidRequestError: a parameter has no place on the wire.
    """
    if sampling.stop_token_ids:
        raise InvalidRequestError("stop_token_ids cannot be sent to a server; use stop")
    return pb.Sampling(
        temperature=sampling.temperature,
        top_p=sampling.top_p,
        top_k=sampling.top_k,
        max_new_tokens=sampling.max_new_tokens,
        seed=sampling.seed,
        stop=sampling.stop,
        ignore_eos=sampling.ignore_eos,
        logprobs=sampling.logprobs,
    )


def _turn(turn: Turn, pictures: Pictures) -> pb.Turn:
    if turn.role not in ROLES:
        raise InvalidRequestError(f"a role is one of {', '.join(ROLES)}; got {turn.role!r}")
    parts = [pb.Part(text=part) if isinstance(part, str) else pictures.part(part) for part in _several(turn.parts)]
    return pb.Turn(role=ROLES[turn.role], parts=parts)


def _several(visuals: Visuals) -> Sequence[Visual]:
    if isinstance(visuals, (str, os.PathLike, bytes, bytearray, memoryview, Image, Video)):
        return [visuals]
    return [visuals] if is_array(visuals) else [*visuals]
