"""Percentiles of what users feel: a mean hides the slow ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass

import numpy as np


@dataclass(frozen=True, slots=True, kw_only=True)
class Percentiles:
    """Half of the values, nine in ten, ninety-nine in a hundred are at most so large."""

    p50: float
    p90: float
    p99: float
    num_values: int

    @classmethod
    def of(
        cls,
        values: Iterable[float | None],  # None: there was nothing to measure
    ) -> Percentiles | None:
        """The percentiles, between the two nearest values where none is exact; None when there are no values."""
        known = [value for value in values if value is not None]
        if not known:
            return None
        p50, p90, p99 = (float(value) for value in np.quantile(known, (0.5, 0.9, 0.99)))
        return cls(p50=p50, p90=p90, p99=p99, num_values=len(known))

    def as_dict(self) -> dict[str, float]:
        """For JSON."""
        return asdict(self)


def in_ms(percentiles: Percentiles | None) -> str:
    """The three percentiles of seconds, for a table of milliseconds."""
    if percentiles is None:
        return "-"
    return " / ".join(f"{value * 1000:.0f}" for value in (percentiles.p50, percentiles.p90, percentiles.p99))
