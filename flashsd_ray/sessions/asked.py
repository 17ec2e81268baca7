"""What was asked in a session, kept so that a client that lost its connection has the same answer, not a similar one.

An answer is a function of its question, the frames that it is about and what was said before. All three are kept until
the client has the answer: a question that is asked again is answered about the frames of its time, however many have
come since, and its tokens are the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from flashsd_ray.sessions.frame_buffer import Snapshot
from flashsd_ray.sessions.history import Exchange, History
from flashsd_ray.sessions.periods import Period
from flashsd_ray.types import SamplingParams

NUM_DONE_KEPT = 2  # answers of late whose last words may not have reached the client


@dataclass(slots=True, kw_only=True, eq=False)
class Asked:
    """One question as it was placed."""

    ask_id: str
    prompt: str
    sampling: SamplingParams
    keep_history: bool
    period: Period
    frames: list[int]  # numbers of those that it is about
    times_s: list[float]
    generation: int  # of the window that held them
    caption: int = 0  # captions are counted from 1; 0: it was asked by the client
    history: History | None = None  # what had been said before its turn; None: its turn has not come
    previous: str | None = None  # the caption before this one, at its turn
    is_done: bool = False
    snapshot: Snapshot | None = None  # the frames themselves; None: they are where the session is kept

    def state(self) -> dict[str, object]:
        """Plain values that ``restored`` takes."""
        history = None if self.history is None else history_state(self.history)
        return {
            "ask_id": self.ask_id,
            "prompt": self.prompt,
            "sampling": self.sampling,
            "keep_history": self.keep_history,
            "period": [self.period.start_s, self.period.end_s],
            "frames": self.frames,
            "times_s": self.times_s,
            "generation": self.generation,
            "caption": self.caption,
            "history": history,
            "previous": self.previous,
            "is_done": self.is_done,
        }

    @classmethod
    def about(
        cls,
        snapshot: Snapshot,
        *,
        ask_id: str,
        prompt: str,
        sampling: SamplingParams,
        period: Period,
        keep_history: bool = False,
        caption: int = 0,
    ) -> Asked:
        """A question about these frames."""
        return cls(
            ask_id=ask_id,
            prompt=prompt,
            sampling=sampling,
            keep_history=keep_history,
            period=period,
            frames=[int(number) for number in snapshot.numbers],
            times_s=[float(time_s) for time_s in snapshot.times_s],
            generation=snapshot.generation,
            caption=caption,
            snapshot=snapshot,
        )

    @classmethod
    def restored(cls, state: Mapping[str, Any]) -> Asked:
        """The question whose state this is."""
        start_s, end_s = state["period"]
        history = None if state["history"] is None else history_of(state["history"])
        return cls(**(dict(state) | {"period": Period(start_s=start_s, end_s=end_s), "history": history}))


def history_state(history: History) -> list[object]:
    """Plain values that ``history_of`` takes."""
    return [history.generation, [[one.num_frames, one.question, one.answer] for one in history.exchanges]]


def history_of(state: Any) -> History:
    """The history whose state this is."""
    generation, exchanges = state
    made = (Exchange(num_frames=count, question=question, answer=answer) for count, question, answer in exchanges)
    return History(generation=generation, exchanges=tuple(made))


@dataclass(slots=True, eq=False)
class AskedBefore:
    """The questions of one session that may be asked again, in their order."""

    max_open: int
    questions: dict[str, Asked] = field(default_factory=dict)

    def add(self, asked: Asked, generation: int) -> None:
        """The question was placed, while the window is of this generation."""
        self.questions[asked.ask_id] = asked
        done = [one for one in self.questions.values() if one.is_done]
        outdated = [one for one in done if one.snapshot is not None and one.snapshot.generation != generation]
        left = [one for one in self.questions.values() if not one.is_done]
        for one in (*outdated, *done[:-NUM_DONE_KEPT], *left[: -self.max_open]):
            self.questions.pop(one.ask_id, None)

    def captions_after(self, num_received: int | None) -> list[Asked]:
        """Captions that the client does not have; None: those that were not finished."""
        captions = [one for one in self.questions.values() if one.caption]
        return [one for one in captions if not one.is_done or (num_received is not None and one.caption > num_received)]
