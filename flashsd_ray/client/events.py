"""What a live session tells its client."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from flashsd_ray.client.answers import Statistics, finish_reason_of, logprobs_of, statistics_of
from flashsd_ray.client.status import error_named
from flashsd_ray.errors import FlashSDError
from flashsd_ray.types import FinishReason, TokenLogprob
from flashsd_ray.wire.v1 import captioning_pb2 as pb

CLOSED_REASONS: dict[int, Literal["end", "idle"]] = {pb.Closed.REASON_END: "end", pb.Closed.REASON_IDLE: "idle"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Progress:
    """How far the frames of a session have come."""

    num_sent: int = 0  # handed over to the session
    num_acknowledged: int = 0  # taken over by the server
    num_refused: int = 0
    num_held: int = 0  # in the window that answers look at
    num_dropped: int = 0  # by the window policy
    tokens_cached: int = 0  # prompt positions that are prefilled


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerStarted:
    """An answer begins; when the connection was lost before its first text, it may begin again."""

    ask_id: str
    request_id: str
    start_s: float  # video time that the answer looks at
    end_s: float
    num_frames: int


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerDelta:
    """The next piece of an answer."""

    ask_id: str
    text: str
    token_ids: tuple[int, ...] = ()
    num_accepted: int = 0  # how many of the tokens were drafted
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class AnswerFinished:
    """An answer is complete."""

    ask_id: str
    text: str  # the whole of it
    finish_reason: FinishReason
    statistics: Statistics
    seconds_to_first_text: float  # from the question to the first piece of text
    is_unchanged: bool = False  # the text is that of the caption before, and no piece of it was sent


@dataclass(frozen=True, slots=True, kw_only=True)
class Refused:
    """A frame, a prompt or a caption that the server makes by itself was refused; the session goes on."""

    reason: str
    code: str  # name of a gRPC status
    ask_id: str = ""  # when it was a question
    frame: int | None = None  # when it was a frame: its index

    @property
    def error(self) -> FlashSDError:
        """The error that a single call would have raised."""
        return error_named(self.code, self.reason)


@dataclass(frozen=True, slots=True, kw_only=True)
class Resumed:
    """The connection was lost and is there again; answers go on where they were."""

    next_frame: int  # index of the frame that the server expects next
    num_lost: int = 0  # frames that the server had taken over and holds no more


@dataclass(frozen=True, slots=True, kw_only=True)
class Closed:
    """The session is over, and nothing follows."""

    reason: Literal["end", "idle"]
    frames_seen: int
    answers: int


AnswerEvent = AnswerStarted | AnswerDelta | AnswerFinished
SessionEvent = AnswerStarted | AnswerDelta | AnswerFinished | Refused | Resumed | Closed


def started_of(message: pb.AnswerStarted) -> AnswerStarted:
    """The event that a message holds."""
    return AnswerStarted(
        ask_id=message.ask_id,
        request_id=message.request_id,
        start_s=message.start_s,
        end_s=message.end_s,
        num_frames=message.num_frames,
    )


def delta_of(message: pb.AnswerDelta) -> AnswerDelta:
    """The event that a message holds."""
    delta = message.delta
    return AnswerDelta(
        ask_id=message.ask_id,
        text=delta.text,
        token_ids=tuple(delta.token_ids),
        num_accepted=delta.num_accepted,
        logprobs=logprobs_of(delta.logprobs),
    )


def finished_of(message: pb.AnswerFinished) -> AnswerFinished:
    """The event that a message holds."""
    return AnswerFinished(
        ask_id=message.ask_id,
        text=message.text,
        finish_reason=finish_reason_of(message.finish_reason),
        statistics=statistics_of(message.statistics),
        seconds_to_first_text=message.seconds_to_first_text,
        is_unchanged=message.is_unchanged,
    )


def refused_of(message: pb.Refused) -> Refused:
    """The event that a message holds."""
    return Refused(
        reason=message.reason, code=message.code, ask_id=message.ask_id, frame=None if message.ask_id else message.frame
    )


def closed_of(message: pb.Closed) -> Closed:
    """The event that a message holds."""
    return Closed(
        reason=CLOSED_REASONS.get(message.reason, "end"), frames_seen=message.frames_seen, answers=message.answers
    )
