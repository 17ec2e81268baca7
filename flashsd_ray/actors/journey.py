"""What has befallen one request on its way through encoders and lanes, and what follows from it."""

from __future__ import annotations

from dataclasses import dataclass, field

from flashsd_ray.errors import NotTakingError, UnavailableError
from flashsd_ray.scheduling.suspicion import company_after, is_cause
from flashsd_ray.types import CaptionRequest

MAX_MOVES = 10  # from parts that were lost or closed before they took the request


@dataclass(slots=True, eq=False)
class Losses:
    """Parts of one kind that were lost under a request."""

    failed: list[str] = field(default_factory=list)  # their names, and of those that did not take it
    is_exposed: bool = False  # whether the part that has the request now may be lost because of it
    num_losses: int = 0
    num_moves: int = 0

    @property
    def company(self) -> int | None:
        """Most requests that the next part may work on together with this one; None: as many as there are."""
        return company_after(self.num_losses)

    def note(self, name: str, error: UnavailableError) -> None:
        """The part is lost, or does not take the request."""
        self.failed.append(name)
        if self.is_exposed and not isinstance(error, NotTakingError):
            self.num_losses += 1
        else:
            self.num_moves += 1
        self.is_exposed = False

    def is_cause(self, max_losses: int) -> bool:
        """Whether the request is taken for what killed them."""
        return is_cause(self.num_losses, max_losses)

    @property
    def has_moved_enough(self) -> bool:
        """Whether it is time to tell the caller to come again."""
        return self.num_moves > MAX_MOVES


@dataclass(slots=True, eq=False)
class Journey:
    """One request, how long it may take, and what it has lost."""

    request: CaptionRequest
    deadline_s: float | None
    lanes: Losses = field(default_factory=Losses)
    encoders: Losses = field(default_factory=Losses)
