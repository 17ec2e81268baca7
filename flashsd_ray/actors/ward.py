"""Places of a lane for suspects: requests under which a lane was lost already.

A suspect first has its place, and its edge knows it, before it is decoded. So when the lane dies, an edge knows whether
its suspect was decoded, and in what company: whoever only waited has done nothing. While suspects are here, nobody else
gets a place.
"""

from __future__ import annotations

from concurrent.futures import Future

from flashsd_ray.errors import UnavailableError
from flashsd_ray.scheduling.suspicion import may_join


class Ward:
    """The suspects of one lane, in the order they came; used by one thread."""

    def __init__(self) -> None:
        self._waiting: dict[str, tuple[int, Future[None]]] = {}
        self._placed: dict[str, int] = {}

    @property
    def is_empty(self) -> bool:
        """Whether the lane is open to everybody."""
        return not self._waiting and not self._placed

    @property
    def placed(self) -> frozenset[str]:
        """Suspects that may be submitted, or were."""
        return frozenset(self._placed)

    def wait(self, request_id: str, company: int, granted: Future[None]) -> None:
        """The suspect waits for its place; the future has a result as soon as it has it."""
        self._waiting[request_id] = (company, granted)

    def leave(self, request_id: str) -> None:
        """The suspect has ended, or is not coming any more; nothing happens to one that is not here."""
        self._placed.pop(request_id, None)
        waiting = self._waiting.pop(request_id, None)
        if waiting is not None:
            waiting[1].set_exception(UnavailableError("the request left before it had a place"))

    def admit(self, num_unsuspected: int) -> None:
        """Everybody has a place who may have one now, beside so many other requests that run; nobody overtakes."""
        while self._waiting:
            request_id, (company, granted) = next(iter(self._waiting.items()))
            if not may_join(company, list(self._placed.values()), num_unsuspected):
                return
            del self._waiting[request_id]
            if granted.set_running_or_notify_cancel():
                self._placed[request_id] = company
                granted.set_result(None)
