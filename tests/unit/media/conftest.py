"""Settings for tests that make videos."""

from __future__ import annotations

import os

import pytest

from flashsd_ray.config import MediaConfig

# The AV1 encoder reads this when it starts, and prints a page to stderr without it.
os.environ.setdefault("SVT_LOG", "0")


@pytest.fixture
def config() -> MediaConfig:
    """The settings that ship."""
    return MediaConfig()


class SteppingClock:
    """A clock that moves on by one step each time it is asked."""

    def __init__(self, step_s: float) -> None:
        self.now_s = 0.0
        self.step_s = step_s

    def __call__(self) -> float:
        self.now_s += self.step_s
        return self.now_s


@pytest.fixture
def impatient_clock() -> SteppingClock:
    """A clock by which everything takes very long."""
    return SteppingClock(step_s=1.0)
