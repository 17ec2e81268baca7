"""Drafting pays or is not done; the policy learns both from what it sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.speculation.draft_length import (
    LengthInputs,
    LengthParams,
    LengthState,
    RoundCosts,
    choose_length,
    expected_speedups,
    observe_round,
    observe_verdict,
    predict_s,
    trim_to_confidence,
)
from flashsd_ray.speculation.randomness import Purpose, draw_key, keyed_uniform
from flashsd_ray.types import DraftBlock, Proposal

PARAMS = LengthParams(max_length=8)


def flat_costs(verify_s: float = 1.0, draft_s: float = 0.05, row_s: float = 0.0) -> RoundCosts:
    """Measured costs of a machine where a row more costs row_s."""
    sizes = [2.0**power for power in range(12)]
    return RoundCosts(
        draft_s=tuple((size, draft_s) for size in sizes),
        verify_s=tuple((size, verify_s + row_s * size) for size in sizes),
    )


def usual(num_running: int = 1, costs: RoundCosts | None = None) -> LengthInputs:
    """A round in which nothing is tried."""
    return LengthInputs(lane_round=2, num_running=num_running, costs=costs or RoundCosts())


def state(rate: float) -> LengthState:
    """A request whose drafts stand so often."""
    return LengthState(rates=(rate,) * PARAMS.max_length, num_seen=(1000,) * PARAMS.max_length)


@given(st.integers(0, 12), st.integers(1, 200))
def test_a_fixed_length_is_kept(fixed: int, lane_round: int) -> None:
    params = LengthParams(max_length=8, fixed_length=fixed)
    assert choose_length(LengthInputs(lane_round=lane_round), state(0.0), params) == min(fixed, 8)


def test_a_drafter_that_never_drafts_gets_nothing_to_do() -> None:
    assert choose_length(usual(), LengthState(), LengthParams(max_length=0)) == 0


def test_a_new_request_gets_its_chance() -> None:
    assert choose_length(usual(), LengthState(), PARAMS) == PARAMS.max_length


def test_speedup_is_that_of_the_cost_model() -> None:
    """S = tau / (1 + c_d + c_v), with tau of independent drafts in closed form."""
    inputs = usual(costs=flat_costs(verify_s=1.0, draft_s=0.09))
    tau = (1 - 0.8**6) / (1 - 0.8)
    assert expected_speedups(inputs, state(0.8), PARAMS)[5] == pytest.approx(tau / 1.09)


def test_certain_drafts_at_no_cost_are_drafted_to_the_end() -> None:
    assert choose_length(usual(costs=flat_costs()), state(1.0), PARAMS) == PARAMS.max_length


@pytest.mark.parametrize(
    ("rate", "costs"),
    [(0.02, flat_costs()), (0.9, flat_costs(draft_s=20.0)), (0.5, flat_costs(verify_s=0.0, row_s=1.0))],
)
def test_nothing_is_drafted_where_it_does_not_pay(rate: float, costs: RoundCosts) -> None:
    assert choose_length(usual(costs=costs), state(rate), PARAMS) == 0


def test_load_shortens_drafts() -> None:
    costs = flat_costs(verify_s=1.0, row_s=0.02)
    lengths = [choose_length(usual(num_running=n, costs=costs), state(0.8), PARAMS) for n in (1, 8, 16, 64)]
    assert lengths == sorted(lengths, reverse=True)
    assert lengths[0] > lengths[-1]


@given(st.floats(0, 1), st.floats(0, 1), st.floats(0.01, 2))
def test_better_drafts_are_never_worth_less(low: float, high: float, draft_s: float) -> None:
    low, high = sorted((low, high))
    inputs = usual(costs=flat_costs(draft_s=draft_s))
    worse, better = (expected_speedups(inputs, state(rate), PARAMS) for rate in (low, high))
    assert worse[0] == better[0] == 1.0
    assert all(one <= other for one, other in zip(worse, better, strict=True))


def test_trials_take_the_road_not_taken() -> None:
    good, bad = state(0.9), state(0.0)
    trials = [LengthInputs(lane_round=PARAMS.trial_interval * n, costs=flat_costs()) for n in range(1, 9)]
    assert [choose_length(trial, good, PARAMS) for trial in trials] == [1, 3, 7, 0, 1, 3, 7, 0]
    assert [choose_length(trial, bad, PARAMS) for trial in trials] == [1] * 8


def test_lengths_of_unknown_cost_are_measured_plain_first() -> None:
    costs, tried = RoundCosts(), []
    for lane_round in range(1, 50, 8):
        inputs = LengthInputs(lane_round=lane_round, num_running=4, costs=costs)
        tried.append(choose_length(inputs, state(0.0), PARAMS))
        rows = 4 * (tried[-1] + 1)
        costs = observe_round(costs, PARAMS, num_drafted=rows - 4, num_rows=rows, draft_s=0.1, verify_s=1.0)
    assert tried[:4] == [0, 1, 3, 7]
    assert tried[4:] == [0] * len(tried[4:])


def test_a_verdict_speaks_only_of_the_drafts_it_reached() -> None:
    before = replace(state(0.5), rates=(0.5,) * 5 + (0.4,) * 3)
    after = observe_verdict(before, num_drafted=6, num_accepted=2, params=PARAMS)
    moves = [now - then for now, then in zip(after.rates, before.rates, strict=True)]
    assert moves[0] > 0 < moves[1]
    assert moves[2] < 0
    assert moves[3:6] == [0.0] * 3
    assert moves[6] == 0.0
    longer = observe_verdict(before, num_drafted=5, num_accepted=5, params=PARAMS)
    assert longer.rates[5] > before.rates[5], "a position that was not drafted follows the one before it"
    assert observe_verdict(before, num_drafted=0, num_accepted=0, params=PARAMS) == before


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=40))
def test_survival_is_a_falling_probability(verdicts: list[tuple[int, int]]) -> None:
    current = LengthState()
    for drafted, accepted in verdicts:
        current = observe_verdict(current, drafted, min(drafted, accepted), PARAMS)
    survival = current.survival(PARAMS)
    assert len(survival) == PARAMS.max_length
    assert all(0 <= later <= earlier <= 1 for earlier, later in pairwise(survival))


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 300), st.floats(1e-4, 10)), min_size=1, max_size=30), st.integers(1, 400))
def test_predicted_costs_lie_between_the_measured(measured: list[tuple[int, float]], size: int) -> None:
    costs = RoundCosts()
    for rows, seconds in measured:
        costs = observe_round(costs, PARAMS, num_drafted=rows - 1, num_rows=rows, draft_s=seconds, verify_s=seconds)
    sizes = [point[0] for point in costs.verify_s]
    assert sizes == sorted(sizes)
    predicted = predict_s(costs.verify_s, size)
    assert predicted is not None
    assert min(s for _, s in measured) - 1e-9 <= predicted <= max(s for _, s in measured) + 1e-9


def test_costs_are_unknown_before_the_first_measurement() -> None:
    assert predict_s((), 3) is None


def run_machine(rate: float, verify_s: Callable[[int], float], draft_s: float, num_rounds: int = 800) -> float:
    """Tokens per second of one request on a simulated machine."""
    current, costs, tokens, seconds = LengthState(), RoundCosts(), 0, 0.0
    for index in range(1, num_rounds + 1):
        length = choose_length(LengthInputs(lane_round=index, costs=costs), current, PARAMS)
        flips = (keyed_uniform(draw_key(1, index, Purpose.ACCEPT), slot) < rate for slot in range(length))
        accepted = next((slot for slot, stands in enumerate(flips) if not stands), length)
        spent = draft_s if length else 0.0
        costs = observe_round(
            costs, PARAMS, num_drafted=length, num_rows=length + 1, draft_s=spent, verify_s=verify_s(length + 1)
        )
        current = observe_verdict(current, length, accepted, PARAMS)
        tokens += accepted + 1
        seconds += spent + verify_s(length + 1)
    return tokens / seconds


MACHINES: dict[str, Callable[[int], float]] = {
    "verification is free": lambda rows: 1.0,
    "every row costs": lambda rows: 0.2 + 0.8 * rows,
    "a step after the first row": lambda rows: 1.0 if rows == 1 else 1.7,
    "a knee at four rows": lambda rows: 1.0 if rows <= 4 else 0.25 * rows,
}


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize("draft_s", [0.02, 0.5])
def test_the_policy_is_never_slower_than_plain_and_near_the_best_fixed_length(
    machine: str, rate: float, draft_s: float
) -> None:
    verify_s = MACHINES[machine]
    speed = run_machine(rate, verify_s, draft_s)
    taus = [sum(rate**slot for slot in range(length + 1)) for length in range(9)]
    fixed = [tau / (verify_s(length + 1) + draft_s * (length > 0)) for length, tau in enumerate(taus)]
    assert speed > 0.92 * fixed[0]
    assert speed > 0.85 * max(fixed)


def confident_block(*confidence: float, proposal: Proposal | None = None) -> DraftBlock:
    """A block with one draft for each confidence."""
    ids = tuple(range(len(confidence)))
    return DraftBlock(request_id="r", round=1, start=5, token_ids=ids, proposal=proposal, confidence=confidence)


def test_doubtful_tails_are_not_verified() -> None:
    inputs = usual(num_running=4, costs=flat_costs(verify_s=1.0, row_s=0.05))
    block = trim_to_confidence(confident_block(0.95, 0.9, 0.05, 0.99), inputs, PARAMS)
    assert block.token_ids == (0, 1)
    assert block.confidence == (0.95, 0.9)
    assert trim_to_confidence(confident_block(0.01, 0.9), inputs, PARAMS).token_ids == ()


def test_blocks_that_must_stay_whole_stay_whole() -> None:
    """Where rows are free, costs unknown, lengths fixed, or the drafts were drawn from a proposal."""
    costly = usual(num_running=8, costs=flat_costs(row_s=1.0))
    doubtful = confident_block(0.1, 0.1)
    support = torch.zeros(2, 1, dtype=torch.int64)
    proposal = Proposal(support_ids=support, support_probs=torch.ones(2, 1, dtype=torch.float64))
    drawn = confident_block(0.1, 0.1, proposal=proposal)
    unsure = DraftBlock(request_id="r", round=1, start=5, token_ids=(1, 2))
    assert trim_to_confidence(doubtful, costly, PARAMS).token_ids == ()
    assert trim_to_confidence(doubtful, usual(costs=flat_costs()), PARAMS) is not None
    assert trim_to_confidence(doubtful, usual(), PARAMS) is doubtful
    assert trim_to_confidence(doubtful, costly, LengthParams(max_length=8, fixed_length=2)) is doubtful
    assert trim_to_confidence(drawn, costly, PARAMS) is drawn
    assert trim_to_confidence(unsure, costly, PARAMS) is unsure
    assert len(trim_to_confidence(confident_block(0.1, math.nan), usual(costs=flat_costs()), PARAMS).token_ids) <= 2
