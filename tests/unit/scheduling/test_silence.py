"""A late message is no loss, and a deadline is."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.scheduling.silence import is_quiet, leaves

SECONDS = st.floats(0.0, 1000.0)


@pytest.mark.parametrize(
    ("silent_s", "left_s", "expected"),
    [
        (0.0, None, False),
        (29.0, None, False),
        (31.0, None, True),
        (5.0, 1.0, False),  # two looks are on their way: a message may be late
        (7.0, 100.0, False),
        (7.0, 20.0, True),
        (31.0, 1000.0, True),
    ],
)
def test_who_leaves_when(silent_s: float, left_s: float | None, expected: bool) -> None:
    assert leaves(silent_s, left_s, period_s=2.0, timeout_s=30.0) == expected


@given(silent_s=SECONDS, left_s=SECONDS, less_s=SECONDS)
def test_who_has_less_time_never_stays_longer(silent_s: float, left_s: float, less_s: float) -> None:
    if leaves(silent_s, left_s, period_s=2.0, timeout_s=30.0):
        assert leaves(silent_s, min(left_s, less_s), period_s=2.0, timeout_s=30.0)


@given(silent_s=SECONDS, left_s=st.none() | SECONDS)
def test_nobody_leaves_a_lane_that_speaks(silent_s: float, left_s: float | None) -> None:
    if not is_quiet(silent_s, 2.0):
        assert not leaves(silent_s, left_s, period_s=2.0, timeout_s=30.0)
