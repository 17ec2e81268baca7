"""What one load came to."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from flashsd_ray.bench.serving.asks import Outcome
from flashsd_ray.bench.serving.percentiles import Percentiles


@dataclass(frozen=True, slots=True, kw_only=True)
class Summary:
    """Totals over all requests of a load, and percentiles over those that were answered."""

    num_requests: int
    num_answered: int
    codes: Mapping[str, int]  # how many requests ended so
    num_tokens: int  # of the answers
    seconds: float  # from the first request to the last end
    first_s: Percentiles | None  # time to first text
    per_token_s: Percentiles | None  # of each answer: seconds per token after the first
    gap_s: Percentiles | None  # between the pieces of text of an answer
    whole_s: Percentiles | None

    @classmethod
    def of(cls, outcomes: Sequence[Outcome]) -> Summary:
        """The summary of these requests.

        Raises:
            ValueError: there are none.
        """
        if not outcomes:
            raise ValueError("there is nothing to sum up")
        answered = [outcome for outcome in outcomes if outcome.is_answered]
        return cls(
            num_requests=len(outcomes),
            num_answered=len(answered),
            codes=dict(Counter(outcome.code for outcome in outcomes)),
            num_tokens=sum(outcome.num_tokens for outcome in answered),
            seconds=max(outcome.end_s for outcome in outcomes) - min(outcome.start_s for outcome in outcomes),
            first_s=Percentiles.of(outcome.first_s for outcome in answered),
            per_token_s=Percentiles.of(outcome.per_token_s for outcome in answered),
            gap_s=Percentiles.of(gap for outcome in answered for gap in outcome.gaps_s),
            whole_s=Percentiles.of(outcome.whole_s for outcome in answered),
        )

    @property
    def tokens_per_s(self) -> float:
        """Tokens of all answers over the time of the load."""
        return self.num_tokens / self.seconds

    @property
    def requests_per_s(self) -> float:
        """Answers over the time of the load."""
        return self.num_answered / self.seconds

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        percentiles = {
            "first_s": self.first_s,
            "per_token_s": self.per_token_s,
            "gap_s": self.gap_s,
            "whole_s": self.whole_s,
        }
        return {
            "num_requests": self.num_requests,
            "num_answered": self.num_answered,
            "codes": dict(self.codes),
            "num_tokens": self.num_tokens,
            "seconds": self.seconds,
            "tokens_per_s": self.tokens_per_s,
            "requests_per_s": self.requests_per_s,
            **{name: None if value is None else value.as_dict() for name, value in percentiles.items()},
        }
