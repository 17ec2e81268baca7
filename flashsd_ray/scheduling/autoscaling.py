"""How many replicas a load needs: one pure rule for lanes, encoders and edges.

A load is several signals, each a total over all replicas with what one replica should carry of it; the largest quotient
counts. Ups and downs are held apart by level (a band in which a number of replicas stays) and by time (a need must have
lasted), so that a steady load ends in a steady number.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Literal

Direction = Literal["up", "down", "none"]

BOUNDS = "bounds"  # the reason of a plan that only keeps minimum or maximum
IDLE = "idle"
SLACK = 1e-9  # sums of shares that ought to be whole


@dataclass(frozen=True, slots=True)
class Signal:
    """One kind of load."""

    name: str
    value: float  # over all replicas
    target: float  # what one replica should carry; positive

    @property
    def load(self) -> float:
        """The load in replicas."""
        return max(0.0, self.value) / self.target


@dataclass(frozen=True, slots=True, kw_only=True)
class Inputs:
    """What is known at one moment."""

    now_s: float
    signals: Sequence[Signal]
    is_urgent: bool = False  # somebody waits for longer than they should: ups come at once


@dataclass(frozen=True, slots=True, kw_only=True)
class Params:
    """How one role scales."""

    min_replicas: int = 1
    max_replicas: int = 1
    upscale_delay_s: float = 0.0  # more must have been needed for so long
    downscale_delay_s: float = 0.0  # fewer must have been enough for so long
    downscale_to_zero_delay_s: float = 0.0  # the last replica must have had nothing to do for so long
    smoothing_s: float = 0.0  # time constant of the mean that ups go by
    tolerance: float = 0.0  # part of its target that a replica may carry beyond it before another one is wanted


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What a plan remembers until the next one."""

    desired: int = 0
    smoothed: float = 0.0  # load in replicas
    seen_s: float | None = None
    above_since_s: float | None = None
    below_since_s: float | None = None
    most_needed: int = 0  # since ``below_since_s``
    idle_since_s: float | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """How many replicas there should be, and why."""

    desired: int
    direction: Direction
    reason: str  # name of the signal that decides, or BOUNDS or IDLE
    load: float  # in replicas


def plan(inputs: Inputs, state: State, params: Params) -> tuple[Plan, State]:
    """How many replicas there should be from now on, and what to remember.

    Never outside the bounds; of two loads the higher one never gets fewer; a number is only lowered to one that was
    enough for every load of the whole delay.
    """
    largest = max(inputs.signals, key=lambda signal: signal.load, default=None)
    load = largest.load if largest is not None else 0.0
    before = _bounded(state.desired, params)
    seen = _seen(inputs.now_s, load, replace(state, desired=before), params)
    desired = _raised(inputs, load, seen, params)
    if desired == before:
        desired = _lowered(inputs.now_s, seen, params)
    if desired != before:
        seen = replace(seen, desired=desired, above_since_s=None, below_since_s=None)
    direction: Direction = "up" if desired > state.desired else "down" if desired < state.desired else "none"
    is_forced = desired == before != state.desired
    reason = BOUNDS if is_forced else largest.name if largest is not None and load else IDLE
    return Plan(desired=desired, direction=direction, reason=reason, load=load), seen


def needed(load: float, params: Params) -> int:
    """Replicas that carry the load with none beyond its target, within the bounds."""
    return _bounded(math.ceil(load - SLACK), params)


def _bounded(replicas: int, params: Params) -> int:
    return min(max(replicas, params.min_replicas), params.max_replicas)


def _seen(now_s: float, load: float, state: State, params: Params) -> State:
    """The state after this moment's load, before anything is decided."""
    smoothed, enough = _smoothed(now_s, load, state, params), needed(load, params)
    is_above = _wanted(min(load, smoothed), params) > state.desired
    is_below = enough < state.desired
    return replace(
        state,
        seen_s=now_s,
        smoothed=smoothed,
        above_since_s=_since(state.above_since_s, now_s, is_above),
        below_since_s=_since(state.below_since_s, now_s, is_below),
        most_needed=enough if state.below_since_s is None else max(enough, state.most_needed),
        idle_since_s=_since(state.idle_since_s, now_s, load <= 0),
    )


def _smoothed(now_s: float, load: float, state: State, params: Params) -> float:
    if state.seen_s is None or params.smoothing_s <= 0:
        return load
    kept = math.exp(-max(0.0, now_s - state.seen_s) / params.smoothing_s)
    return kept * state.smoothed + (1 - kept) * load


def _since(before_s: float | None, now_s: float, holds: bool) -> float | None:
    return (now_s if before_s is None else before_s) if holds else None


def _wanted(load: float, params: Params) -> int:
    """Replicas of which none carries more than is tolerated."""
    return needed(load / (1 + params.tolerance), params)


def _raised(inputs: Inputs, load: float, state: State, params: Params) -> int:
    if inputs.is_urgent or state.desired == 0:  # from nothing, somebody waits for the very first replica
        return max(state.desired, _wanted(load, params))
    if state.above_since_s is None or inputs.now_s - state.above_since_s < params.upscale_delay_s:
        return state.desired
    return max(state.desired, _wanted(min(load, state.smoothed), params))


def _lowered(now_s: float, state: State, params: Params) -> int:
    if state.below_since_s is None:
        return state.desired
    if state.desired == 1:  # as in Ray Serve, only the last one goes to nothing
        has_rested = state.idle_since_s is not None and now_s - state.idle_since_s >= params.downscale_to_zero_delay_s
        return 0 if has_rested else 1
    if now_s - state.below_since_s < params.downscale_delay_s:
        return state.desired
    return max(1, state.most_needed)
