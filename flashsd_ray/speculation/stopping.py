"""Where a request's output ends: end-of-sequence ids, token budget, stop strings, all inside an accepted block too.

Knows no tokenizer: token ids become text through an injected function.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

from flashsd_ray.errors import InvalidRequestError
from flashsd_ray.types import FinishReason, SamplingParams

Detokenize = Callable[[Sequence[int]], str]

# What a decoder writes for bytes that are no character, or not yet one.
_REPLACEMENT = "\ufffd"
# A character has at most four bytes; after so many tokens the bytes are noise, and waiting would cost ever more.
_MAX_WAITING_TOKENS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Emission:
    """What one verdict adds to the output of its request."""

    token_ids: tuple[int, ...]  # committed, the stopping token included
    text: str  # safe to show; without stop strings and stopping tokens
    finish_reason: FinishReason | None  # None: the request goes on


class StopRules:
    """Ends the output of one request exactly where plain decoding, token by token, would end it."""

    def __init__(
        self,
        sampling: SamplingParams,
        eos_token_ids: Iterable[int] = (),  # the model's own
        detokenize: Detokenize | None = None,  # None: no text is made
    ) -> None:
        """Raises InvalidRequestError when there are stop strings and nothing to make text with."""
        if sampling.stop and detokenize is None:
            raise InvalidRequestError("stop strings need a tokenizer; this request has token ids only")
        self._stop_ids = frozenset(sampling.stop_token_ids) | frozenset(() if sampling.ignore_eos else eos_token_ids)
        self._stream = TextStream(detokenize, sampling.stop) if detokenize else None
        self.remaining = sampling.max_new_tokens  # tokens that may still be committed
        self.finish_reason: FinishReason | None = None

    def commit(self, token_ids: Sequence[int]) -> Emission:
        """The part of a verdict's tokens that belongs to the output; nothing does after the end."""
        kept: list[int] = []
        text = ""
        for token_id in token_ids:
            if self.finish_reason is not None:
                break
            kept.append(token_id)
            text += self._take(token_id)
        return Emission(token_ids=tuple(kept), text=text, finish_reason=self.finish_reason)

    def _take(self, token_id: int) -> str:
        self.remaining -= 1
        text = ""
        if token_id in self._stop_ids:
            self.finish_reason = FinishReason.STOP
        elif self._stream is not None:
            text = self._stream.push(token_id)
            if self._stream.is_stopped:
                self.finish_reason = FinishReason.STOP
        if self.finish_reason is None and self.remaining == 0:
            self.finish_reason = FinishReason.LENGTH
        if self.finish_reason is not None and self._stream is not None:
            text += self._stream.finish()
        return text


class TextStream:
    """Token ids in, text out, as early as the text is certain.

    Held back are the bytes of an unfinished character and whatever may turn out to begin a stop string. The pieces,
    joined, are the text of all tokens up to the stop string that completes first, which itself is left out.
    """

    def __init__(self, detokenize: Detokenize, stop: Sequence[str] = ()) -> None:
        self._detokenize = detokenize
        self._stop = tuple(stop)
        self._context: list[int] = []  # tokens whose text is known; decoders treat the first token of a text specially
        self._waiting: list[int] = []  # tokens after them that end inside a character or have no text yet
        self._num_shown = 0  # characters of the text of both that were passed on
        self._held = ""  # text that may begin a stop string
        self.is_stopped = False  # a stop string is complete

    def push(self, token_id: int) -> str:
        """Text that became certain with this token."""
        if self.is_stopped:
            return ""
        self._waiting.append(token_id)
        text = self._detokenize([*self._context, *self._waiting])
        is_noise = len(self._waiting) >= _MAX_WAITING_TOKENS
        certain = text if is_noise else text.rstrip(_REPLACEMENT)
        fresh = certain[self._num_shown :]
        self._num_shown += len(fresh)
        if is_noise or (fresh and certain == text):
            self._context, self._waiting = self._waiting, []
            self._num_shown = len(self._detokenize(self._context))
        return self._release(fresh)

    def finish(self) -> str:
        """Text that was held back and now stands, without a character that was never finished."""
        if self.is_stopped:
            return ""
        text = self._detokenize([*self._context, *self._waiting]).rstrip(_REPLACEMENT)
        fresh = self._release(text[self._num_shown :])
        self._context, self._waiting, self._num_shown = [], [], 0
        held, self._held = self._held, ""
        return fresh if self.is_stopped else fresh + held

    def _release(self, text: str) -> str:
        text = self._held + text
        ends = [(text.find(stop) + len(stop), len(stop)) for stop in self._stop if stop in text]
        if ends:
            end, length = min(ends, key=lambda item: (item[0], -item[1]))
            self.is_stopped, self._held = True, ""
            return text[: end - length]
        held_size = max((_overlap(text, stop) for stop in self._stop), default=0)
        self._held = text[len(text) - held_size :]
        return text[: len(text) - held_size]


def _overlap(text: str, stop: str) -> int:
    """Length of the longest end of the text that begins the stop string."""
    for size in range(min(len(text), len(stop) - 1), 0, -1):
        if text.endswith(stop[:size]):
            return size
    return 0
