"""How many tokens to draft next: fixed, or what pays most by measured acceptance and measured cost.

Pure policy: choose_length reads inputs, state and params; the observe functions return the state after a round. With
``survival[i]`` the probability that the first i + 1 drafts stand, drafting K tokens promises::

    tau(K)      1 + survival[0] + .. + survival[K-1]
    speedup(K)  tau(K) * plain round / (draft K + verify K + 1 rows)

Draft cost, verify cost and overhead are inside the measured times of a round (S = tau / (1 + c_d + c_v + c_o)).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from itertools import accumulate
from operator import mul

from flashsd_ray.types import DraftBlock

# Moving averages of (size, seconds), rising in size. Sizes between two powers of two share an average: fine enough to
# show where verification stops being free, coarse enough that every average is fed often.
Averages = tuple[tuple[float, float], ...]

# A clock may say zero; a speed must not be infinite.
_SHORTEST_S = 1e-9


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthParams:
    """What does not change while the engine runs."""

    max_length: int  # most tokens the drafter can draft
    fixed_length: int | None = None  # drafted always, unless the drafter cannot; None: adapt
    min_speedup: float = 1.05  # below it nothing is drafted; the margin keeps noise from switching to and fro
    smoothing: float = 0.1  # weight of a new observation in every moving average
    first_rate: float = 0.7  # acceptance assumed before any is seen: high, so that drafting gets its chance
    # Rounds between two trials of the road not taken; one in so many rounds costs about one percent.
    trial_interval: int = 64


@dataclass(frozen=True, slots=True, kw_only=True)
class RoundCosts:
    """Measured seconds of a round's two halves, by size."""

    draft_s: Averages = ()  # by drafted tokens
    verify_s: Averages = ()  # by verified rows


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthState:
    """What one request has shown so far."""

    # [i]: how often draft i + 1 stands when those before it do. Conditional rates, because a short block says nothing
    # about the positions after it and a rejected draft says nothing about those behind.
    rates: tuple[float, ...] = ()

    def survival(self, params: LengthParams) -> tuple[float, ...]:  # length max_length, falling
        """Probability that the first 1, 2 .. drafts all stand; unseen positions behave like the last seen one."""
        last = self.rates[-1] if self.rates else params.first_rate
        rates = (*self.rates, *(last,) * (params.max_length - len(self.rates)))
        return tuple(accumulate(rates[: params.max_length], mul))


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthInputs:
    """What the round to come looks like."""

    num_running: int = 1  # requests decoded together, this one included
    lane_round: int = 1  # rounds that all requests together have run, so that trials of a lane coincide
    costs: RoundCosts = field(default_factory=RoundCosts)


def choose_length(inputs: LengthInputs, state: LengthState, params: LengthParams) -> int:
    """Tokens to draft in the next round: the length of highest expected speed-up, or 0 where drafting does not pay."""
    if params.fixed_length is not None:
        return min(params.fixed_length, params.max_length)
    if params.max_length == 0:
        return 0
    speedups = [expected_speedup(length, inputs, state, params) for length in range(1, params.max_length + 1)]
    best = max(range(len(speedups)), key=speedups.__getitem__)
    pays = speedups[best] >= params.min_speedup
    is_trial = inputs.lane_round % params.trial_interval == 0
    return best + 1 if pays != is_trial else 0


def expected_speedup(length: int, inputs: LengthInputs, state: LengthState, params: LengthParams) -> float:
    """Expected tokens per second of drafting so many tokens, over plain decoding; tau when no cost is known yet."""
    tau = 1.0 + sum(state.survival(params)[:length])
    plain_s = predict_s(inputs.costs.verify_s, inputs.num_running)
    verify_s = predict_s(inputs.costs.verify_s, inputs.num_running * (length + 1))
    draft_s = predict_s(inputs.costs.draft_s, inputs.num_running * length)
    if plain_s is None or verify_s is None:
        return tau
    return tau * plain_s / max(verify_s + (draft_s or 0.0), _SHORTEST_S)


def observe_verdict(state: LengthState, num_drafted: int, num_accepted: int, params: LengthParams) -> LengthState:
    """The state after a block of which so many drafts stood."""
    rates = list(state.rates)
    for position in range(min(num_drafted, num_accepted + 1)):
        if position == len(rates):
            rates.append(rates[-1] if rates else params.first_rate)
        rates[position] += params.smoothing * (float(position < num_accepted) - rates[position])
    return replace(state, rates=tuple(rates))


def observe_round(
    costs: RoundCosts,
    params: LengthParams,
    *,
    num_drafted: int,  # by all requests together
    num_rows: int,  # verified for all requests together
    draft_s: float,
    verify_s: float,
) -> RoundCosts:
    """The costs after a round that took so long; rounds with prefill in them should not be shown."""
    return RoundCosts(
        draft_s=_observe(costs.draft_s, num_drafted, draft_s, params.smoothing) if num_drafted else costs.draft_s,
        verify_s=_observe(costs.verify_s, num_rows, verify_s, params.smoothing),
    )


def predict_s(averages: Averages, size: int) -> float | None:
    """Seconds expected for a size, between the nearest measured ones; None before the first measurement.

    Outside the measured sizes the nearest one is taken. That is hopeful for larger sizes, which are tried then and
    measured.
    """
    if not averages:
        return None
    below = max((point for point in averages if point[0] <= size), default=averages[0])
    above = min((point for point in averages if point[0] >= size), default=averages[-1])
    if below[0] == above[0]:
        return below[1]
    share = (size - below[0]) / (above[0] - below[0])
    return below[1] + share * (above[1] - below[1])


def trim_to_confidence(block: DraftBlock, inputs: LengthInputs, params: LengthParams) -> DraftBlock:
    """The block without the tail that costs more to verify than its confidence promises.

    A block with a proposal is left whole: where the cut depends on the drafts that were drawn, what is left no longer
    has the proposal's distribution, and the rejection rule would no longer be lossless.
    """
    adapts = params.fixed_length is None and bool(inputs.costs.verify_s)
    if block.confidence is None or block.proposal is not None or not adapts:
        return block
    survival: list[float] = list(accumulate(block.confidence, mul))
    spent_s = predict_s(inputs.costs.draft_s, inputs.num_running * len(survival)) or 0.0

    def tokens_per_s(length: int) -> float:
        verify_s = predict_s(inputs.costs.verify_s, inputs.num_running * (length + 1)) or 0.0
        return (1.0 + sum(survival[:length])) / max(spent_s + verify_s, _SHORTEST_S)

    length = max(range(len(survival) + 1), key=tokens_per_s)
    return replace(block, token_ids=block.token_ids[:length], confidence=block.confidence[:length])


def _observe(averages: Averages, size: int, seconds: float, smoothing: float) -> Averages:
    """The averages with the one that the size belongs to moved towards the measurement."""
    by_bucket = {_bucket(point[0]): point for point in averages}
    old_size, old_seconds = by_bucket.get(_bucket(size), (float(size), seconds))
    moved = old_size + smoothing * (size - old_size), old_seconds + smoothing * (seconds - old_seconds)
    return tuple(point for _, point in sorted({**by_bucket, _bucket(size): moved}.items()))


def _bucket(size: float) -> int:
    return math.ceil(math.log2(size))
