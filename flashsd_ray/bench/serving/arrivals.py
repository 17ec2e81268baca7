"""When the requests of an open loop are sent."""

from __future__ import annotations

import random


def poisson_arrivals(
    rate_per_s: float,
    count: int,
    seed: int = 0,
) -> tuple[float, ...]:  # [count] seconds since the load began, increasing
    """The first moments of a Poisson process: users who know nothing of each other.

    Raises:
        ValueError: the rate is not positive.
    """
    if not rate_per_s > 0:
        raise ValueError(f"a rate must be positive, got {rate_per_s}")
    chance, moments, now_s = random.Random(seed), list[float](), 0.0
    for _ in range(count):
        now_s += chance.expovariate(rate_per_s)
        moments.append(now_s)
    return tuple(moments)
