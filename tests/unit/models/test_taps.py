"""Taps that are fused late read as if each had been fused at once."""

from __future__ import annotations

import torch
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, rule

from flashsd_ray.models.taps import TapCache, Taps

ROWS = 12


class TapCacheMachine(RuleBasedStateMachine):
    """Keeps taps of rows and reads them in any order, beside a table that is filled at once."""

    def __init__(self) -> None:
        super().__init__()
        self.cache = TapCache(Taps((1,), 1, lambda taps: 10 * taps), torch.zeros(ROWS, 1))
        self.expected = torch.zeros(ROWS, 1)
        self.num_kept = 0
        self.fresh = set(range(ROWS))  # rows that a plain round may bring: none whose taps were kept lately

    def keep(self, rows: list[int], *, is_plain: bool) -> None:
        taps = torch.arange(self.num_kept, self.num_kept + len(rows), dtype=torch.float32)[:, None]
        self.num_kept += len(rows)
        self.cache.keep(taps, torch.tensor(rows), is_plain=is_plain)
        self.expected[rows] = 10 * taps

    @rule(rows=st.lists(st.integers(0, ROWS - 1), min_size=1, unique=True))
    def forward(self, rows: list[int]) -> None:
        self.keep(rows, is_plain=False)
        self.fresh = set(range(ROWS))

    @rule(data=st.data())
    def plain_round(self, data: st.DataObject) -> None:
        if self.fresh:
            rows = data.draw(st.lists(st.sampled_from(sorted(self.fresh)), min_size=1, max_size=3, unique=True))
            self.keep(rows, is_plain=True)
            self.fresh -= set(rows)

    @rule(spans=st.lists(st.lists(st.integers(0, ROWS - 1), min_size=1), min_size=1, max_size=3))
    def read(self, spans: list[list[int]]) -> None:
        found = self.cache.read([torch.tensor(span) for span in spans])
        for span, rows in zip(spans, found, strict=True):
            assert torch.equal(rows, self.expected[span])


TestTapCache = TapCacheMachine.TestCase
TestTapCache.settings = settings(max_examples=80, stateful_step_count=40, deadline=None)


def test_rounds_that_nobody_reads_are_fused_together() -> None:
    calls: list[int] = []

    def fuse(taps: torch.Tensor) -> torch.Tensor:
        calls.append(len(taps))
        return taps

    cache = TapCache(Taps((1,), 1, fuse), torch.zeros(200, 1))
    for row in range(100):
        cache.keep(torch.ones(1, 1), torch.tensor([row]), is_plain=True)
    assert calls == [16] * 6
    cache.read([torch.tensor([99])])
    assert calls == [16] * 6 + [4]
