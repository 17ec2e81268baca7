"""When a request leaves a lane that says nothing: a pure rule, with time as an argument."""

from __future__ import annotations

LOOKS = 3  # that may stay without an answer; a message that is late is no loss
SHARE = 4  # of the time that a request has left, one part is spent on waiting for a sign of life


def is_quiet(silent_s: float, period_s: float) -> bool:
    """Whether a lane that was looked at every so often is given nothing new."""
    return silent_s > LOOKS * period_s


def leaves(
    silent_s: float,  # since the last sign of life
    left_s: float | None,  # until the request's deadline; None: it has none
    *,
    period_s: float,  # between two looks
    timeout_s: float,  # after which every request leaves
) -> bool:
    """Whether the request is decoded elsewhere: in time for its deadline, and never because of one late message."""
    if silent_s > timeout_s:
        return True
    return left_s is not None and is_quiet(silent_s, period_s) and silent_s > max(left_s, 0.0) / SHARE
