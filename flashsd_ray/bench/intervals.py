"""How sure a figure is: ratios of totals over many units, with bootstrap intervals that resample whole units."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from flashsd_ray.bench.paired import CONFIDENCE, RESAMPLES, Ratio


def ratio_of_totals(above: Sequence[float], below: Sequence[float], seed: int = 0) -> Ratio:
    """Sum over sum, such as tokens over rounds, with its interval over the units (clips, batches).

    Raises:
        ValueError: there are no units, or not as many above as below.
    """
    return _interval(_columns(above, below), lambda sums: sums[..., 0] / sums[..., 1], seed)


def rate_ratio(
    baseline: Sequence[tuple[float, float]],  # (tokens, seconds) of each unit
    product: Sequence[tuple[float, float]],  # of the same units in the same order
    seed: int = 0,
) -> Ratio:
    """Tokens per second of the product over those of the baseline, with the interval over pairs of units.

    Raises:
        ValueError: there are no units, or the two have not as many.
    """
    columns = _columns(*zip(*baseline, strict=True), *zip(*product, strict=True))
    return _interval(columns, lambda s: (s[..., 2] / s[..., 3]) / (s[..., 0] / s[..., 1]), seed)


def mean_ratio(
    baseline: Sequence[tuple[float, float]],  # (tokens, rounds) of each unit
    product: Sequence[tuple[float, float]],
    seed: int = 0,
) -> Ratio:
    """How many times larger a mean per round is, over pairs of units; the same arithmetic as that of rates."""
    return rate_ratio(baseline, product, seed)


def median_ratio(baseline: Sequence[tuple[float, float]], product: Sequence[tuple[float, float]]) -> float:
    """The median over units of how many times faster the product was."""
    pairs = zip(baseline, product, strict=True)
    return float(np.median([(mine[0] / mine[1]) / (theirs[0] / theirs[1]) for theirs, mine in pairs]))


def _columns(*columns: Sequence[float]) -> np.ndarray:  # [n, columns]
    if not columns or not len(columns[0]) or len({len(column) for column in columns}) != 1:
        raise ValueError(f"units are needed, as many of each kind; got {[len(column) for column in columns]}")
    return np.asarray(columns, dtype=np.float64).T


def _interval(columns: np.ndarray, statistic: Callable[[np.ndarray], np.ndarray], seed: int) -> Ratio:
    chosen = np.random.default_rng(seed).integers(len(columns), size=(RESAMPLES, len(columns)))
    drawn = np.sort(statistic(columns[chosen].sum(axis=1)))
    tail = round((1 - CONFIDENCE) / 2 * RESAMPLES)
    value = float(statistic(columns.sum(axis=0)))
    return Ratio(value, float(drawn[tail]), float(drawn[-tail - 1]), len(columns))
