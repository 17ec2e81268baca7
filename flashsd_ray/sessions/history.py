"""What a conversation about live video remembers, and how the next question stands behind it.

New frames are told after the earlier answers, where they came: frames, question, answer, frames, question. So what was
told stays the beginning of what will be told, and its keys and values are used again. The rule: questions asked with
``keep_history`` are remembered until the window drops a frame, because after that the earlier turns would show frames
that are no longer held; or until they fill the room that ``sessions.reserved_tokens`` leaves them. The conversation then
begins afresh with the frames of the window.
"""

from __future__ import annotations

from dataclasses import dataclass

from flashsd_ray.sessions.frame_buffer import Snapshot
from flashsd_ray.types import Turn


@dataclass(frozen=True, slots=True, kw_only=True)
class Exchange:
    """A question and its answer."""

    num_frames: int  # of the window, told before the question, those of earlier questions included
    question: str
    answer: str


@dataclass(frozen=True, slots=True, kw_only=True)
class History:
    """The exchanges that are remembered, about frames of one generation of the window."""

    generation: int = 0
    exchanges: tuple[Exchange, ...] = ()

    def about(self, snapshot: Snapshot) -> History:
        """What is remembered where these frames are looked at: all, or nothing when the window dropped frames."""
        is_beginning = self.generation == snapshot.generation and all(
            exchange.num_frames <= len(snapshot) for exchange in self.exchanges
        )
        return self if is_beginning else History(generation=snapshot.generation)

    def followed_by(self, snapshot: Snapshot, question: str, answer: str) -> History:
        """The history after one more exchange."""
        exchange = Exchange(num_frames=len(snapshot), question=question, answer=answer)
        return History(generation=snapshot.generation, exchanges=(*self.about(snapshot).exchanges, exchange))

    def turns(self, snapshot: Snapshot, question: str = "") -> tuple[Turn, ...]:
        """The conversation up to a question about these frames; without one, up to where it will stand."""
        turns: list[Turn] = []
        told = 0
        for exchange in self.about(snapshot).exchanges:
            turns.append(_user(snapshot, told, exchange.num_frames, exchange.question))
            turns.append(Turn(role="assistant", parts=(exchange.answer,)))
            told = exchange.num_frames
        last = _user(snapshot, told, len(snapshot), question)
        return (*turns, last) if last.parts else tuple(turns)


def _user(snapshot: Snapshot, start: int, stop: int, text: str) -> Turn:
    frames = (snapshot.visual(start, stop),) if stop > start else ()
    return Turn(role="user", parts=(*frames, text) if text else frames)
