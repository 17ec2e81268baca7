"""Drafting pays or is not done; the policy learns both from what it sees."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from flashsd_ray.speculation.draft_length import (
    LengthInputs,
    LengthParams,
    LengthState,
    choose_length,
    expected_speedups,
    observe_verdict,
    trim_to_confidence,
)
from flashsd_ray.speculation.randomness import Purpose, draw_key, keyed_uniform
from flashsd_ray.speculation.round_costs import Average, RoundCosts, observe_round, predict_s
from flashsd_ray.types import DraftBlock, Proposal

PARAMS = LengthParams(max_length=8)


def flat_costs(verify_s: float = 1.0, draft_s: float = 0.05, row_s: float = 0.0) -> RoundCosts:
    """Measured costs of a machine where a row more costs row_s."""
    sizes = [2.0**power for power in range(12)]
    return RoundCosts(
        draft_s={1: tuple(Average(size, draft_s) for size in sizes)},
        plain_s=tuple(Average(size, verify_s + row_s * size) for size in sizes),
        extra_s=tuple(Average(size, row_s * size) for size in sizes),
        asked=frozenset(range(12)),
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


def trials_of(current: LengthState, costs: RoundCosts, num_turns: int, **params: float) -> list[int]:
    """What is done in the rounds in which something may be tried."""
    tuned = replace(PARAMS, **params)
    rounds = range(tuned.trial_interval, (num_turns + 1) * tuned.trial_interval, tuned.trial_interval)
    return [choose_length(LengthInputs(lane_round=n, costs=costs), current, tuned) for n in rounds]


def test_trials_take_the_road_not_taken() -> None:
    assert trials_of(state(0.9), flat_costs(), 8, trial_share=1.0) == [1, 3, 7, 0, 1, 3, 7, 0]
    assert trials_of(state(0.0), flat_costs(), 6, trial_share=1.0) == [3, 7, 1, 3, 7, 1]


def test_a_trial_waits_until_its_loss_is_earned() -> None:
    """A draft of 7 costs 24 plain rounds here and one of 1 costs 4, of which a hundredth is allowed."""
    costs = flat_costs(verify_s=0.0, row_s=1.0, draft_s=1.0)
    chosen = trials_of(state(0.0), costs, 960)
    counts = [chosen.count(length) for length in (1, 3, 7)]
    assert counts == sorted(counts, reverse=True)
    assert min(counts) > 0
    lost = sum((1.0 + length * 1.0) * (length > 0) for length in chosen)
    assert lost <= 0.01 * 960 * PARAMS.trial_interval


def drafted_rounds(costs: RoundCosts, num_rounds: int, *, tau: float, spent_s: float) -> RoundCosts:
    """The costs after rounds of four requests that drafted 3 tokens each."""
    for _ in range(num_rounds):
        costs = observe_round(
            costs,
            num_running=4,
            num_asked=12,
            num_drafted=12,
            num_rows=16,
            num_committed=round(4 * tau),
            draft_s=0.0,
            verify_s=spent_s,
        )
    return costs


def test_a_promise_that_is_not_kept_closes_the_gate_at_that_load_until_it_is_kept() -> None:
    """Confident drafts may be all that is ever verified, so that rates look better than rounds are."""
    costs = drafted_rounds(flat_costs(), 10, tau=1.0, spent_s=1.5)
    gain = costs.gain_at(4)
    assert gain is not None
    assert gain < 0.8
    assert choose_length(usual(4, costs), state(0.9), PARAMS) == 0
    assert choose_length(usual(32, costs), state(0.9), PARAMS) > 0, "nothing is known at another load"
    trials = [LengthInputs(lane_round=32 * n, num_running=4, costs=costs) for n in range(1, 33)]
    tried = {choose_length(trial, state(0.9), PARAMS) for trial in trials}
    assert tried == {0, PARAMS.max_length}, "what was promised is tried again, now and then"
    costs = drafted_rounds(costs, 20, tau=3.0, spent_s=1.5)
    assert choose_length(usual(4, costs), state(0.9), PARAMS) > 0


def test_what_was_brought_is_held_against_what_plain_rounds_take_now() -> None:
    """The first plain rounds at a load may have been guessed from another one."""
    costs = drafted_rounds(flat_costs(verify_s=0.5), 10, tau=2.0, spent_s=1.5)
    before = costs.gain_at(4)
    after = replace(costs, plain_s=flat_costs(verify_s=1.0).plain_s).gain_at(4)
    assert before is not None
    assert after == pytest.approx(2 * before)


def test_one_long_stop_says_little() -> None:
    costs = drafted_rounds(flat_costs(), 50, tau=3.0, spent_s=1.0)
    before, after = costs.gain_at(4), drafted_rounds(costs, 1, tau=3.0, spent_s=500.0).gain_at(4)
    assert before is not None
    assert after is not None
    assert after > 0.8 * before


def test_a_new_request_is_taken_for_those_before_it() -> None:
    """Of ten requests whose drafts never stand, only the first pays for finding out."""
    pooled, drafted = LengthState(), []
    for _ in range(10):
        current, total = pooled.successor(), 0
        for lane_round in range(2, 30):
            inputs = LengthInputs(lane_round=lane_round, costs=flat_costs(row_s=0.1))
            length = choose_length(inputs, current, PARAMS)
            total += length
            if length:
                current = observe_verdict(current, length, 0, PARAMS)
                pooled = observe_verdict(pooled, length, 0, PARAMS, is_pooled=True)
        drafted.append(total)
    assert drafted[0] > 0
    assert drafted[2:] == [0] * 8
    for _ in range(12):
        current = observe_verdict(pooled.successor(), 8, 8, PARAMS)
        pooled = observe_verdict(pooled, 8, 8, PARAMS, is_pooled=True)
    assert current.rates[0] > pooled.rates[0], "its own verdicts weigh more"


def test_lengths_of_unknown_cost_are_measured_plain_first() -> None:
    costs, tried = RoundCosts(), []
    for lane_round in range(1, 50, 8):
        inputs = LengthInputs(lane_round=lane_round, num_running=4, costs=costs)
        tried.append(choose_length(inputs, state(0.0), PARAMS))
        rows = 4 * (tried[-1] + 1)
        costs = observe_round(
            costs,
            num_running=4,
            num_asked=rows - 4,
            num_drafted=rows - 4,
            num_rows=rows,
            num_committed=4,
            draft_s=0.1,
            verify_s=1.0,
        )
    assert tried[:4] == [0, 1, 3, 7]
    assert tried[4:] == [0] * len(tried[4:])


def test_a_drafter_that_finds_nothing_is_not_asked_for_the_same_again() -> None:
    costs, asked = RoundCosts(), []
    for lane_round in range(1, 50, 8):
        asked.append(choose_length(LengthInputs(lane_round=lane_round, costs=costs), state(0.0), PARAMS))
        costs = observe_round(
            costs,
            num_running=1,
            num_asked=asked[-1],
            num_drafted=0,
            num_rows=1,
            num_committed=1,
            draft_s=0.0,
            verify_s=1.0,
        )
    assert asked == [0, 1, 3, 7, 0, 0, 0]


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
@given(
    st.lists(st.tuples(st.integers(1, 300), st.floats(1e-4, 10)), min_size=1, max_size=30),
    st.integers(1, 400),
    st.integers(1, 400),
)
def test_predicted_costs_lie_between_the_measured(
    measured: list[tuple[int, float]], size: int, num_running: int
) -> None:
    costs = measured_round(RoundCosts(), 1, 0, 1.0)
    for drafts, seconds in measured:
        costs = measured_round(costs, drafts, 0, seconds)
        costs = observe_round(
            costs,
            num_running=1,
            num_asked=drafts,
            num_drafted=drafts,
            num_rows=1 + drafts,
            num_committed=1,
            draft_s=seconds,
            verify_s=seconds,
        )
    lowest, highest = min(1.0, *(s for _, s in measured)), max(1.0, *(s for _, s in measured))
    for averages in (costs.plain_s, *costs.draft_s.values()):
        sizes = [average.size for average in averages]
        assert sizes == sorted(sizes)
        predicted = predict_s(averages, size)
        assert predicted is not None
        assert lowest - 1e-9 <= predicted <= highest + 1e-9
    extra_s = predict_s(costs.extra_s, size)
    assert extra_s is not None
    assert lowest - highest - 1e-9 <= extra_s <= highest - lowest + 1e-9
    assert all(speedup > 0 for speedup in expected_speedups(usual(num_running, costs), state(0.5), PARAMS))


def measured_round(
    costs: RoundCosts,
    num_running: int,
    length: int,
    verify_s: float,
    *,
    draft_s: float = 0.0,
    num_read: int = 0,
    reading_s: float = 0.0,
) -> RoundCosts:
    """The costs after a round in which every draft stood."""
    return observe_round(
        costs,
        num_running=num_running,
        num_asked=num_running * length,
        num_drafted=num_running * length,
        num_rows=num_running * (length + 1),
        num_committed=num_running * (length + 1),
        draft_s=draft_s,
        verify_s=verify_s,
        num_read=num_read,
        reading_s=reading_s,
    )


def test_what_is_learnt_at_one_load_does_not_spoil_another() -> None:
    """A batch that drains shows rounds of every size, and few requests with many drafts are not many with few."""

    def plain_s(num_running: int) -> float:
        return 2.0 + 0.25 * num_running

    costs, loads = RoundCosts(), (2, 4, 8, 9, 16, 24, 32)
    for _ in range(5):
        for num_running in range(32, 0, -1):
            costs = measured_round(costs, num_running, 0, plain_s(num_running))
        for num_running in loads:
            for length in (1, 3, 7):
                verify_s = plain_s(num_running) + 0.1 * num_running * length
                costs = measured_round(costs, num_running, length, verify_s, draft_s=0.2 * num_running)
    for num_running in loads:
        speedups = expected_speedups(usual(num_running, costs), state(1.0), PARAMS)
        for length in (1, 3, 7):
            spent_s = plain_s(num_running) + 0.1 * num_running * length + 0.2 * num_running
            assert speedups[length] == pytest.approx((1 + length) * plain_s(num_running) / spent_s, rel=0.1)


def test_plain_rounds_are_measured_at_every_load_although_as_many_rows_were_seen_at_others() -> None:
    costs = measured_round(measured_round(RoundCosts(), 1, 0, 1.0), 1, 7, 1.0)
    chosen = [choose_length(LengthInputs(lane_round=9, num_running=n, costs=costs), state(0.9), PARAMS) for n in (1, 8)]
    assert chosen[0] > 0
    assert chosen[1] == 0


def test_reading_prompts_has_to_be_earned_as_well() -> None:
    costs = RoundCosts()
    for _ in range(5):
        costs = measured_round(costs, 4, 0, 1.0)
    drafted = read = costs
    for _ in range(5):
        drafted = measured_round(drafted, 4, 3, 2.0)
        read = measured_round(read, 4, 3, 2.0, num_read=2, reading_s=6.0)
    assert drafted.gain_at(4) == pytest.approx(4 * 1.0 / 2.0)
    assert read.gain_at(4) == pytest.approx(4 * 1.0 / (2.0 + 6.0))
    assert read.reading_s == pytest.approx(3.0)
    assert drafted.reading_s == 0.0


def test_trials_for_which_prompts_must_be_read_are_rarer() -> None:
    costs = replace(flat_costs(verify_s=1.0, row_s=0.1), reading_s=1.0)
    rounds = range(PARAMS.trial_interval, 400 * PARAMS.trial_interval, PARAMS.trial_interval)

    def num_trials(num_unread: int) -> int:
        inputs = (LengthInputs(lane_round=n, num_running=4, num_unread=num_unread, costs=costs) for n in rounds)
        return sum(choose_length(one, state(0.0), PARAMS) > 0 for one in inputs)

    assert num_trials(0) > 2 * num_trials(2) > 2 * num_trials(4) > 0


@given(st.lists(st.tuples(st.integers(0, 8), st.integers(0, 8)), max_size=20))
def test_expected_tokens_follow_from_survival(verdicts: list[tuple[int, int]]) -> None:
    current = LengthState()
    for drafted, accepted in verdicts:
        current = observe_verdict(current, drafted, min(drafted, accepted), PARAMS)
        survival = current.survival(PARAMS)
        assert current.taus(PARAMS) == pytest.approx([1.0 + sum(survival[:length]) for length in range(9)])


def test_costs_are_unknown_before_the_first_measurement() -> None:
    assert predict_s((), 3) is None


@dataclass
class Machine:
    """A simulated lane whose requests come and go; its rounds take what the functions say."""

    verify_s: Callable[[int], float]  # of rows
    draft_s: float  # of a round with drafts
    rate: float  # how often a draft stands
    num_running: int = 1
    answer_tokens: int = 64
    num_rounds: int = 0
    tokens: int = 0
    seconds: float = 0.0
    costs: RoundCosts = field(default_factory=RoundCosts)
    pooled: LengthState = field(default_factory=LengthState)
    chosen: list[int] = field(default_factory=list)  # by the first request of each round

    def __post_init__(self) -> None:
        self._requests = [(LengthState(), 0)] * self.num_running

    def run(self, num_rounds: int) -> Machine:
        for _ in range(num_rounds):
            self._step()
        return self

    def _step(self) -> None:
        self.num_rounds += 1
        inputs = LengthInputs(lane_round=self.num_rounds, num_running=self.num_running, costs=self.costs)
        lengths = [choose_length(inputs, current, PARAMS) for current, _ in self._requests]
        accepted = [self._accepted(index, length) for index, length in enumerate(lengths)]
        num_drafted, num_committed = sum(lengths), sum(accepted) + self.num_running
        draft_s = self.draft_s if num_drafted else 0.0
        verify_s = self.verify_s(num_drafted + self.num_running)
        self.costs = observe_round(
            self.costs,
            num_running=self.num_running,
            num_asked=num_drafted,
            num_drafted=num_drafted,
            num_rows=num_drafted + self.num_running,
            num_committed=num_committed,
            draft_s=draft_s,
            verify_s=verify_s,
        )
        self._requests = [self._after(*one) for one in zip(self._requests, lengths, accepted, strict=True)]
        self.tokens += num_committed
        self.seconds += draft_s + verify_s
        self.chosen.append(lengths[0])

    def _accepted(self, index: int, length: int) -> int:
        flips = (keyed_uniform(draw_key(index, self.num_rounds, Purpose.ACCEPT), slot) for slot in range(length))
        return next((slot for slot, flip in enumerate(flips) if flip >= self.rate), length)

    def _after(self, request: tuple[LengthState, int], length: int, accepted: int) -> tuple[LengthState, int]:
        current, tokens = request
        if length:
            self.pooled = observe_verdict(self.pooled, length, accepted, PARAMS, is_pooled=True)
        if tokens + accepted + 1 >= self.answer_tokens:
            return self.pooled.successor(), 0
        return observe_verdict(current, length, accepted, PARAMS), tokens + accepted + 1

    def fixed_speeds(self) -> list[float]:
        """Tokens per second of always drafting 0, 1, 2 .. tokens."""
        taus = [sum(self.rate**slot for slot in range(length + 1)) for length in range(PARAMS.max_length + 1)]
        running = self.num_running
        return [
            running * tau / (self.verify_s(running * (length + 1)) + self.draft_s * (length > 0))
            for length, tau in enumerate(taus)
        ]


MACHINES: dict[str, Callable[[int], float]] = {
    "verification is free": lambda rows: 1.0,
    "every row costs": lambda rows: 0.2 + 0.8 * rows,
    "a step after the first row": lambda rows: 1.0 if rows == 1 else 1.7,
    "a knee at four rows": lambda rows: 1.0 if rows <= 4 else 0.25 * rows,
    "a slow rise": lambda rows: 1.0 + 0.03 * rows,
}
NUM_BEGINNING = 100


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("rate", [0.0, 0.3, 0.6, 0.9])
@pytest.mark.parametrize(("num_running", "draft_s"), [(1, 0.02), (1, 0.5), (6, 0.2), (16, 0.2)])
def test_the_policy_is_never_slower_than_plain_and_near_the_best_fixed_length(
    machine: str, rate: float, num_running: int, draft_s: float
) -> None:
    """Within the share that trials may cost, once the costs at its load are known."""
    lane = Machine(MACHINES[machine], draft_s, rate, num_running).run(NUM_BEGINNING)
    lane.tokens, lane.seconds = 0, 0.0
    lane.run(1500 if num_running == 1 else 250)
    fixed = lane.fixed_speeds()
    assert lane.tokens / lane.seconds > 0.98 * fixed[0]
    assert lane.tokens / lane.seconds > 0.85 * max(fixed)


@pytest.mark.parametrize("machine", MACHINES)
@pytest.mark.parametrize("rate", [0.0, 0.5, 0.8])
@pytest.mark.parametrize("num_running", [1, 8])
def test_the_best_length_is_found_within_two_hundred_rounds(machine: str, rate: float, num_running: int) -> None:
    lane = Machine(MACHINES[machine], 0.1, rate, num_running).run(200)
    lane.chosen.clear()
    lane.run(200)
    fixed = lane.fixed_speeds()
    good = [length for length in lane.chosen if fixed[length] > 0.8 * max(fixed)]
    assert len(good) > 0.8 * len(lane.chosen)


def test_drafting_begins_again_when_drafts_begin_to_stand() -> None:
    lane = Machine(MACHINES["a slow rise"], 0.1, 0.0, num_running=4).run(600)
    lane.chosen.clear()
    lane.run(100)
    assert sum(length > 0 for length in lane.chosen) < 10
    lane.rate = 0.9
    lane.run(1200)
    lane.chosen.clear()
    lane.run(100)
    assert sum(length > 0 for length in lane.chosen) > 90


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
