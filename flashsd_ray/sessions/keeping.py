"""What a stream needs of whoever keeps its session for another edge; where nobody does, nothing happens."""

from __future__ import annotations

from flashsd_ray.errors import UnavailableError
from flashsd_ray.sessions.asked import Asked
from flashsd_ray.sessions.frame_buffer import Snapshot
from flashsd_ray.sessions.keeper import GONE, SessionKeeper
from flashsd_ray.sessions.session import Session


class Keeping:
    """Keeps one session."""

    def __init__(self, session: Session, keeper: SessionKeeper | None) -> None:
        self._session = session
        self._keeper = keeper

    @property
    def is_shared(self) -> bool:
        """Whether the session is kept where other edges find it."""
        return self._keeper is not None

    async def keep(self) -> None:
        """The session is kept as it is now."""
        if self._keeper is not None:
            await self._keeper.keep(self._session)

    async def frames_of(self, asked: Asked) -> Snapshot:
        """The frames of a question that are not here any more.

        Raises:
            UnavailableError: they are nowhere.
        """
        if self._keeper is None:
            raise UnavailableError(GONE)
        return await self._keeper.snapshot(self._session, asked)

    async def forget(self) -> None:
        """The session is over, everywhere."""
        if self._keeper is not None:
            await self._keeper.forget(self._session)
