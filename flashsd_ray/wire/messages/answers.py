"""What a client is told: pieces of an answer, and the whole of it."""

from __future__ import annotations

from collections.abc import Iterable

from flashsd_ray.engine.answers import Caption, Chunk
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import FinishReason, TokenLogprob
from flashsd_ray.wire.v1 import captioning_pb2 as pb

# An answer that ended in an error is a status, not a message.
_FINISH_REASONS = {
    FinishReason.STOP: pb.FINISH_REASON_STOP,
    FinishReason.LENGTH: pb.FINISH_REASON_LENGTH,
    FinishReason.CANCELLED: pb.FINISH_REASON_CANCELLED,
}


def finish_reason_message(reason: FinishReason) -> pb.FinishReason:
    """The same reason; KeyError where it is an error."""
    return _FINISH_REASONS[reason]


def response_message(caption: Caption) -> pb.CaptionResponse:
    """The whole answer."""
    return pb.CaptionResponse(
        request_id=caption.request_id,
        text=caption.text,
        token_ids=caption.token_ids,
        finish_reason=finish_reason_message(caption.finish_reason),
        statistics=statistics_message(caption.stats, caption.num_prompt_tokens, caption.num_cached_tokens),
        logprobs=_logprob_messages(caption.logprobs),
    )


def event_messages(chunk: Chunk) -> list[pb.CaptionEvent]:
    """What the chunk adds to a stream: a delta where it adds to the answer, then ``finished`` where it is the last."""
    events = []
    if chunk.text or chunk.token_ids:
        events.append(pb.CaptionEvent(delta=delta_message(chunk)))
    if chunk.finish_reason is not None:
        stats = statistics_message(chunk.stats or SpeculationStats(), chunk.num_prompt_tokens, chunk.num_cached_tokens)
        finished = pb.Finished(finish_reason=finish_reason_message(chunk.finish_reason), statistics=stats)
        events.append(pb.CaptionEvent(finished=finished))
    return events


def delta_message(chunk: Chunk) -> pb.Delta:
    """What one round added."""
    return pb.Delta(
        text=chunk.text,
        token_ids=chunk.token_ids,
        num_accepted=chunk.num_accepted,
        logprobs=_logprob_messages(chunk.logprobs),
    )


def statistics_message(stats: SpeculationStats, num_prompt_tokens: int, num_cached_tokens: int) -> pb.Statistics:
    """The totals of one request."""
    return pb.Statistics(
        num_prompt_tokens=num_prompt_tokens,
        num_cached_tokens=num_cached_tokens,
        num_new_tokens=stats.num_new_tokens,
        rounds=stats.rounds,
        tau=stats.tau,
        num_draft_tokens=stats.num_draft_tokens,
        num_accepted_tokens=stats.num_accepted_tokens,
        accepted_per_position=stats.accepted_per_position,
        seconds=stats.seconds,
    )


def _logprob_messages(logprobs: Iterable[TokenLogprob]) -> list[pb.TokenLogprob]:
    return [
        pb.TokenLogprob(
            token_id=token.token_id, text=token.text, logprob=token.logprob, top=_logprob_messages(token.top)
        )
        for token in logprobs
    ]
