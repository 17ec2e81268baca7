"""What was found to kill lanes or encoders, remembered for a while so that it kills no more."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import replace

from flashsd_ray.errors import QuarantinedError
from flashsd_ray.types import CaptionRequest, VisualInput

MAX_ENTRIES = 1024


class Quarantine:
    """Fingerprints of requests; the oldest gives way where there are too many."""

    def __init__(self, ttl_s: float, clock: Callable[[], float]) -> None:
        self._ttl_s = ttl_s
        self._clock = clock
        self._until_s: OrderedDict[str, float] = OrderedDict()

    def check(self, request: CaptionRequest) -> None:
        """Raises QuarantinedError when a request like this one is quarantined."""
        self._forget()
        # Fingerprints look at every pixel, so they are taken only where there is something to compare with.
        if self._until_s and fingerprint(request) in self._until_s:
            raise QuarantinedError("a request like this one was lost with every part that took it, and is refused")

    def add(self, request: CaptionRequest) -> str:
        """Requests like this one are refused from now on; returns what they have in common."""
        key = fingerprint(request)
        self.learn({key: self._ttl_s})
        return key

    def learn(self, left_s: Mapping[str, float]) -> None:
        """Requests with these fingerprints are refused for so long, and for as long as was known already."""
        for key, seconds in left_s.items():
            until_s = max(self._clock() + min(seconds, self._ttl_s), self._until_s.get(key, 0.0))
            self._until_s[key] = until_s
        # The first ones are the first to be forgotten.
        self._until_s = OrderedDict(sorted(self._until_s.items(), key=lambda item: item[1])[-MAX_ENTRIES:])

    def left_s(self) -> dict[str, float]:
        """For how long each fingerprint is still refused."""
        self._forget()
        return {key: until_s - self._clock() for key, until_s in self._until_s.items()}

    def _forget(self) -> None:
        while self._until_s and next(iter(self._until_s.values())) <= self._clock():
            self._until_s.popitem(last=False)


def fingerprint(request: CaptionRequest) -> str:
    """The same for requests that are told the same and answered in the same way, whatever seed they draw with."""
    content = hashlib.blake2b(digest_size=16)
    for turn in request.conversation.turns:
        for part in (turn.role, *turn.parts):
            told = part.digest if isinstance(part, VisualInput) else part
            content.update(f"{type(part).__name__} {len(told)} {told}".encode("utf-8", "surrogatepass"))
    way = (replace(request.sampling, seed=0), request.draft_length, request.uses_template)
    content.update(repr(way).encode("utf-8", "surrogatepass"))
    return content.hexdigest()
