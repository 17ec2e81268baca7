"""Captions that say again what the last one said (MODE_CHANGES).

Every period is asked the same question. Asking for what has changed since the last caption was the other way: the model
then rarely says the same thing twice about the same scene, small models describe differences that are not there, and
the last caption would stand between question and frames. So a caption is compared with the one before, and its pieces
are held back for as long as they could still turn out to be the same text.
"""

from __future__ import annotations

from flashsd_ray.engine.answers import Chunk


class Repeats:
    """Holds the pieces of one answer back while they repeat the previous one."""

    def __init__(self, previous: str | None) -> None:  # None: nothing is held back
        self._previous = previous
        self._text = ""
        self._held: list[Chunk] = []

    def passed(self, chunk: Chunk) -> list[Chunk]:
        """The pieces that can be sent now that this one has come."""
        self._text += chunk.text
        self._held.append(chunk)
        if self._previous is not None and self._previous.startswith(self._text):
            return []
        return self._release()

    def rest(self) -> list[Chunk]:
        """The pieces that are still to be sent at the end of the answer; none when it repeats the previous one."""
        return [] if self.is_repetition else self._release()

    @property
    def is_repetition(self) -> bool:
        """Whether the pieces so far are the previous answer."""
        return self._text == self._previous

    def _release(self) -> list[Chunk]:
        held, self._held = self._held, []
        return held
