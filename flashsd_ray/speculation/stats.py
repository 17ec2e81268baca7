"""What speculation gained: counts that add up over rounds and requests; no rate is ever averaged from rates."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from itertools import zip_longest

# encode: visual features; prefill: up to the first token; draft and verify: inside the rounds;
# decode: from the first token to the last, so draft, verify and everything between them.
STAGES = ("encode", "prefill", "draft", "verify", "decode")


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundStats:
    """One verify pass of one request after its prefill."""

    num_draft_tokens: int
    num_accepted_tokens: int
    num_new_tokens: int  # committed, after stop rules

    @property
    def num_standing_tokens(self) -> int:
        """Accepted drafts that were not cut off by a stop rule."""
        return min(self.num_accepted_tokens, self.num_new_tokens)


@dataclass(frozen=True, slots=True, kw_only=True)
class SpeculationStats:
    """Totals of any number of requests; sums of these are again totals."""

    num_new_tokens: int = 0  # prefill tokens included
    num_prefills: int = 0
    rounds: int = 0  # verify passes, prefill excluded
    num_draft_tokens: int = 0
    num_accepted_tokens: int = 0
    accepted_per_position: tuple[int, ...] = ()  # [i]: rounds in which the first i + 1 drafts stood
    seconds: Mapping[str, float] = field(default_factory=lambda: dict.fromkeys(STAGES, 0.0))

    @classmethod
    def of_prefill(cls) -> SpeculationStats:
        """The totals of a request that has its first token."""
        return cls(num_new_tokens=1, num_prefills=1)

    @classmethod
    def of_round(cls, round_stats: RoundStats) -> SpeculationStats:
        """The totals of one round."""
        standing = round_stats.num_standing_tokens
        return cls(
            num_new_tokens=round_stats.num_new_tokens,
            rounds=1,
            num_draft_tokens=round_stats.num_draft_tokens,
            num_accepted_tokens=standing,
            accepted_per_position=(1,) * standing + (0,) * (round_stats.num_draft_tokens - standing),
        )

    @classmethod
    def of_stage(cls, stage: str, seconds: float) -> SpeculationStats:
        """Time spent in one stage and nothing else.

        Raises:
            KeyError: there is no such stage.
        """
        times = dict.fromkeys(STAGES, 0.0)
        times[stage] += seconds
        return cls(seconds=times)

    def __add__(self, other: SpeculationStats) -> SpeculationStats:
        pairs = zip_longest(self.accepted_per_position, other.accepted_per_position, fillvalue=0)
        return SpeculationStats(
            num_new_tokens=self.num_new_tokens + other.num_new_tokens,
            num_prefills=self.num_prefills + other.num_prefills,
            rounds=self.rounds + other.rounds,
            num_draft_tokens=self.num_draft_tokens + other.num_draft_tokens,
            num_accepted_tokens=self.num_accepted_tokens + other.num_accepted_tokens,
            accepted_per_position=tuple(mine + theirs for mine, theirs in pairs),
            seconds={stage: self.seconds[stage] + other.seconds[stage] for stage in STAGES},
        )

    @property
    def tau(self) -> float:
        """Tokens committed per verify pass, bonus included and prefill token excluded; 0 before the first pass."""
        return (self.num_new_tokens - self.num_prefills) / self.rounds if self.rounds else 0.0

    @property
    def acceptance_rate(self) -> float:
        """Share of the drafts that were committed; 0 when nothing was drafted."""
        return self.num_accepted_tokens / self.num_draft_tokens if self.num_draft_tokens else 0.0

    def as_dict(self) -> dict[str, object]:
        """The totals under the names that every report of this project uses."""
        return {
            "num_new_tokens": self.num_new_tokens,
            "tau": self.tau,
            "rounds": self.rounds,
            "accepted_per_position": list(self.accepted_per_position),
            "seconds": dict(self.seconds),
        }
