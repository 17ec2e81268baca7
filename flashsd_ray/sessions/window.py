"""Which frames of an unbounded stream are kept: pure arithmetic on row numbers.

The first frames stay, because they say where a stream began; of the others the newest stay. A full window drops
``drop_frames`` at once rather than one for each frame that arrives: cached keys and values stand for a prompt's prefix, so
everything behind a gap is prefilled again. Dropping d at a time pays that price once in d frames.
"""

from __future__ import annotations

from dataclasses import dataclass

from flashsd_ray.config import SessionsConfig
from flashsd_ray.errors import InvalidRequestError

# Where the server chooses, a small window still keeps its first quarter at most.
FIRST_SHARE = 4


@dataclass(frozen=True, slots=True, kw_only=True)
class WindowPolicy:
    """How many frames are held, and which of them give way."""

    keep_first: int
    max_frames: int
    drop_frames: int

    def __post_init__(self) -> None:
        """Raises InvalidRequestError when the numbers do not fit into each other."""
        if not (self.keep_first >= 0 and 0 < self.drop_frames <= self.max_frames - self.keep_first):
            raise InvalidRequestError(
                f"a window of {self.max_frames} frames cannot keep the first {self.keep_first} and drop "
                f"{self.drop_frames} at a time"
            )

    def dropped(self, num_held: int) -> slice:
        """The rows that give way when one more frame arrives; none while there is room."""
        return slice(self.keep_first, self.keep_first + (self.drop_frames if num_held >= self.max_frames else 0))

    @property
    def safe_frames(self) -> int:
        """So many of the newest frames are held at any time."""
        return self.max_frames - self.keep_first - self.drop_frames + 1


def window_policy(
    sessions: SessionsConfig,
    *,
    keep_first: int,  # what the client asks for; 0: the server's choice
    max_frames: int,  # the same
    context_frames: int | None,  # how many the model's context holds; None: that depends on the frames
) -> WindowPolicy:
    """The policy of one session: what was asked for, within what the operator allows and the model can take.

    Raises:
        InvalidRequestError: a number is negative or larger than the configuration allows.
    """
    for name, asked in (("keep_first", keep_first), ("max_frames", max_frames)):
        allowed = getattr(sessions, name)
        if not 0 <= asked <= allowed:
            raise InvalidRequestError(f"{name} is {asked}; sessions.{name} allows {allowed}")
    usable = max_frames or sessions.max_frames
    usable = usable if context_frames is None else min(usable, context_frames)
    first = min(keep_first, usable - 1) if keep_first else min(sessions.keep_first, usable // FIRST_SHARE)
    drop = max(1, min(sessions.drop_frames, (usable - first) // 2))
    return WindowPolicy(keep_first=first, max_frames=usable, drop_frames=drop)
