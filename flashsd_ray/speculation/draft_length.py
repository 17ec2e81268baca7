"""How many tokens to draft next: fixed, or what pays most by measured acceptance and measured cost.

Pure policy: choose_length reads inputs, state and params; observe_verdict returns the state after a round. With
``survival[i]`` the probability that the first i + 1 drafts stand, drafting K tokens promises::

    tau(K)      1 + survival[0] + .. + survival[K-1]
    speedup(K)  tau(K) * plain round / (plain round + drafting K + what verifying K adds)

Draft cost, verify cost and overhead are inside the measured times of a round (S = tau / (1 + c_d + c_v + c_o)). Promises
are checked: where rounds with drafts brought less than plain ones would have, at this load, nothing is drafted but trials,
and trials are as rare as keeps their expected loss below a share of the time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import accumulate
from operator import mul

from flashsd_ray.speculation.round_costs import (
    SHORTEST_S,
    RoundCosts,
    octave,
    plain_shares,
    round_seconds,
    stage_seconds,
)
from flashsd_ray.types import DraftBlock

# Verdicts that the rate assumed at first counts for, and one.
_FIRST_RATE_WEIGHT = 3.0
# Verdicts of its own after which a request counts as much as those before it.
_EARLIER_WEIGHT = 4
# Rounds between two trials of lengths whose cost under the present load was never measured; plain comes first.
_CALIBRATION_INTERVAL = 8


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthParams:
    """What does not change while the engine runs."""

    max_length: int  # most tokens the drafter can draft
    fixed_length: int | None = None  # drafted always, unless the drafter cannot; None: adapt
    min_speedup: float = 1.05  # below it nothing is drafted; the margin keeps noise from switching to and fro
    first_rate: float = 0.7  # acceptance assumed before any is seen: high, so that drafting gets its chance
    rate_smoothing: float = 0.03  # weight of a verdict: more, and a run of bad luck would close the gate
    pool_smoothing: float = 0.01  # the same for what new requests are assumed to be like: all that came before
    trial_interval: int = 32  # fewest rounds between two trials of the road not taken
    trial_share: float = 0.01  # of the time that trials may cost


@dataclass(frozen=True, kw_only=True)
class LengthState:
    """What one request has shown so far."""

    # [i]: how often draft i + 1 stands when those before it do. Conditional rates, because a short block says nothing
    # about the positions after it and a rejected draft says nothing about those behind.
    rates: tuple[float, ...] = ()
    num_seen: tuple[int, ...] = ()  # [i]: verdicts behind rates[i]

    def survival(self, params: LengthParams) -> tuple[float, ...]:  # length max_length, falling
        """Probability that the first 1, 2 .. drafts all stand; unseen positions behave like the last seen one."""
        last = self.rates[-1] if self.rates else params.first_rate
        rates = (*self.rates, *(last,) * (params.max_length - len(self.rates)))
        return tuple(accumulate(rates[: params.max_length], mul))

    def taus(self, params: LengthParams) -> tuple[float, ...]:  # length max_length + 1, rising
        """Tokens that a round is expected to commit with 0, 1, 2 .. drafts."""
        if len(self.rates) == params.max_length:
            return self._seen_taus
        return tuple(accumulate(self.survival(params), initial=1.0))

    @cached_property
    def _seen_taus(self) -> tuple[float, ...]:
        # A request that is not drafted for is asked round after round what it promises, and its answer stays the same.
        return tuple(accumulate(accumulate(self.rates, mul), initial=1.0))

    def successor(self) -> LengthState:
        """What a new request is assumed to be like where this is what all those before it have shown."""
        return LengthState(rates=self.rates, num_seen=(_EARLIER_WEIGHT,) * len(self.rates))


@dataclass(frozen=True, slots=True, kw_only=True)
class LengthInputs:
    """What the round to come looks like."""

    lane_round: int  # rounds run for all requests together, so that their trials coincide
    num_running: int = 1  # requests decoded together, this one included
    num_unread: int = 0  # of these: whose prompt the drafter would have to read first
    costs: RoundCosts = field(default_factory=RoundCosts)


def choose_length(inputs: LengthInputs, state: LengthState, params: LengthParams) -> int:
    """Tokens to draft in the next round: the length of highest expected speed-up, or 0 where drafting does not pay."""
    if params.fixed_length is not None:
        return min(params.fixed_length, params.max_length)
    gain = inputs.costs.gain_at(inputs.num_running)
    disappoints = gain is not None and gain < 1.0
    trial = _calibration(inputs, params)
    is_time_to_try = trial is None and inputs.lane_round % params.trial_interval == 0
    if disappoints and not is_time_to_try:
        return trial or 0  # for all requests of a round, in the rounds that should cost nothing more than plain ones
    speedups = expected_speedups(inputs, state, params)
    highest = max(speedups)
    promises = highest >= params.min_speedup
    if not (promises or is_time_to_try):
        return trial or 0
    best = speedups.index(highest)
    pays = promises and not disappoints
    if is_time_to_try:
        # Where a promise was not kept, that one is tried again, at the speed that it had.
        lengths = _ladder(params) if pays else [best] if promises else _ladder(params)[1:]
        kept = gain if promises and disappoints and gain else None
        trial = _trial(inputs, params, lengths, _losses(inputs, state, params, speedups, kept))
    if trial is not None:
        return trial
    return best if pays else 0


def expected_speedups(
    inputs: LengthInputs, state: LengthState, params: LengthParams
) -> list[float]:  # length max_length + 1
    """Expected tokens per second of drafting 0, 1, 2 .. tokens, over plain decoding; tau while no cost is known."""
    return list(map(mul, state.taus(params), plain_shares(inputs.num_running, inputs.costs, params.max_length)))


def observe_verdict(
    state: LengthState,
    num_drafted: int,
    num_accepted: int,
    params: LengthParams,
    *,
    is_pooled: bool = False,  # the state is that of many requests
) -> LengthState:
    """The state after a block of which so many drafts stood; an empty block says nothing."""
    smoothing = params.pool_smoothing if is_pooled else params.rate_smoothing
    rates, num_seen = list(state.rates), list(state.num_seen)
    for position in range(min(num_drafted, num_accepted + 1)):
        if position == len(rates):
            rates.append(rates[-1] if rates else params.first_rate)
            num_seen.append(0)
        # The first verdicts weigh as in a plain mean, so that a request finds its length within some rounds.
        weight = max(smoothing, 1.0 / (num_seen[position] + _FIRST_RATE_WEIGHT))
        rates[position] += weight * (float(position < num_accepted) - rates[position])
        num_seen[position] += 1
    for position in range(num_drafted or len(rates), len(rates)):
        # A position that is not drafted any more slowly gets the hope of the one before it, so that it is tried again.
        rates[position] += smoothing * (rates[position - 1] - rates[position])
    return LengthState(rates=tuple(rates), num_seen=tuple(num_seen))


def trim_to_confidence(block: DraftBlock, inputs: LengthInputs, params: LengthParams) -> DraftBlock:
    """The block without the tail that costs more to verify than its confidence promises.

    A block with a proposal is left whole: where the cut depends on the drafts that were drawn, what is left no longer
    has the proposal's distribution, and the rejection rule would no longer be lossless.
    """
    adapts = params.fixed_length is None and inputs.costs.is_known
    if block.confidence is None or block.proposal is not None or not adapts:
        return block
    taus = accumulate(accumulate(block.confidence, mul), initial=1.0)
    # The draft is paid for already, so every length bears the same part of it.
    drafts_s, verifies_s = stage_seconds(inputs.num_running, inputs.costs, params.max_length)
    spent_s = drafts_s[len(block.token_ids)]
    gains = [tau / max(spent_s + verify_s, SHORTEST_S) for tau, verify_s in zip(taus, verifies_s, strict=False)]
    length = max(range(len(gains)), key=gains.__getitem__)
    if length == len(block.token_ids):
        return block
    return replace(block, token_ids=block.token_ids[:length], confidence=block.confidence[:length])


def _ladder(params: LengthParams) -> list[int]:
    """Lengths whose costs lie in different averages."""
    return [2**step - 1 for step in range(params.max_length.bit_length() + 1) if 2**step - 1 <= params.max_length]


def _calibration(inputs: LengthInputs, params: LengthParams) -> int | None:
    """The next length whose cost at this load was never measured, if it is its turn; plain rounds come first."""
    if inputs.lane_round % _CALIBRATION_INTERVAL != 1:
        return None
    costs, num_running = inputs.costs, inputs.num_running
    if not any(octave(average.size) == octave(num_running) for average in costs.plain_s):
        return 0
    lengths = _ladder(params)[1:]
    return next((length for length in lengths if octave(num_running * (length + 1)) not in costs.asked), None)


def _trial(inputs: LengthInputs, params: LengthParams, lengths: list[int], losses: list[float]) -> int | None:
    """The length to try in this round for the sake of knowledge, if its loss is earned by now."""
    if not lengths:
        return None
    cycle, place = divmod(inputs.lane_round // params.trial_interval, len(lengths))
    wait = max(1.0, losses[lengths[place]] / (params.trial_share * params.trial_interval))
    # Powers of two, so that a trial that is put off still falls into a round in which others try as well.
    return lengths[place] if cycle % 2 ** math.ceil(math.log2(wait)) == 0 else None


def _losses(
    inputs: LengthInputs,
    state: LengthState,
    params: LengthParams,
    speedups: list[float],
    kept: float | None,  # the speed-up that rounds with drafts had, where it is not the one expected
) -> list[float]:  # length max_length + 1, in plain rounds
    """What a round of each length takes longer than its tokens would take on the best road, prompts to be read included."""
    taus = state.taus(params)
    plain_s = round_seconds(inputs.num_running, inputs.costs, params.max_length)[0]
    reading = inputs.num_unread * inputs.costs.reading_s / plain_s
    if kept is not None:
        losses = [tau / kept - tau for tau in taus]
    else:
        losses = [tau / speedup - tau / max(speedups) for tau, speedup in zip(taus, speedups, strict=True)]
    return [losses[0], *(loss + reading for loss in losses[1:])]
