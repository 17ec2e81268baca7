"""Answers in the shapes of OpenAI's two interfaces, whole and in pieces.

Beside OpenAI's fields stands ``flashsd``, at the top of a whole answer and of each piece that has a finish reason::

    {"request_id": str, "seed": int,
     "num_new_tokens": int, "tau": float, "rounds": int, "accepted_per_position": [int], "seconds": {stage: float},
     "num_draft_tokens": int, "num_accepted_tokens": int, "acceptance_rate": float}

A client that sets ``return_token_ids`` also finds ``token_ids`` in every choice, as in vLLM: those of the whole answer, or
those that a piece adds.

In a whole answer the counts are totals of all choices and the seed is that of choice 0; in a piece they are of its
choice alone.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from flashsd_ray.engine.answers import Caption, Chunk
from flashsd_ray.speculation.stats import SpeculationStats
from flashsd_ray.types import CaptionRequest, TokenLogprob

Json = dict[str, Any]

_LEAST_LOGPROB = -9999.0  # JSON has no infinity; OpenAI sends this for tokens that cannot be


@dataclass(frozen=True, slots=True, kw_only=True)
class Envelope:
    """What every piece of one answer says about it."""

    request_id: str
    created_s: int
    model: str
    fingerprint: str


class AnswerFormat(ABC):
    """Turns chunks and captions into one interface's JSON; made for one request."""

    id_prefix: str
    whole_object: str
    piece_object: str

    def __init__(
        self,
        envelope: Envelope,
        requests: Sequence[CaptionRequest],
        num_choices: int,  # of one prompt
        *,
        returns_token_ids: bool = False,
    ) -> None:
        self._envelope = envelope
        self._requests = requests
        self._num_choices = num_choices
        self._returns_token_ids = returns_token_ids

    @abstractmethod
    def choice(self, index: int, caption: Caption) -> Json:
        """One whole answer."""

    @abstractmethod
    def delta(self, index: int, chunk: Chunk) -> Json:
        """What a chunk adds to one answer."""

    @abstractmethod
    def boundary(self, index: int, finish_reason: str | None) -> Json:
        """The beginning (no finish reason) or the end of one answer, without text."""

    def whole(self, captions: Sequence[Caption]) -> Json:
        """The response to a request that does not stream."""
        totals = sum((caption.stats for caption in captions), SpeculationStats())
        return {
            **self._head(self.whole_object),
            "choices": [self._with_ids(self.choice(index, one), one.token_ids) for index, one in enumerate(captions)],
            "usage": self.usage(captions),
            "flashsd": self._statistics(0, totals),
        }

    def pieces(self, index: int, chunk: Chunk, *, is_first: bool) -> Iterable[Json]:
        """What a chunk adds to a stream."""
        if is_first:
            yield self._piece(self.boundary(index, None))
        if chunk.text or chunk.logprobs or (self._returns_token_ids and chunk.token_ids):
            yield self._piece(self._with_ids(self.delta(index, chunk), chunk.token_ids))
        if chunk.finish_reason is not None:
            end = self._piece(self.boundary(index, chunk.finish_reason.value))
            yield {**end, "flashsd": self._statistics(index, chunk.stats or SpeculationStats())}

    def last_piece(self, captions: Sequence[Caption]) -> Json:
        """The usage, for a stream that was asked for it."""
        return {**self._head(self.piece_object), "choices": [], "usage": self.usage(captions)}

    def usage(self, captions: Sequence[Caption]) -> Json:
        """The tokens that were read and written; a prompt with several answers is counted once."""
        prompts = captions[:: self._num_choices]
        num_prompt_tokens = sum(caption.num_prompt_tokens for caption in prompts)
        num_new_tokens = sum(len(caption.token_ids) for caption in captions)
        return {
            "prompt_tokens": num_prompt_tokens,
            "completion_tokens": num_new_tokens,
            "total_tokens": num_prompt_tokens + num_new_tokens,
            "prompt_tokens_details": {"cached_tokens": sum(caption.num_cached_tokens for caption in prompts)},
        }

    def _head(self, kind: str) -> Json:
        return {
            "id": f"{self.id_prefix}-{self._envelope.request_id}",
            "object": kind,
            "created": self._envelope.created_s,
            "model": self._envelope.model,
            "system_fingerprint": self._envelope.fingerprint,
        }

    def _with_ids(self, choice: Json, token_ids: Sequence[int]) -> Json:
        return {**choice, "token_ids": list(token_ids)} if self._returns_token_ids else choice

    def _piece(self, choice: Json) -> Json:
        return {**self._head(self.piece_object), "choices": [choice]}

    def _statistics(self, index: int, stats: SpeculationStats) -> Json:
        return {
            "request_id": self._envelope.request_id,
            "seed": self._requests[index].sampling.seed,
            **stats.as_dict(),
            "num_draft_tokens": stats.num_draft_tokens,
            "num_accepted_tokens": stats.num_accepted_tokens,
            "acceptance_rate": stats.acceptance_rate,
        }


class ChatFormat(AnswerFormat):
    """POST /v1/chat/completions."""

    id_prefix = "chatcmpl"
    whole_object = "chat.completion"
    piece_object = "chat.completion.chunk"

    def choice(self, index: int, caption: Caption) -> Json:
        """One whole answer."""
        message = {"role": "assistant", "content": caption.text, "refusal": None}
        reason = caption.finish_reason.value
        return {"index": index, "message": message, "logprobs": _content(caption.logprobs), "finish_reason": reason}

    def delta(self, index: int, chunk: Chunk) -> Json:
        """What a chunk adds to one answer."""
        delta = {"content": chunk.text}
        return {"index": index, "delta": delta, "logprobs": _content(chunk.logprobs), "finish_reason": None}

    def boundary(self, index: int, finish_reason: str | None) -> Json:
        """The beginning or the end of one answer."""
        delta = {} if finish_reason else {"role": "assistant", "content": ""}
        return {"index": index, "delta": delta, "logprobs": None, "finish_reason": finish_reason}


class CompletionFormat(AnswerFormat):
    """POST /v1/completions."""

    id_prefix = "cmpl"
    whole_object = "text_completion"
    piece_object = "text_completion"

    def __init__(
        self,
        envelope: Envelope,
        requests: Sequence[CaptionRequest],
        num_choices: int,
        *,
        returns_token_ids: bool = False,
    ) -> None:
        super().__init__(envelope, requests, num_choices, returns_token_ids=returns_token_ids)
        self._offsets: dict[int, int] = defaultdict(int)  # characters of the tokens so far, by answer

    def choice(self, index: int, caption: Caption) -> Json:
        """One whole answer."""
        return self._choice(index, caption.text, caption.logprobs, caption.finish_reason.value)

    def delta(self, index: int, chunk: Chunk) -> Json:
        """What a chunk adds to one answer."""
        return self._choice(index, chunk.text, chunk.logprobs, None)

    def boundary(self, index: int, finish_reason: str | None) -> Json:
        """The beginning or the end of one answer."""
        return self._choice(index, "", (), finish_reason)

    def _choice(self, index: int, text: str, tokens: Sequence[TokenLogprob], finish_reason: str | None) -> Json:
        logprobs = self._columns(index, tokens) if tokens else None
        return {"index": index, "text": text, "logprobs": logprobs, "finish_reason": finish_reason}

    def _columns(self, index: int, tokens: Sequence[TokenLogprob]) -> Json:
        offsets = []
        for token in tokens:
            offsets.append(self._offsets[index])
            self._offsets[index] += len(token.text)
        return {
            "tokens": [token.text for token in tokens],
            "token_logprobs": [_finite(token.logprob) for token in tokens],
            "top_logprobs": [{other.text: _finite(other.logprob) for other in token.top} for token in tokens],
            "text_offset": offsets,
        }


def _content(tokens: Sequence[TokenLogprob]) -> Json | None:
    if not tokens:
        return None
    content = [{**_entry(token), "top_logprobs": [_entry(other) for other in token.top]} for token in tokens]
    return {"content": content, "refusal": None}


def _entry(token: TokenLogprob) -> Mapping[str, Any]:
    # A token that is part of a character has no text of its own.
    content = None if "\ufffd" in token.text else list(token.text.encode())
    return {"token": token.text, "logprob": _finite(token.logprob), "bytes": content}


def _finite(logprob: float) -> float:
    return max(logprob, _LEAST_LOGPROB)
