"""Waits between attempts: bounded, spread, never shorter than the server asks."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.client import Retries, Timing
from flashsd_ray.client.retries import Attempts
from flashsd_ray.errors import ConfigError, DeadlineError, InvalidRequestError, UnavailableError
from tests.unit.client.conftest import FakeTime

SECONDS = st.floats(0.0, 100.0)


@given(st.integers(1, 10_000), SECONDS, SECONDS, SECONDS, st.randoms(use_true_random=False))
def test_a_wait_lies_between_what_the_server_asks_and_the_longest(
    num_failures: int, first_s: float, longest_s: float, retry_after_s: float, chance: random.Random
) -> None:
    retries = Retries(first_s=first_s, longest_s=longest_s)
    wait_s = retries.wait_s(num_failures, retry_after_s, chance.uniform)
    assert retry_after_s <= wait_s <= retry_after_s + longest_s


def test_the_whole_range_is_used() -> None:
    ranges: list[tuple[float, float]] = []

    def uniform(low: float, high: float) -> float:
        ranges.append((low, high))
        return low

    for num_failures in range(1, 9):
        assert Retries().wait_s(num_failures, 0.0, uniform) == 0.0
    assert ranges == [(0, longest_s) for longest_s in (0.1, 0.2, 0.4, 0.8, 1.6, 3.2, 5.0, 5.0)]


async def test_success_makes_the_count_start_anew(time: FakeTime) -> None:
    attempts = Attempts(Retries(attempts=2), time.timing, None)
    lost = UnavailableError("lost", retry_after_s=0.0)
    for _ in range(5):
        await attempts.failed(lost)
        attempts.succeeded()
    await attempts.failed(lost)
    with pytest.raises(UnavailableError):
        await attempts.failed(lost)


async def test_no_attempt_begins_after_the_time_limit(time: FakeTime) -> None:
    attempts = Attempts(Retries(), time.timing, 2.0)
    assert attempts.left_s() == 2.0
    time.now_s = 2.0
    with pytest.raises(DeadlineError, match="no answer within 2 s"):
        attempts.left_s()


@pytest.mark.parametrize("options", [{"attempts": 0}, {"first_s": -1.0}, {"longest_s": -1.0}, {"patience_s": -1.0}])
def test_retries_that_make_no_sense(options: dict[str, float]) -> None:
    with pytest.raises(ConfigError):
        Retries(**options)  # type: ignore[arg-type]


@pytest.mark.parametrize("timeout_s", [0.0, -1.0, float("nan")])
def test_time_limits_that_make_no_sense(timeout_s: float) -> None:
    with pytest.raises(InvalidRequestError):
        Attempts(Retries(), Timing(), timeout_s)
