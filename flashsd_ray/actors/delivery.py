"""What a caller has of an answer, so that a second decoding continues where the first one was lost."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from flashsd_ray.engine.answers import Chunk
from flashsd_ray.errors import FlashSDError


@dataclass(slots=True, eq=False)
class Delivered:
    """The part of an answer that its caller has."""

    token_ids: list[int] = field(default_factory=list)
    num_characters: int = 0
    skip_tokens: int = 0
    skip_characters: int = 0

    def restart(self) -> None:
        """The answer is decoded from its beginning again."""
        self.skip_tokens, self.skip_characters = len(self.token_ids), self.num_characters

    def take(self, chunk: Chunk) -> Chunk:
        """The part of the chunk that the caller does not have.

        Raises:
            FlashSDError: the second decoding differs from the first, so nothing may be put behind what was delivered.
        """
        again = chunk.token_ids[: self.skip_tokens]
        first = len(self.token_ids) - self.skip_tokens
        if chunk.error is None and tuple(self.token_ids[first : first + len(again)]) != again:
            raise FlashSDError("decoded again after a loss, the answer came out differently")
        tokens, text = chunk.token_ids[self.skip_tokens :], chunk.text[self.skip_characters :]
        logprobs = chunk.logprobs[self.skip_tokens :]
        self.skip_tokens = max(0, self.skip_tokens - len(chunk.token_ids))
        self.skip_characters = max(0, self.skip_characters - len(chunk.text))
        self.token_ids.extend(tokens)
        self.num_characters += len(text)
        accepted = min(chunk.num_accepted, len(tokens))
        return replace(chunk, token_ids=tokens, text=text, logprobs=logprobs, num_accepted=accepted)
