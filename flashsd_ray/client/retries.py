"""When a failed call is made again: bounded, ever slower, never all clients at once, never past the deadline."""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from flashsd_ray.client.status import TRANSIENT
from flashsd_ray.errors import ConfigError, DeadlineError, FlashSDError, InvalidRequestError


@dataclass(frozen=True, slots=True, kw_only=True)
class Retries:
    """How often a call is made, and how long is waited in between (exponential backoff with full jitter)."""

    attempts: int = 5  # the first one included
    first_s: float = 0.1  # longest wait after the first failure; doubled with each one
    longest_s: float = 5.0  # what that grows to
    patience_s: float = 30.0  # a server that asks for a longer wait is not waited for

    def __post_init__(self) -> None:
        """Raises ConfigError when a value is out of range."""
        if self.attempts < 1 or min(self.first_s, self.longest_s, self.patience_s) < 0:
            raise ConfigError("retries need at least one attempt and no negative time")

    def wait_s(
        self,
        num_failures: int,
        retry_after_s: float,  # what the server asks for
        uniform: Callable[[float, float], float],
    ) -> float:
        """How long to wait after so many failures in a row."""
        # The exponent is bounded, so that many failures do not overflow a float.
        ceiling_s = min(self.longest_s, self.first_s * 2.0 ** min(num_failures - 1, 64))
        return retry_after_s + uniform(0.0, ceiling_s)


@dataclass(frozen=True, slots=True, kw_only=True)
class Timing:
    """Where a client gets its time and its chance from."""

    clock: Callable[[], float] = time.monotonic  # seconds
    sleep: Callable[[float], Awaitable[None]] = asyncio.sleep
    uniform: Callable[[float, float], float] = random.uniform


class Attempts:
    """The attempts at one call, within one time limit."""

    def __init__(self, retries: Retries, timing: Timing, timeout_s: float | None) -> None:
        """Raises InvalidRequestError when the time limit is not positive."""
        if timeout_s is not None and not timeout_s > 0:
            raise InvalidRequestError(f"timeout_s must be positive, got {timeout_s}")
        self._retries = retries
        self._timing = timing
        self._timeout_s = timeout_s
        self._end_s = None if timeout_s is None else timing.clock() + timeout_s
        self._num_failures = 0

    def left_s(self) -> float | None:
        """Time that is left for the call; None when there is no limit.

        Raises:
            DeadlineError: none is left.
        """
        if self._end_s is None:
            return None
        left_s = self._end_s - self._timing.clock()
        if left_s <= 0:
            raise DeadlineError(f"no answer within {self._timeout_s:g} s")
        return left_s

    async def failed(self, error: FlashSDError) -> None:
        """The time until the next attempt is over.

        Raises:
            FlashSDError: the error, when there should be no other attempt.
        """
        self._num_failures += 1
        if not isinstance(error, TRANSIENT) or self._num_failures >= self._retries.attempts:
            raise error
        wait_s = self._retries.wait_s(self._num_failures, error.retry_after_s, self._timing.uniform)
        left_s = self.left_s()
        if error.retry_after_s > self._retries.patience_s or (left_s is not None and wait_s >= left_s):
            raise error
        await self._timing.sleep(wait_s)

    def succeeded(self) -> None:
        """Failures before this do not count any more."""
        self._num_failures = 0
