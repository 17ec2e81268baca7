"""The package's logger is left as it was found."""

from __future__ import annotations

import logging
from collections.abc import Iterator

import pytest

from flashsd_ray.telemetry.logs import ROOT


@pytest.fixture(autouse=True)
def logger() -> Iterator[logging.Logger]:
    mine = logging.getLogger(ROOT)
    before = (list(mine.handlers), mine.level, mine.propagate)
    yield mine
    mine.handlers[:], mine.level, mine.propagate = before
    mine.setLevel(before[1])  # forgets which levels were found to be on
