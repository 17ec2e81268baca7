"""How sure a figure is: ratios of totals over many units, with bootstrap intervals that resample whole units.

A unit is whatever was measured together: a pair of timings, a clip, a batch.
"""

from __future__ import annotations

import random
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

RESAMPLES = 2000
CONFIDENCE = 0.95

Sums = Sequence[float]  # over units, of each of their figures


@dataclass(frozen=True, slots=True)
class Ratio:
    """How many times larger one total is, with the bootstrap interval over the units."""

    value: float  # ratio of totals
    low: float
    high: float
    num_pairs: int

    def __str__(self) -> str:
        return f"{self.value:.2f}x [{self.low:.2f}, {self.high:.2f}]"

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return {"value": self.value, "low": self.low, "high": self.high, "num_pairs": self.num_pairs}


def ratio_of_totals(
    above: Sequence[float],  # of each unit, such as seconds of the slow way, or tokens
    below: Sequence[float],  # such as seconds of the fast way in the same order, or rounds
    seed: int = 0,
) -> Ratio:
    """Sum over sum, with its interval over the units.

    Raises:
        ValueError: there are no units, or not as many above as below.
    """
    return _interval((above, below), lambda sums: sums[0] / sums[1], seed)


def rate_ratio(
    baseline: Sequence[tuple[float, float]],  # (amount, cost) of each unit, such as tokens and seconds, or rounds
    product: Sequence[tuple[float, float]],  # of the same units in the same order
    seed: int = 0,
) -> Ratio:
    """Total amount per total cost of the product over that of the baseline, with the interval over pairs of units.

    Raises:
        ValueError: there are no units, or the two have not as many.
    """
    columns = (*zip(*baseline, strict=True), *zip(*product, strict=True))
    return _interval(columns, lambda sums: (sums[2] / sums[3]) / (sums[0] / sums[1]), seed)


def median_ratio(baseline: Sequence[tuple[float, float]], product: Sequence[tuple[float, float]]) -> float:
    """The median over units of how many times faster the product was."""
    pairs = zip(baseline, product, strict=True)
    return statistics.median((mine[0] / mine[1]) / (theirs[0] / theirs[1]) for theirs, mine in pairs)


def _interval(columns: Sequence[Sequence[float]], statistic: Callable[[Sums], float], seed: int) -> Ratio:
    if not columns or not len(columns[0]) or len({len(column) for column in columns}) != 1:
        raise ValueError(f"units are needed, as many of each kind; got {[len(column) for column in columns]}")
    units = list(zip(*columns, strict=True))
    chosen = random.Random(seed)
    drawn = sorted(statistic(_sums(chosen.choices(units, k=len(units)))) for _ in range(RESAMPLES))
    tail = round((1 - CONFIDENCE) / 2 * RESAMPLES)
    return Ratio(statistic(_sums(units)), drawn[tail], drawn[-tail - 1], len(units))


def _sums(units: Sequence[Sequence[float]]) -> Sums:
    return [sum(column) for column in zip(*units, strict=True)]
