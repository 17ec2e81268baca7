"""What a session is apart from its connection: everything that a client finds again when it resumes."""

from __future__ import annotations

import math
import secrets
from collections.abc import Callable, Mapping
from typing import Any, Protocol

import numpy as np

from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError, InvalidRequestError
from flashsd_ray.sessions.asked import Asked, AskedBefore, history_of, history_state
from flashsd_ray.sessions.events import CloseReason, Mode
from flashsd_ray.sessions.frame_buffer import FrameBuffer, Snapshot
from flashsd_ray.sessions.history import History
from flashsd_ray.sessions.periods import Periods
from flashsd_ray.sessions.rate_limit import RateLimit
from flashsd_ray.sessions.settings import Settings
from flashsd_ray.types import Turn

COUNTS = ("next_frame", "last_taken", "num_thinned", "num_answers", "num_captions", "revision")
REQUESTS_APART = 1000


class Attachment(Protocol):
    """The connection through which a session is watched at the moment."""

    def close(self, reason: CloseReason) -> None:
        """Nothing more is read; what is open is answered, then the connection ends."""
        ...

    async def stop(self, error: FlashSDError | None = None) -> None:
        """The connection has ended, with this error at the client, and nothing of it runs."""
        ...


class Session:
    """One video that is being filmed, and what has been said about it."""

    def __init__(
        self,
        settings: Settings,
        config: Config,
        *,
        session_id: str,
        caller: str,
        resume_token: str = "",  # empty: a new one
        reserve: Callable[[int], None] = lambda num_bytes: None,  # called once, before memory for frames is taken
    ) -> None:
        self.session_id = session_id
        self.resume_token = resume_token or secrets.token_urlsafe(32)
        self.settings = settings
        self.prompt = settings.prompt
        self.frames = FrameBuffer(settings.policy, reserve)
        self.history = History()
        self.rate_limit = RateLimit(config.sessions.max_frames_per_second)
        self.periods = (
            None if settings.mode is Mode.ON_DEMAND else Periods(settings.period_s, settings.policy.safe_frames)
        )
        self.last_caption: str | None = None
        self.next_frame = 0  # index of the frame that is expected next
        self.last_taken = 0  # index of the last frame taken over
        self.num_thinned = 0  # frames of a period beyond what the window holds of one
        self.num_answers = 0
        self.num_captions = 0  # placed so far
        self.asked = AskedBefore(2 * config.sessions.max_waiting_asks + 2)
        self.revision = 0  # of what is kept elsewhere
        self.unkept: list[tuple[int, bytes | np.ndarray]] | None = (
            None  # frames to be kept elsewhere; None: they are not
        )
        self.attachment: Attachment | None = None
        self._caller = caller
        self._config = config
        self._last_s: float | None = None  # video time of the last frame
        self._num_requests = 0

    @property
    def num_dropped(self) -> int:
        """Frames that were taken over and are not held any more."""
        return self.frames.num_dropped + self.num_thinned

    @property
    def now_s(self) -> float:
        """Video time up to which frames have come; 0 before the first."""
        return self._last_s or 0.0

    def belongs_to(self, resume_token: str, caller: str) -> bool:
        """Whether this client opened the session."""
        is_token = secrets.compare_digest(self.resume_token.encode(), resume_token.encode("utf-8", "replace"))
        return is_token and caller == self._caller

    def request_id(self) -> str:
        """A name for the next request of this session."""
        self._num_requests += 1
        return f"{self.session_id}-{self._num_requests}"

    def time_of(self, timestamp_s: float | None) -> float:
        """Video time of the next frame.

        Raises:
            InvalidRequestError: the time is not a number, negative, or before that of the last frame.
        """
        if timestamp_s is None:
            return 0.0 if self._last_s is None else self._last_s + 1 / self._config.sessions.frame_rate
        if not (math.isfinite(timestamp_s) and timestamp_s >= 0):
            raise InvalidRequestError(f"timestamp_s must be 0 or more, got {timestamp_s}")
        if timestamp_s < self.now_s:
            raise InvalidRequestError(f"timestamp_s is {timestamp_s:g}; the frame before was at {self.now_s:g} s")
        return timestamp_s

    def take(
        self,
        pixels: np.ndarray,  # [H, W, 3] uint8, of the size that ``frames`` is prepared for
        time_s: float,  # of ``time_of``
        image: bytes | np.ndarray | None = None,  # as the client sent it; None: the pixels
    ) -> None:
        """The frame is taken over, and held unless its period has enough of them."""
        if self.periods is None or self.periods.take(time_s):
            self.frames.push(pixels, time_s, self.next_frame)
            if self.unkept is not None:
                self.unkept.append((self.next_frame, pixels if image is None else image))
        else:
            self.num_thinned += 1
        self._last_s, self.last_taken = time_s, self.next_frame
        self.next_frame += 1

    def state(self) -> dict[str, object]:
        """Everything but the pixels, as values that ``restore`` takes."""
        held = self.frames.snapshot()
        return {
            "prompt": self.prompt,
            "last_caption": self.last_caption,
            "counts": {name: getattr(self, name) for name in COUNTS},
            "last_s": self._last_s,
            "num_requests": self._num_requests,
            "history": history_state(self.history),
            "periods": None if self.periods is None else self.periods.state(),
            "numbers": [int(number) for number in held.numbers],
            "times_s": [float(time_s) for time_s in held.times_s],
            "generation": self.frames.generation,
            "num_dropped": self.frames.num_dropped,
            "asked": [one.state() for one in self.asked.questions.values()],
        }

    def restore(self, state: Mapping[str, Any], held: Snapshot) -> None:
        """The session stands where the one stood whose state this is, with the frames that it held.

        Raises:
            OverloadedError: there is no memory for a window of such frames.
        """
        self.prompt, self.last_caption, self._last_s = state["prompt"], state["last_caption"], state["last_s"]
        for name in COUNTS:
            setattr(self, name, state["counts"][name])
        # Requests of the lost edge may still be in a lane, and names must not be used twice.
        self._num_requests = state["num_requests"] + REQUESTS_APART
        self.history = history_of(state["history"])
        if self.periods is not None:
            self.periods.restore(state["periods"])
        self.frames.restore(held, state["num_dropped"])
        self.asked.questions = {one["ask_id"]: Asked.restored(one) for one in state["asked"]}

    def upcoming(self) -> tuple[Turn, ...]:
        """The conversation up to where the question of the next answer will stand; empty before the first frame."""
        snapshot = self.frames.snapshot()
        if self.periods is None:
            return self.history.turns(snapshot)
        period = self.periods.current
        return () if period is None else History().turns(snapshot.since(period.start_s))

    def remember(self, snapshot: Snapshot, question: str, answer: str, num_tokens: int) -> None:
        """Later questions see this question and its answer; ``num_tokens`` are those of prompt and answer."""
        history = self.history.followed_by(snapshot, question, answer)
        told = num_tokens - self.settings.frame_tokens * len(snapshot)
        is_full = told > self.settings.history_tokens or len(history.exchanges) >= self._config.media.max_inputs
        self.history = History() if is_full else history
