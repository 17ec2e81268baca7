"""Sessions in a store that edges share, so that a client finds its own at another edge when the one it had is lost.

A frame is kept as it was sent, under a key of its own, before it is acknowledged; everything else is one small record
that is written whenever it changes. So what a client was told is never ahead of what is kept.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, fields, replace
from typing import Any

import numpy as np

from flashsd_ray.config import Config
from flashsd_ray.errors import FlashSDError, NotFoundError, UnavailableError
from flashsd_ray.sessions.asked import Asked
from flashsd_ray.sessions.frame_buffer import Snapshot
from flashsd_ray.sessions.pictures import pixels_of
from flashsd_ray.sessions.session import Session
from flashsd_ray.sessions.settings import Settings
from flashsd_ray.stores.sessions import SessionRecord, SessionStore
from flashsd_ray.stores.store import Store
from flashsd_ray.wire.codec import decode, encode

GONE = "the frames of the session are not there any more"


class SessionKeeper:
    """Keeps sessions, and gives them back; a store that is lost costs the way back and nothing else."""

    def __init__(self, store: Store, config: Config, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._config = config
        self._sessions = SessionStore(store, config.stores, clock=clock)
        self._clock = clock
        self._records: dict[str, SessionRecord] = {}
        self._written_s: dict[str, dict[int, float]] = {}  # of each session: when which frame was written
        self._locks: dict[str, asyncio.Lock] = {}

    async def create(self, caller: str, settings: Settings) -> tuple[str, str]:
        """The id of a new session, and its resume token."""
        record, token = await asyncio.to_thread(self._sessions.create, caller, {"settings": _plain(settings)})
        self._remember(record)
        return record.session_id, token

    async def keep(self, session: Session) -> None:
        """The session is kept as it is now, as far as the store is there."""
        if session.unkept is None or session.session_id not in self._locks:
            return
        async with self._locks[session.session_id]:
            session.revision += 1
            new, session.unkept = session.unkept, []
            settings = {"settings": _plain(session.settings), "state": session.state()}
            record = replace(self._records[session.session_id], settings=settings)
            await asyncio.to_thread(self._write, record, new)

    async def find(self, session_id: str, resume_token: str, caller: str) -> Mapping[str, Any]:
        """What is kept of the session.

        Raises:
            NotFoundError: there is no such session, or it is somebody else's.
            UnavailableError: the store is lost.
        """
        record = await asyncio.to_thread(self._sessions.get, session_id, caller=caller, resume_token=resume_token)
        self._remember(record)
        return record.settings

    async def frames(self, session_id: str, numbers: Sequence[int], max_frames: int) -> list[np.ndarray]:
        """The pixels of these frames.

        Raises:
            NotFoundError: one of them is not there any more.
        """
        keys = {_frame_key(session_id, number): number for number in numbers}
        found = await asyncio.to_thread(self._store.get_many, list(keys))
        images = {number: decode(found[key], max_bytes=self._limit) for key, number in keys.items() if key in found}
        if len(images) < len(keys):
            raise NotFoundError(GONE)
        pixels = {}
        for number, image in images.items():
            if not isinstance(image, bytes | np.ndarray):
                raise NotFoundError(GONE)
            pixels[number] = await pixels_of(image, f"frame {number}", self._config, max_frames=max_frames)
        return [pixels[number] for number in numbers]

    async def snapshot(self, session: Session, asked: Asked) -> Snapshot:
        """The frames of a question, as they were looked at.

        Raises:
            UnavailableError: they are not there any more.
        """
        try:
            pixels = await self.frames(session.session_id, asked.frames, session.settings.policy.max_frames)
        except NotFoundError as error:
            raise UnavailableError(str(error)) from error
        return snapshot_of(pixels, asked.frames, asked.times_s, asked.generation)

    def release(self, session_id: str) -> None:
        """The session is not here any more; where it is kept it stays."""
        for known in (self._records, self._written_s, self._locks):
            known.pop(session_id, None)

    async def forget(self, session: Session) -> None:
        """The session is over."""
        record = self._records.get(session.session_id)
        numbers = list(self._written_s.get(session.session_id, ()))
        self.release(session.session_id)
        if record is not None:
            await asyncio.to_thread(self._delete, record, numbers)

    @property
    def _limit(self) -> int:
        return self._config.stores.max_value_bytes

    def _remember(self, record: SessionRecord) -> None:
        self._records[record.session_id] = record
        self._written_s.setdefault(record.session_id, {})
        self._locks.setdefault(record.session_id, asyncio.Lock())

    # What follows runs in a thread: a store may take its time.

    def _write(self, record: SessionRecord, new: Sequence[tuple[int, bytes | np.ndarray]]) -> None:
        written, now_s, ttl_s = self._written_s[record.session_id], self._clock(), self._config.stores.session_ttl_s
        state: Any = record.settings["state"]
        wanted = {*state["numbers"], *(number for one in state["asked"] for number in one["frames"])}
        for number, image in new:
            self._put(record, number, encode(image, max_bytes=self._limit))
        for number in [number for number in written if number not in wanted]:
            del written[number]  # it expires
        # Frames stay twice as long as the record, so those of a session that was just kept can always be found.
        for number in [number for number in wanted if written.get(number, now_s) < now_s - ttl_s]:
            data = self._store.get(_frame_key(record.session_id, number))
            if data is not None:
                self._put(record, number, data)
        self._sessions.put(record)

    def _put(self, record: SessionRecord, number: int, data: bytes) -> None:
        self._store.put(_frame_key(record.session_id, number), data, 2 * self._config.stores.session_ttl_s)
        self._written_s[record.session_id][number] = self._clock()

    def _delete(self, record: SessionRecord, numbers: Sequence[int]) -> None:
        self._sessions.delete(record)
        for number in numbers:
            self._store.delete(_frame_key(record.session_id, number))


def snapshot_of(
    pixels: Sequence[np.ndarray], numbers: Sequence[int], times_s: Sequence[float] | np.ndarray, generation: int
) -> Snapshot:
    """The frames as they are looked at."""
    frames = np.stack(pixels) if pixels else np.empty((0, 0, 0, 3), np.uint8)
    frames.flags.writeable = False
    return Snapshot(
        frames=frames,
        times_s=np.array(times_s, np.float64),
        generation=generation,
        numbers=np.array(numbers, np.int64),
    )


def settings_of(state: Mapping[str, Any]) -> Settings:
    """The wishes that a session was opened with.

    Raises:
        FlashSDError: they are of another version.
    """
    try:
        return Settings.restored(state)
    except (KeyError, TypeError, ValueError) as error:
        raise FlashSDError("what is kept of the session cannot be read") from error


def _plain(settings: Settings) -> dict[str, object]:
    values = {item.name: getattr(settings, item.name) for item in fields(settings)}
    return values | {"mode": settings.mode.value, "policy": asdict(settings.policy)}


def _frame_key(session_id: str, number: int) -> str:
    return f"sessions:{session_id}:frames:{number}"
