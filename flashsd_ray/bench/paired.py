"""Two ways to do the same work, timed in turn, and how sure their ratio is."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times faster one way is, with the bootstrap interval over the pairs."""

    value: float  # ratio of totals
    low: float
    high: float
    num_pairs: int

    def __str__(self) -> str:
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "num_pairs": self.num_pairs}


def speed_ratio(
    baseline_s: Sequence[float],  # seconds of each pair's slow half
    product_s: Sequence[float],  # seconds of its fast half, in the same order
    seed: int = 0,
) -> Ratio:
    """Total baseline time over total product time; the interval resamples whole pairs.

    Raises:
        ValueError: there are no pairs.
    """
    if not baseline_s or len(baseline_s) != len(product_s):
        raise ValueError(f"pairs are needed, got {len(baseline_s)} and {len(product_s)} times")
    pairs = list(zip(baseline_s, product_s, strict=True))
    chosen = random.Random(seed)
    ratios = sorted(_ratio(chosen.choices(pairs, k=len(pairs))) for _ in range(RESAMPLES))
    tail = round((1 - CONFIDENCE) / 2 * RESAMPLES)
    return Ratio(_ratio(pairs), ratios[tail], ratios[-tail - 1], len(pairs))


def _ratio(pairs: Sequence[tuple[float, float]]) -> float:
    return sum(slow for slow, _ in pairs) / sum(fast for _, fast in pairs)
