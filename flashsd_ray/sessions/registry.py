"""The sessions of one edge process, attached to a client or waiting for a lost one to come back.

Memory is bounded by two settings: ``sessions.max_sessions`` and ``sessions.max_held_bytes``. Where one of them is
reached, sessions of lost clients are forgotten, the longest lost first, before anybody is refused.
"""

from __future__ import annotations

import asyncio
import functools
import secrets

from flashsd_ray.actors.service import ModelCard
from flashsd_ray.config import Config
from flashsd_ray.errors import NotFoundError, OverloadedError, SequenceError, UnavailableError
from flashsd_ray.sessions.clock import Clock, MonotonicClock
from flashsd_ray.sessions.events import CloseReason, Open
from flashsd_ray.sessions.keeper import SessionKeeper, settings_of, snapshot_of
from flashsd_ray.sessions.keeping import Keeping
from flashsd_ray.sessions.session import Attachment, Session
from flashsd_ray.sessions.settings import Settings


class SessionRegistry:
    """Knows every session, who it belongs to, and how much memory they hold."""

    def __init__(
        self,
        config: Config,
        clock: Clock | None = None,
        keeper: SessionKeeper | None = None,  # where other edges find the sessions; None: they are here only
    ) -> None:
        self._keeper = keeper
        self.clock = clock or MonotonicClock()
        self.is_draining = False
        self._config = config
        self._sessions: dict[str, Session] = {}
        self._lost: dict[str, float] = {}  # id of a session without a client: since when, in order
        self._held_bytes: dict[str, int] = {}
        self._nobody = asyncio.Event()
        self._nobody.set()

    @property
    def num_attached(self) -> int:
        """Sessions with a client."""
        return len(self._sessions) - len(self._lost)

    @property
    def num_resumable(self) -> int:
        """Sessions whose client may come back."""
        self._forget_expired()
        return len(self._lost)

    @property
    def held_bytes(self) -> int:
        """Memory set aside for frames."""
        return sum(self._held_bytes.values())

    async def claim(self, opening: Open, card: ModelCard, caller: str) -> Session:
        """The session that the first message of a stream asks for: a new one, or the one to continue.

        A session has one client at a time: where the last stream of it is still open, because the loss of the client
        was not noticed yet, that stream ends here. ``attach`` must follow without anything awaited in between.

        Raises:
            NotFoundError: there is no such session, or it belongs to somebody else; or no such model.
            InvalidRequestError: the wishes for a new session cannot be met.
            OverloadedError: there are too many sessions.
            UnavailableError: the edge is draining.
        """
        if self.is_draining:
            raise UnavailableError("no session is opened here any more; open it at another edge")
        self._forget_expired()
        if not opening.session_id:
            return await self._opened(Settings.of(opening, card, self._config), caller)
        if self._keeper is not None:
            await self._bring(self._keeper, opening, caller)
        while (session := self._find(opening, caller)).attachment is not None:
            await session.attachment.stop(SequenceError("the session goes on in another stream"))
        return session

    def keeping(self, session: Session) -> Keeping:
        """How the session is kept for other edges."""
        return Keeping(session, self._keeper)

    def attach(self, session: Session, attachment: Attachment) -> None:
        """The session has a client."""
        session.attachment = attachment
        self._lost.pop(session.session_id, None)
        self._nobody.clear()

    def release(self, session: Session, attachment: Attachment, *, is_over: bool) -> None:
        """The session has no client any more; it is forgotten if it is over. Releasing twice is allowed."""
        if session.attachment is not attachment:
            return
        session.attachment = None
        self._lost[session.session_id] = self.clock.now_s()
        if is_over:
            self._forget(session.session_id, is_here_only=False)
        if not self.num_attached:
            self._nobody.set()

    def drain(self) -> None:
        """No session is opened any more, and those that are open end with REASON_DRAINING once they have answered."""
        self.is_draining = True
        for session in tuple(self._sessions.values()):
            if session.attachment is not None:
                session.attachment.close(CloseReason.DRAINING)

    async def wait_released(self) -> None:
        """No session has a client."""
        await self._nobody.wait()

    async def _opened(self, settings: Settings, caller: str) -> Session:
        self._make_room()
        session_id, token = secrets.token_urlsafe(12), ""
        if self._keeper is not None:
            session_id, token = await self._keeper.create(caller, settings)
            self._make_room()
        return self._added(self._made(settings, caller, session_id, token))

    async def _bring(self, keeper: SessionKeeper, opening: Open, caller: str) -> None:
        """The session is here as it is kept, unless it is here as it was kept last."""
        here = self._sessions.get(opening.session_id)
        try:
            kept = await keeper.find(opening.session_id, opening.resume_token, caller)
        except (NotFoundError, UnavailableError):
            if here is None:
                raise
            return
        state = kept.get("state")
        if here is not None:
            if state is None or state["counts"]["revision"] <= here.revision:
                return
            if here.attachment is not None:
                await here.attachment.stop(SequenceError("the session goes on at another edge"))
            self._forget(opening.session_id, is_here_only=False)
        session = self._made(settings_of(kept["settings"]), caller, opening.session_id, opening.resume_token)
        if state is not None:
            max_frames = session.settings.policy.max_frames
            pixels = await keeper.frames(opening.session_id, state["numbers"], max_frames)
            session.restore(state, snapshot_of(pixels, state["numbers"], state["times_s"], state["generation"]))
        if opening.session_id not in self._sessions:  # another stream may have been quicker
            self._make_room()
            self._added(session)

    def _made(self, settings: Settings, caller: str, session_id: str, token: str) -> Session:
        session = Session(
            settings,
            self._config,
            session_id=session_id,
            caller=caller,
            resume_token=token,
            reserve=functools.partial(self._reserve, session_id),
        )
        session.unkept = None if self._keeper is None else []
        return session

    def _added(self, session: Session) -> Session:
        self._sessions[session.session_id] = session
        self._lost[session.session_id] = self.clock.now_s()
        return session

    def _make_room(self) -> None:
        if len(self._sessions) >= self._config.sessions.max_sessions:
            if not self._lost:
                raise OverloadedError(f"{len(self._sessions)} sessions are open (sessions.max_sessions)")
            self._forget(next(iter(self._lost)))

    def _find(self, opening: Open, caller: str) -> Session:
        session = self._sessions.get(opening.session_id)
        if session is None or not session.belongs_to(opening.resume_token, caller):
            raise NotFoundError("there is no such session here; it may have expired: open a new one")
        return session

    def _reserve(self, session_id: str, num_bytes: int) -> None:
        limit = self._config.sessions.max_held_bytes
        while self.held_bytes + num_bytes > limit and self._lost:
            self._forget(next(iter(self._lost)))
        if self.held_bytes + num_bytes > limit:
            raise OverloadedError(
                f"a window of such frames takes {num_bytes} bytes; {limit - self.held_bytes} are left "
                "(sessions.max_held_bytes)"
            )
        self._held_bytes[session_id] = num_bytes

    def _forget(self, session_id: str, *, is_here_only: bool = True) -> None:
        if self._keeper is not None and is_here_only:
            self._keeper.release(session_id)
        self._lost.pop(session_id, None)
        self._held_bytes.pop(session_id, None)
        del self._sessions[session_id]

    def _forget_expired(self) -> None:
        last_s = self.clock.now_s() - self._config.stores.session_ttl_s
        for session_id in [one for one, since_s in self._lost.items() if since_s < last_s]:
            self._forget(session_id)
