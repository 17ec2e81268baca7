"""What a client gets back for one question: a whole caption, or its pieces as they are decoded."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field

from flashsd_ray.types import FinishReason, TokenLogprob
from flashsd_ray.wire.v1 import captioning_pb2 as pb

FINISH_REASONS: dict[int, FinishReason] = {
    pb.FINISH_REASON_STOP: FinishReason.STOP,
    pb.FINISH_REASON_LENGTH: FinishReason.LENGTH,
    pb.FINISH_REASON_CANCELLED: FinishReason.CANCELLED,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Statistics:
    """What one answer cost, and what speculation gained."""

    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0  # of the prompt: were in the KV cache already
    num_new_tokens: int = 0
    rounds: int = 0  # verify passes of the target, prefill excluded
    tau: float = 0.0  # tokens committed per verify pass
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_per_position: tuple[int, ...] = ()  # [i]: rounds in which the first i + 1 drafts stood
    seconds: Mapping[str, float] = field(default_factory=dict)  # encode, prefill, draft, verify, decode

    @property
    def acceptance_rate(self) -> float:
        """Share of the drafts that were committed; 0 when nothing was drafted."""
        return self.num_accepted_tokens / self.num_draft_tokens if self.num_draft_tokens else 0.0

    def as_dict(self) -> dict[str, object]:
        """The numbers under the names that every report of this project uses."""
        return {
            "num_prompt_tokens": self.num_prompt_tokens,
            "num_cached_tokens": self.num_cached_tokens,
            "num_new_tokens": self.num_new_tokens,
            "tau": self.tau,
            "rounds": self.rounds,
            "num_draft_tokens": self.num_draft_tokens,
            "num_accepted_tokens": self.num_accepted_tokens,
            "accepted_per_position": list(self.accepted_per_position),
            "seconds": dict(self.seconds),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class Piece:
    """What was decoded since the piece before; the last one says how the answer ended."""

    request_id: str
    text: str = ""
    token_ids: tuple[int, ...] = ()
    num_accepted: int = 0  # how many of the tokens were drafted
    logprobs: tuple[TokenLogprob, ...] = ()
    finish_reason: FinishReason | None = None  # None: more follows
    statistics: Statistics | None = None  # on the last piece


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A whole answer."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    statistics: Statistics
    logprobs: tuple[TokenLogprob, ...] = ()


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """The model behind a server, and the limits that a client has to keep."""

    name: str
    family: str
    context_length: int
    max_new_tokens: int
    fingerprint: str
    drafter: str
    compressor: str
    dtype: str
    max_message_bytes: int  # largest request; 0: not told
    max_session_frames: int  # frames of a live video that an answer looks at


def caption_of(response: pb.CaptionResponse) -> Caption:
    """The whole answer that a response holds."""
    return Caption(
        request_id=response.request_id,
        text=response.text,
        token_ids=tuple(response.token_ids),
        finish_reason=finish_reason_of(response.finish_reason),
        statistics=statistics_of(response.statistics),
        logprobs=logprobs_of(response.logprobs),
    )


def piece_of(request_id: str, delta: pb.Delta) -> Piece:
    """The piece that a delta holds."""
    return Piece(
        request_id=request_id,
        text=delta.text,
        token_ids=tuple(delta.token_ids),
        num_accepted=delta.num_accepted,
        logprobs=logprobs_of(delta.logprobs),
    )


def last_piece_of(request_id: str, finished: pb.Finished) -> Piece:
    """The piece without text that ends an answer."""
    return Piece(
        request_id=request_id,
        finish_reason=finish_reason_of(finished.finish_reason),
        statistics=statistics_of(finished.statistics),
    )


def model_of(message: pb.Model) -> Model:
    """The model that a message describes."""
    return Model(
        name=message.name,
        family=message.family,
        context_length=message.context_length,
        max_new_tokens=message.max_new_tokens,
        fingerprint=message.fingerprint,
        drafter=message.drafter,
        compressor=message.compressor,
        dtype=message.dtype,
        max_message_bytes=message.max_message_bytes,
        max_session_frames=message.max_session_frames,
    )


def finish_reason_of(number: int) -> FinishReason:
    """Why an answer ended; ERROR for a reason that this client does not know."""
    return FINISH_REASONS.get(number, FinishReason.ERROR)


def statistics_of(message: pb.Statistics) -> Statistics:
    """The numbers that a message holds."""
    return Statistics(
        num_prompt_tokens=message.num_prompt_tokens,
        num_cached_tokens=message.num_cached_tokens,
        num_new_tokens=message.num_new_tokens,
        rounds=message.rounds,
        tau=message.tau,
        num_draft_tokens=message.num_draft_tokens,
        num_accepted_tokens=message.num_accepted_tokens,
        accepted_per_position=tuple(message.accepted_per_position),
        seconds=dict(message.seconds),
    )


def logprobs_of(messages: Iterable[pb.TokenLogprob]) -> tuple[TokenLogprob, ...]:
    """The log-probabilities that messages hold."""
    return tuple(
        TokenLogprob(token_id=one.token_id, logprob=one.logprob, top=logprobs_of(one.top), text=one.text)
        for one in messages
    )
