"""How fast frames may come on average: the generic cell rate algorithm, a token bucket in one number."""

from __future__ import annotations


class RateLimit:
    """Lets through ``per_second`` frames a second; up to one second's worth may come at once."""

    def __init__(self, per_second: float) -> None:
        self._interval_s = 1 / per_second
        self._burst_s = max(1.0, self._interval_s)
        self._due_s = 0.0  # when the last frame would have come at the allowed rate

    def wait_s(self, now_s: float) -> float:
        """Seconds that the next frame has to wait; it counts as come."""
        self._due_s = max(self._due_s, now_s) + self._interval_s
        return max(0.0, self._due_s - now_s - self._burst_s)
