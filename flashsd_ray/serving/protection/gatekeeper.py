"""The one door that every edge asks before it takes a request in."""

from __future__ import annotations

import threading
import time
import weakref
from collections import deque
from collections.abc import Callable
from pathlib import Path
from types import TracebackType

from flashsd_ray.config import ServingConfig
from flashsd_ray.errors import AuthenticationError
from flashsd_ray.serving.protection.keys_file import KeysFile
from flashsd_ray.serving.protection.limits import CallerState, LimitParams, entered, left

_SCHEME = "bearer"


class Admission:
    """One request that was let in; it fills a slot of its caller until it is released, or nobody holds it any more."""

    def __init__(self, caller: str, give_back: Callable[[str], object]) -> None:
        self.caller = caller  # name of the key's owner; "" where no keys are configured
        # A request may be dropped before anything of it ran, and then no `finally` gives its slot back.
        self._release = weakref.finalize(self, give_back, caller)
        self._release.atexit = False

    def release(self) -> None:
        """The slot is free again, however often this is called."""
        self._release()

    def __enter__(self) -> Admission:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.release()


class Gatekeeper:
    """Knows callers by their keys and holds each to its limits; may be asked from any thread.

    Where no keys are configured everybody is let in, and the limits count for all callers together.
    """

    def __init__(self, config: ServingConfig, *, clock: Callable[[], float] = time.monotonic) -> None:
        """Raises ConfigError when the file of keys is missing or holds something else."""
        self._clock = clock
        self._keys = KeysFile(Path(config.keys_file), clock()) if config.keys_file else None
        self._params = LimitParams(
            requests_per_minute=config.requests_per_minute,
            burst_requests=config.burst_requests,
            concurrent_requests=config.concurrent_requests,
        )
        self._states: dict[str, CallerState] = {}
        # Slots come back whenever an admission is collected, possibly in a thread that holds the lock: no lock here.
        self._returned: deque[str] = deque()
        self._lock = threading.Lock()

    def admit(
        self,
        credentials: str | None,  # the Authorization header, or the key alone; None: the caller sent none
    ) -> Admission:
        """The request is counted and holds a slot of its caller.

        Raises:
            AuthenticationError: keys are configured and the credentials hold none of them.
            OverloadedError: the caller is at a limit; it says when to come again.
        """
        with self._lock:
            now_s = self._clock()
            caller = self._identify(credentials, now_s)
            self._take_back()
            self._states[caller] = entered(self._states.get(caller, CallerState()), self._params, now_s)
        return Admission(caller, self._returned.append)

    def identify(self, credentials: str | None) -> str:
        """The name of the caller, for a request that costs nothing and is not counted; "" without keys.

        Raises:
            AuthenticationError: keys are configured and the credentials hold none of them.
        """
        with self._lock:
            return self._identify(credentials, self._clock())

    def _identify(self, credentials: str | None, now_s: float) -> str:
        if self._keys is None:
            return ""
        keyring = self._keys.keyring(now_s)
        if not credentials:
            raise AuthenticationError("an API key is needed: send it as `Authorization: Bearer KEY`")
        owner = keyring.owner_of(_key_in(credentials))
        if owner is None:
            raise AuthenticationError("this API key is not known here")
        return owner

    def _take_back(self) -> None:
        while self._returned:
            caller = self._returned.popleft()
            self._states[caller] = left(self._states[caller])


def _key_in(credentials: str) -> str:
    scheme, _, rest = credentials.strip().partition(" ")
    return rest.strip() if scheme.lower() == _SCHEME else credentials.strip()
