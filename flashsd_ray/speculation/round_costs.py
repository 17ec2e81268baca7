"""What rounds take on this machine, half by half, and what drafting has brought for it.

Pure: the observe function returns the costs after a round. A plain round is the measure of everything: what drafts cost
is what they add to it, so that what was learnt with few requests holds for many.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from typing import NamedTuple


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
SHORTEST_S = 1e-9
# A time that is so many times the average is counted as that: a process that was stopped for a moment says nothing.
_LARGEST_STEP = 2.0
# Rounds with drafts that a gain must rest on before it counts.
_FEWEST_ROUNDS = 3.0
# Weight of a measured time: more would follow the noise, less lag behind the load.
_COST_SMOOTHING = 0.1
# Weight of a round in what drafting has brought.
_GAIN_SMOOTHING = 0.1


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


def observe_round(
    costs: RoundCosts,
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
    load, num_verified = octave(num_running), num_rows - num_running
    draft_table, gains = costs.draft_s, costs.gains
    if num_drafted:
        drafting_s = _calm(draft_s, predict_s(_drafts_at(load, costs), num_drafted))
        spent_s = drafting_s + _calm(verify_s, _verify_s(num_running, num_verified, costs)) + reading_s
        gains = _observe_gain(gains, load, num_committed / num_running, spent_s)
        averages = _observe(draft_table.get(load, ()), num_drafted, draft_s)
        draft_table = {**draft_table, load: averages}
    plain_s, extra_s = costs.plain_s, costs.extra_s
    if not num_verified:
        plain_s = _observe(plain_s, num_running, verify_s, num_steps=_PLAIN_STEPS)
    elif plain_s:
        floor_s = predict_s(plain_s, num_running) or 0.0
        extra_s = _observe(extra_s, num_verified, verify_s - floor_s, floor_s=floor_s)
    return RoundCosts(
        draft_s=draft_table,
        plain_s=plain_s,
        extra_s=extra_s,
        gains=gains,
        reading_s=_observe_reading(costs.reading_s, num_read, reading_s),
        asked=costs.asked | {octave(num_running + num_asked)},
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
def stage_seconds(
    num_running: int, costs: RoundCosts, max_length: int
) -> tuple[tuple[float, ...], tuple[float, ...]]:  # length max_length + 1 each
    """Seconds of drafting and of verifying where every request drafts 0, 1, 2 .. tokens; 0 while nothing was measured."""
    lengths = range(max_length + 1)
    averages = _drafts_at(octave(num_running), costs)
    drafts_s = (predict_s(averages, num_running * length) if length else None for length in lengths)
    verifies_s = (_verify_s(num_running, num_running * length, costs) for length in lengths)
    return tuple(seconds or 0.0 for seconds in drafts_s), tuple(seconds or 0.0 for seconds in verifies_s)


@lru_cache(maxsize=16)
def round_seconds(num_running: int, costs: RoundCosts, max_length: int) -> tuple[float, ...]:  # length max_length + 1
    """Seconds of a whole round by drafts of each request; all the same while nothing was measured."""
    if not costs.is_known:
        return (1.0,) * (max_length + 1)
    stages_s = zip(*stage_seconds(num_running, costs, max_length), strict=True)
    return tuple(max(draft_s + verify_s, SHORTEST_S) for draft_s, verify_s in stages_s)


@lru_cache(maxsize=16)
def plain_shares(num_running: int, costs: RoundCosts, max_length: int) -> tuple[float, ...]:  # length max_length + 1
    """What part of a round is a plain one, by drafts of each request."""
    seconds = round_seconds(num_running, costs, max_length)
    return tuple(seconds[0] / spent_s for spent_s in seconds)


@lru_cache(maxsize=16)
def _gain_at(num_running: int, costs: RoundCosts) -> float | None:
    gain = next((gain for gain in costs.gains if gain.load == octave(num_running)), None)
    plain_s = predict_s(costs.plain_s, num_running)
    if gain is None or plain_s is None or gain.num_rounds < _FEWEST_ROUNDS:
        return None
    return max(gain.plain_rounds * plain_s, SHORTEST_S) / max(gain.spent_s, SHORTEST_S)


def _observe(
    averages: Averages,
    size: int,
    seconds: float,
    *,
    num_steps: int = 1,  # averages for each power of two
    floor_s: float = 0.0,  # that come on top of all of them
) -> Averages:
    """The averages with the one that the size belongs to moved towards the measurement."""
    by_step = {octave(average.size, num_steps): average for average in averages}
    old = by_step.get(octave(size, num_steps), Average(float(size), seconds, 0))
    weight = max(_COST_SMOOTHING, 1.0 / (old.num_seen + 1))  # the first ones as in a plain mean
    calm_s = _calm(floor_s + seconds, floor_s + old.seconds) - floor_s
    moved = Average(
        old.size + weight * (size - old.size), old.seconds + weight * (calm_s - old.seconds), old.num_seen + 1
    )
    return tuple(sorted({**by_step, octave(size, num_steps): moved}.values()))


def _observe_gain(gains: tuple[Gain, ...], load: int, plain_rounds: float, spent_s: float) -> tuple[Gain, ...]:
    """The gains with one more round at this load."""
    by_load = {gain.load: gain for gain in gains}
    old, kept = by_load.get(load, Gain(load, 0.0, 0.0, 0.0)), 1.0 - _GAIN_SMOOTHING
    rounds = kept * old.plain_rounds + plain_rounds
    moved = Gain(load, rounds, kept * old.spent_s + spent_s, kept * old.num_rounds + 1.0)
    return tuple({**by_load, load: moved}.values())


def _observe_reading(average_s: float, num_read: int, seconds: float) -> float:
    if not num_read:
        return average_s
    each_s = seconds / num_read
    return each_s if not average_s else average_s + _COST_SMOOTHING * (_calm(each_s, average_s) - average_s)


def _calm(seconds: float, usual_s: float | None) -> float:
    return seconds if usual_s is None else min(seconds, _LARGEST_STEP * max(usual_s, SHORTEST_S))


def octave(size: float, num_steps: int = 1) -> int:
    """Which power of two, or which of so many parts of one, a size lies below."""
    return math.ceil(num_steps * math.log2(size))
