"""How many tokens to draft next: fixed, or what pays most by measured acceptance and measured cost.

Pure policy: choose_length reads inputs, state and params; the observe functions return the state after a round. With
``survival[i]`` the probability that the first i + 1 drafts stand, drafting K tokens promises::

    tau(K)      1 + survival[0] + .. + survival[K-1]
    speedup(K)  tau(K) * plain round / (plain round + drafting K + what verifying K adds)

Draft cost, verify cost and overhead are inside the measured times of a round (S = tau / (1 + c_d + c_v + c_o)). Promises
are checked: where rounds with drafts brought less than plain ones would have, at this load, nothing is drafted but trials,
and trials are as rare as keeps their expected loss below a share of the time.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from itertools import accumulate
from operator import mul
from typing import NamedTuple

from flashsd_ray.types import DraftBlock


class Average(NamedTuple):
    """A moving average of the seconds that some sizes took."""

    size: float
    seconds: float
    num_seen: int = 1


# Rising in size. Sizes between two powers of two share an average: fine enough to show where verification stops being
# free, coarse enough that every average is fed often.
Averages = tuple[Average, ...]
# Averages for each power of two in which plain rounds are kept, which are many: all that drafting brings is held against
# them, and with one a full batch of 32 is taken for what 24 requests took.
_PLAIN_STEPS = 4

# A clock may say zero; a speed must not be infinite.
_SHORTEST_S = 1e-9
# Verdicts that the rate assumed at first counts for, and one.
_FIRST_RATE_WEIGHT = 3.0
# Verdicts of its own after which a request counts as much as those before it.
_EARLIER_WEIGHT = 4
# A time that is so many times the average is counted as that: a process that was stopped for a moment says nothing.
_LARGEST_STEP = 2.0
# Rounds with drafts that a gain must rest on before it counts.
_FEWEST_ROUNDS = 3.0
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
    cost_smoothing: float = 0.1  # weight of a measured time: more would follow the noise, less lag behind the load
    gain_smoothing: float = 0.1  # weight of a round in what drafting has brought
    trial_interval: int = 32  # fewest rounds between two trials of the road not taken
    trial_share: float = 0.01  # of the time that trials may cost


class Gain(NamedTuple):
    """What the late rounds with drafts brought at one load; sums in which a round counts less with every later one."""

    load: int  # which power of two the requests decoded together lie below
    plain_rounds: float  # that their tokens would have taken without drafts
    spent_s: float  # reading prompts included: who drafts must earn that as well
    num_rounds: float


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)  # looked up by what it is: a hash of all of it costs more
class RoundCosts:
    """Measured seconds of a round's two halves, by size, and what drafting has brought for them."""

    # By load, then by drafted tokens: eight requests with eight drafts each are cheaper than 32 with two.
    draft_s: Mapping[int, Averages] = field(default_factory=dict)
    plain_s: Averages = ()  # of rounds without drafts, by requests
    extra_s: Averages = ()  # what verifying drafts adds to a plain round of as many requests, by drafts
    gains: tuple[Gain, ...] = ()
    reading_s: float = 0.0  # of one prompt, before the drafter drafts for its request the first time
    # Rows that were asked for, in powers of two: a drafter that finds nothing to say is not asked again and again.
    asked: frozenset[int] = frozenset()

    @property
    def is_known(self) -> bool:
        """Whether any plain round was measured, against which all others are held."""
        return bool(self.plain_s)

    def gain_at(self, num_running: int) -> float | None:
        """How many times faster than plain decoding rounds with drafts were at this load; None where few were seen."""
        return _gain_at(num_running, self)


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
    return list(map(mul, state.taus(params), _plain_rounds(inputs.num_running, inputs.costs, params.max_length)))


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


def observe_round(
    costs: RoundCosts,
    params: LengthParams,
    *,
    num_running: int,  # requests in the round
    num_asked: int,  # tokens that the drafter was to draft for all requests together
    num_drafted: int,  # that it did draft
    num_rows: int,  # verified for all requests together
    num_committed: int,  # by all requests together
    draft_s: float,  # without reading prompts
    verify_s: float,
    num_read: int = 0,  # prompts that the drafter read
    reading_s: float = 0.0,  # what that took
) -> RoundCosts:
    """The costs after a round that took so long; rounds with prefill in them should not be shown."""
    load, num_verified = _bucket(num_running), num_rows - num_running
    draft_table, gains = costs.draft_s, costs.gains
    if num_drafted:
        drafting_s = _calm(draft_s, predict_s(_drafts_at(load, costs), num_drafted))
        spent_s = drafting_s + _calm(verify_s, _verify_s(num_running, num_verified, costs)) + reading_s
        gains = _observe_gain(gains, load, num_committed / num_running, spent_s, params)
        averages = _observe(draft_table.get(load, ()), num_drafted, draft_s, params)
        draft_table = {**draft_table, load: averages}
    plain_s, extra_s = costs.plain_s, costs.extra_s
    if not num_verified:
        plain_s = _observe(plain_s, num_running, verify_s, params, num_steps=_PLAIN_STEPS)
    elif plain_s:
        floor_s = predict_s(plain_s, num_running) or 0.0
        extra_s = _observe(extra_s, num_verified, verify_s - floor_s, params, floor_s=floor_s)
    return RoundCosts(
        draft_s=draft_table,
        plain_s=plain_s,
        extra_s=extra_s,
        gains=gains,
        reading_s=_observe_reading(costs.reading_s, num_read, reading_s, params.cost_smoothing),
        asked=costs.asked | {_bucket(num_running + num_asked)},
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
    adapts = params.fixed_length is None and inputs.costs.is_known
    if block.confidence is None or block.proposal is not None or not adapts:
        return block
    taus = accumulate(accumulate(block.confidence, mul), initial=1.0)
    # The draft is paid for already, so every length bears the same part of it.
    drafts_s, verifies_s = _stage_seconds(inputs.num_running, inputs.costs, params.max_length)
    spent_s = drafts_s[len(block.token_ids)]
    gains = [tau / max(spent_s + verify_s, _SHORTEST_S) for tau, verify_s in zip(taus, verifies_s, strict=False)]
    length = max(range(len(gains)), key=gains.__getitem__)
    if length == len(block.token_ids):
        return block
    return replace(block, token_ids=block.token_ids[:length], confidence=block.confidence[:length])


def _drafts_at(load: int, costs: RoundCosts) -> Averages:
    """What drafting took at the nearest load at which anything was drafted."""
    nearest = min(costs.draft_s, key=lambda known: abs(known - load), default=load)
    return costs.draft_s.get(nearest, ())


def _verify_s(num_running: int, num_drafts: int, costs: RoundCosts) -> float | None:
    """Seconds expected for verifying so many drafts; None before the first plain round, hopeful before the first drafts."""
    plain_s = predict_s(costs.plain_s, num_running)
    extra_s = predict_s(costs.extra_s, num_drafts) if num_drafts else None
    return plain_s if plain_s is None or extra_s is None else max(plain_s + extra_s, 0.0)


@lru_cache(maxsize=16)  # asked once for every request of a round, with the same answer
def _stage_seconds(
    num_running: int, costs: RoundCosts, max_length: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:  # length max_length + 1 each
    """Seconds of drafting and of verifying where every request drafts 0, 1, 2 .. tokens; 0 while nothing was measured."""
    lengths = range(max_length + 1)
    averages = _drafts_at(_bucket(num_running), costs)
    drafts_s = (predict_s(averages, num_running * length) if length else None for length in lengths)
    verifies_s = (_verify_s(num_running, num_running * length, costs) for length in lengths)
    return tuple(seconds or 0.0 for seconds in drafts_s), tuple(seconds or 0.0 for seconds in verifies_s)


@lru_cache(maxsize=16)
def _round_seconds(num_running: int, costs: RoundCosts, max_length: int) -> tuple[float, ...]:  # length max_length + 1
    """Seconds of a whole round by drafts of each request; all the same while nothing was measured."""
    if not costs.is_known:
        return (1.0,) * (max_length + 1)
    stages_s = zip(*_stage_seconds(num_running, costs, max_length), strict=True)
    return tuple(max(draft_s + verify_s, _SHORTEST_S) for draft_s, verify_s in stages_s)


@lru_cache(maxsize=16)
def _plain_rounds(num_running: int, costs: RoundCosts, max_length: int) -> tuple[float, ...]:  # length max_length + 1
    """What part of a round is a plain one, by drafts of each request."""
    seconds = _round_seconds(num_running, costs, max_length)
    return tuple(seconds[0] / spent_s for spent_s in seconds)


@lru_cache(maxsize=16)
def _gain_at(num_running: int, costs: RoundCosts) -> float | None:
    gain = next((gain for gain in costs.gains if gain.load == _bucket(num_running)), None)
    plain_s = predict_s(costs.plain_s, num_running)
    if gain is None or plain_s is None or gain.num_rounds < _FEWEST_ROUNDS:
        return None
    return max(gain.plain_rounds * plain_s, _SHORTEST_S) / max(gain.spent_s, _SHORTEST_S)


def _ladder(params: LengthParams) -> list[int]:
    """Lengths whose costs lie in different averages."""
    return [2**step - 1 for step in range(params.max_length.bit_length() + 1) if 2**step - 1 <= params.max_length]


def _calibration(inputs: LengthInputs, params: LengthParams) -> int | None:
    """The next length whose cost at this load was never measured, if it is its turn; plain rounds come first."""
    if inputs.lane_round % _CALIBRATION_INTERVAL != 1:
        return None
    costs, num_running = inputs.costs, inputs.num_running
    if not any(_bucket(average.size) == _bucket(num_running) for average in costs.plain_s):
        return 0
    lengths = _ladder(params)[1:]
    return next((length for length in lengths if _bucket(num_running * (length + 1)) not in costs.asked), None)


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
    plain_s = _round_seconds(inputs.num_running, inputs.costs, params.max_length)[0]
    reading = inputs.num_unread * inputs.costs.reading_s / plain_s
    if kept is not None:
        losses = [tau / kept - tau for tau in taus]
    else:
        losses = [tau / speedup - tau / max(speedups) for tau, speedup in zip(taus, speedups, strict=True)]
    return [losses[0], *(loss + reading for loss in losses[1:])]


def _observe(
    averages: Averages,
    size: int,
    seconds: float,
    params: LengthParams,
    *,
    num_steps: int = 1,  # averages for each power of two
    floor_s: float = 0.0,  # that come on top of all of them
) -> Averages:
    """The averages with the one that the size belongs to moved towards the measurement."""
    by_step = {_bucket(average.size, num_steps): average for average in averages}
    old = by_step.get(_bucket(size, num_steps), Average(float(size), seconds, 0))
    weight = max(params.cost_smoothing, 1.0 / (old.num_seen + 1))  # the first ones as in a plain mean
    calm_s = _calm(floor_s + seconds, floor_s + old.seconds) - floor_s
    moved = Average(
        old.size + weight * (size - old.size), old.seconds + weight * (calm_s - old.seconds), old.num_seen + 1
    )
    return tuple(sorted({**by_step, _bucket(size, num_steps): moved}.values()))


def _observe_gain(
    gains: tuple[Gain, ...], load: int, plain_rounds: float, spent_s: float, params: LengthParams
) -> tuple[Gain, ...]:
    """The gains with one more round at this load."""
    by_load = {gain.load: gain for gain in gains}
    old, kept = by_load.get(load, Gain(load, 0.0, 0.0, 0.0)), 1.0 - params.gain_smoothing
    rounds = kept * old.plain_rounds + plain_rounds
    moved = Gain(load, rounds, kept * old.spent_s + spent_s, kept * old.num_rounds + 1.0)
    return tuple({**by_load, load: moved}.values())


def _observe_reading(average_s: float, num_read: int, seconds: float, smoothing: float) -> float:
    if not num_read:
        return average_s
    each_s = seconds / num_read
    return each_s if not average_s else average_s + smoothing * (_calm(each_s, average_s) - average_s)


def _calm(seconds: float, usual_s: float | None) -> float:
    return seconds if usual_s is None else min(seconds, _LARGEST_STEP * max(usual_s, _SHORTEST_S))


def _bucket(size: float, num_steps: int = 1) -> int:
    return math.ceil(num_steps * math.log2(size))
