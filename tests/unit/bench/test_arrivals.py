from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.bench.serving.arrivals import poisson_arrivals


@given(st.floats(0.01, 1000), st.integers(0, 50), st.integers())
def test_moments_increase_and_the_seed_decides_them(rate_per_s: float, count: int, seed: int) -> None:
    moments = poisson_arrivals(rate_per_s, count, seed)
    assert len(moments) == count
    assert all(earlier < later for earlier, later in pairwise((0.0, *moments)))
    assert moments == poisson_arrivals(rate_per_s, count, seed)


def test_gaps_are_those_of_a_poisson_process() -> None:
    moments = poisson_arrivals(4.0, 20_000, seed=3)
    gaps = [later - earlier for earlier, later in pairwise(moments)]
    mean = sum(gaps) / len(gaps)
    assert mean == pytest.approx(1 / 4.0, rel=0.03)
    # The deviation of an exponential is its mean; evenly spaced requests would have none.
    deviation = (sum((gap - mean) ** 2 for gap in gaps) / len(gaps)) ** 0.5
    assert deviation == pytest.approx(mean, rel=0.05)


def test_seeds_differ() -> None:
    assert poisson_arrivals(1.0, 5, seed=1) != poisson_arrivals(1.0, 5, seed=2)


@pytest.mark.parametrize("rate_per_s", [0.0, -1.0, float("nan")])
def test_a_rate_is_positive(rate_per_s: float) -> None:
    with pytest.raises(ValueError, match="rate"):
        poisson_arrivals(rate_per_s, 3)
