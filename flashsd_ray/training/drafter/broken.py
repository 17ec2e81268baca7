"""What cannot be learnt from is counted, reported and left out, unless there is too much of it."""

from __future__ import annotations

from flashsd_ray.errors import FlashSDError, InvalidRequestError
from flashsd_ray.training.drafter.events import LeftOut, Listener
from flashsd_ray.training.drafter.questions import Question


class Broken:
    """The questions that had to be left out."""

    def __init__(self, most: int, listener: Listener) -> None:
        self._most = most
        self._listener = listener
        self._origins: set[str] = set()

    def __len__(self) -> int:
        return len(self._origins)

    def leave_out(self, question: Question, error: FlashSDError) -> None:
        """The question is reported, once however often it is tried.

        Raises:
            InvalidRequestError: more questions are broken than may be.
        """
        if question.origin in self._origins:
            return
        self._origins.add(question.origin)
        self._listener(LeftOut(origin=question.origin, reason=str(error)))
        if len(self._origins) > self._most:
            raise InvalidRequestError(
                f"{len(self._origins)} questions cannot be asked, --max-errors allows {self._most}; "
                f"the last one is {question.origin}: {error}"
            )
