"""What a lane gives back: pieces of answers as they are committed, and whole answers."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from flashsd_ray.errors import FlashSDError
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import FinishReason, TokenLogprob


@dataclass(frozen=True, slots=True, kw_only=True)
class Chunk:
    """What one round added to one answer."""

    request_id: str
    text: str = ""  # safe to show: no half characters, nothing that may yet turn out to be a stop string
    token_ids: tuple[int, ...] = ()
    num_accepted: int = 0  # how many of the tokens were drafted; the others are the target's own
    num_drafted: int = 0
    finish_reason: FinishReason | None = None  # None: more follows
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0  # prompt positions that were in the KV cache already
    logprobs: tuple[TokenLogprob, ...] = ()  # of token_ids, where the request asked for them
    error: FlashSDError | None = None  # why the request ended without an answer
    stats: SpeculationStats | None = None  # totals of the request, on its last chunk


@dataclass(frozen=True, slots=True, kw_only=True)
class Caption:
    """A whole answer."""

    request_id: str
    text: str
    token_ids: tuple[int, ...]
    finish_reason: FinishReason
    num_prompt_tokens: int
    stats: SpeculationStats
    num_cached_tokens: int = 0
    logprobs: tuple[TokenLogprob, ...] = ()


def joined(chunks: Sequence[Chunk]) -> Caption:
    """The answer that the chunks of one request make.

    Raises:
        FlashSDError: the request ended with one.
    """
    last = chunks[-1]
    if last.error is not None:
        raise last.error
    return Caption(
        request_id=last.request_id,
        text="".join(chunk.text for chunk in chunks),
        token_ids=tuple(token_id for chunk in chunks for token_id in chunk.token_ids),
        finish_reason=last.finish_reason or FinishReason.ERROR,
        num_prompt_tokens=last.num_prompt_tokens,
        stats=last.stats or SpeculationStats(),
        num_cached_tokens=last.num_cached_tokens,
        logprobs=tuple(token for chunk in chunks for token in chunk.logprobs),
    )
