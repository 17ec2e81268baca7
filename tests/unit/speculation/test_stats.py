"""Counts add up, and tau counts what it says."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.speculation.stats import RoundStats, SpeculationStats

rounds = st.integers(0, 5).flatmap(
    lambda drafted: st.builds(
        RoundStats,
        num_draft_tokens=st.just(drafted),
        num_accepted_tokens=st.integers(0, drafted),
        num_new_tokens=st.integers(1, 7),
    )
)
totals = st.lists(rounds, max_size=5).map(
    lambda several: sum(map(SpeculationStats.of_round, several), SpeculationStats.of_prefill())
)


@given(totals, totals, totals)
def test_order_of_adding_does_not_matter(one: SpeculationStats, two: SpeculationStats, three: SpeculationStats) -> None:
    assert (one + two) + three == one + (two + three)
    assert one + two == two + one
    assert one + SpeculationStats() == one


def test_tau_counts_the_bonus_and_not_the_prefill() -> None:
    total = SpeculationStats.of_prefill()
    for accepted in (3, 0, 1):
        stats = RoundStats(num_draft_tokens=3, num_accepted_tokens=accepted, num_new_tokens=accepted + 1)
        total += SpeculationStats.of_round(stats)
    assert total.num_new_tokens == 8
    assert total.tau == pytest.approx(7 / 3)
    assert total.acceptance_rate == pytest.approx(4 / 9)
    assert total.accepted_per_position == (2, 1, 1)


def test_drafts_cut_off_by_a_stop_rule_do_not_count_as_accepted() -> None:
    stats = RoundStats(num_draft_tokens=4, num_accepted_tokens=4, num_new_tokens=2)
    total = SpeculationStats.of_round(stats)
    assert (total.tau, total.num_accepted_tokens, total.accepted_per_position) == (2.0, 2, (1, 1, 0, 0))


def test_nothing_yet_is_zero() -> None:
    assert (SpeculationStats().tau, SpeculationStats().acceptance_rate) == (0.0, 0.0)
    assert SpeculationStats.of_prefill().tau == 0.0


def test_the_report_has_the_agreed_names_and_is_json() -> None:
    total = SpeculationStats.of_prefill() + SpeculationStats.of_stage("encode", 0.25)
    assert set(total.as_dict()) == {"num_new_tokens", "tau", "rounds", "accepted_per_position", "seconds"}
    report = json.loads(json.dumps(total.as_dict()))
    assert report["seconds"] == {"encode": 0.25, "prefill": 0.0, "draft": 0.0, "verify": 0.0, "decode": 0.0}


def test_an_unknown_stage_is_refused() -> None:
    with pytest.raises(KeyError):
        SpeculationStats.of_stage("lunch", 1.0)
