"""How often one caller may come, and how many of its requests may be open: pure policy.

The rate is the generic cell rate algorithm, a token bucket whose whole state is one moment: the time until which the
requests so far have used up the rate. A request is let in while that moment lies less than a burst ahead.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from flashsd_ray.errors import OverloadedError

# Waiting for exactly the time that was asked for must be enough, although clocks are rounded.
_ROUNDING_S = 1e-6
# Nobody knows when an answer will end; a caller may well ask again after so long.
_SLOT_RETRY_S = 1.0


@dataclass(frozen=True, slots=True, kw_only=True)
class LimitParams:
    """What one caller may do."""

    requests_per_minute: float = 0.0  # 0: as often as it likes
    burst_requests: int = 1  # that may come at once after a rest
    concurrent_requests: int = 0  # 0: as many as it likes

    @property
    def interval_s(self) -> float:
        """Time between two requests at the full rate; 0 where there is no limit."""
        return 60.0 / self.requests_per_minute if self.requests_per_minute else 0.0


@dataclass(frozen=True, slots=True, kw_only=True)
class CallerState:
    """What one caller has done so far."""

    num_open: int = 0
    used_until_s: float = float("-inf")  # the rate is used up until then


def wait_s(state: CallerState, params: LimitParams, now_s: float) -> float:
    """How long it takes until the rate allows one more request; 0: it does now."""
    if not params.interval_s:
        return 0.0
    wait = state.used_until_s - (params.burst_requests - 1) * params.interval_s - now_s
    return wait if wait > _ROUNDING_S else 0.0


def entered(state: CallerState, params: LimitParams, now_s: float) -> CallerState:
    """The state in which one more request is open and counted; a refused request counts for nothing.

    Raises:
        OverloadedError: too many of the caller's requests are open, or they come too fast.
    """
    rate_wait_s = wait_s(state, params, now_s)
    if params.concurrent_requests and state.num_open >= params.concurrent_requests:
        raise OverloadedError(
            f"{state.num_open} requests are open, serving.concurrent_requests allows {params.concurrent_requests}",
            retry_after_s=max(_SLOT_RETRY_S, rate_wait_s),
        )
    if rate_wait_s:
        raise OverloadedError(
            f"serving.requests_per_minute allows {params.requests_per_minute:g}, the next in {rate_wait_s:.3g} s",
            retry_after_s=rate_wait_s,
        )
    used_until_s = max(state.used_until_s, now_s) + params.interval_s
    return CallerState(num_open=state.num_open + 1, used_until_s=used_until_s)


def left(state: CallerState) -> CallerState:
    """The state in which one request less is open."""
    return replace(state, num_open=state.num_open - 1)
