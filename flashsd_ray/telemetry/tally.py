"""What one request has had so far: the figures that its metrics, its log line and its span tell."""

from __future__ import annotations

from dataclasses import dataclass

from flashsd_ray.engine.answers import Chunk
from flashsd_ray.speculation.stats import SpeculationStats


@dataclass(slots=True)
class Tally:
    """Counts and times of a request at an edge; times by the clock of whoever keeps it."""

    began_s: float
    outcome: str = ""  # a finish reason or the class of an error; empty while it is open
    ended_s: float | None = None
    first_tokens_s: float | None = None  # when the first of them arrived
    last_tokens_s: float | None = None
    num_first_tokens: int = 0  # that arrived together with the very first
    num_new_tokens: int = 0
    num_prompt_tokens: int = 0
    num_cached_tokens: int = 0
    stats: SpeculationStats | None = None  # None unless the answer is complete

    def take(self, chunk: Chunk, now_s: float) -> None:
        """The chunk is counted; with the last one the request has ended."""
        if chunk.token_ids:
            self.last_tokens_s = now_s
            if self.first_tokens_s is None:
                self.first_tokens_s, self.num_first_tokens = now_s, len(chunk.token_ids)
        self.num_new_tokens += len(chunk.token_ids)
        self.num_prompt_tokens = max(self.num_prompt_tokens, chunk.num_prompt_tokens)
        self.num_cached_tokens = max(self.num_cached_tokens, chunk.num_cached_tokens)
        self.stats = chunk.stats or self.stats
        if chunk.finish_reason is not None:
            self.end(chunk.finish_reason.value, now_s)

    def end(self, outcome: str, now_s: float) -> None:
        """The request has ended; how it ended first is what counts."""
        if not self.outcome:
            self.outcome, self.ended_s = outcome, now_s

    @property
    def seconds(self) -> float:
        """From the call to the end."""
        return (self.began_s if self.ended_s is None else self.ended_s) - self.began_s

    @property
    def time_to_first_token_s(self) -> float | None:
        """None without a token."""
        return None if self.first_tokens_s is None else self.first_tokens_s - self.began_s

    @property
    def time_per_output_token_s(self) -> float | None:
        """Mean over the tokens that came after the first arrival; None without any."""
        later = self.num_new_tokens - self.num_first_tokens
        if later <= 0 or self.first_tokens_s is None or self.last_tokens_s is None:
            return None
        return (self.last_tokens_s - self.first_tokens_s) / later
