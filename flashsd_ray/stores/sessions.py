"""What is kept of a session so that its client can come back to it, at any edge that shares the store."""

from __future__ import annotations

import hashlib
import hmac
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import NotFoundError, UnavailableError, WireError
from flashsd_ray.stores.store import Store
from flashsd_ray.wire.codec import decode, encode

RECORD_VERSION = 1  # of the fields of a record: a change of one raises it

_ID_BYTES = 16
_TOKEN_BYTES = 32
_SESSION_ID = re.compile(r"[A-Za-z0-9_-]{22}")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionRecord:
    """One session; the token that proves it to be one's own is not in here."""

    session_id: str
    caller: str  # name of the key's owner; "" where no keys are configured
    token_digest: bytes
    settings: Mapping[str, object]  # plain values; what they mean is known to whoever opened the session
    created_s: float  # Unix time
    used_s: float  # Unix time


class SessionStore:
    """Records of sessions; each is forgotten stores.session_ttl_s after it was last put."""

    def __init__(self, store: Store, config: StoresConfig, *, clock: Callable[[], float] = time.time) -> None:
        self._store = store
        self._config = config
        self._clock = clock

    def create(
        self,
        caller: str,
        settings: Mapping[str, object],  # None, truth values, numbers, texts, bytes, and lists and mappings of them
    ) -> tuple[SessionRecord, str]:
        """A new session of this caller, and the resume token, which nobody but the client has from now on.

        It is also returned where the store is lost; then it cannot be resumed elsewhere.

        Raises:
            WireError: the settings hold something that cannot be kept.
        """
        token, now_s = secrets.token_urlsafe(_TOKEN_BYTES), self._clock()
        record = SessionRecord(
            session_id=secrets.token_urlsafe(_ID_BYTES),
            caller=caller,
            token_digest=_digest(token),
            settings=settings,
            created_s=now_s,
            used_s=now_s,
        )
        self._write(record)
        return record, token

    def get(self, session_id: str, *, caller: str, resume_token: str) -> SessionRecord:
        """The session, which is this caller's.

        Raises:
            NotFoundError: there is no such session, it is another caller's, or the token is wrong; which is not told.
            UnavailableError: the store is lost; the session may still be there.
        """
        record = self._read(session_id)
        expected = record or _NOBODYS
        is_caller = hmac.compare_digest(_digest(expected.caller), _digest(caller))
        is_token = hmac.compare_digest(expected.token_digest, _digest(resume_token))
        if record is None or not (is_caller and is_token):
            raise NotFoundError("there is no such session; it may have expired")
        return record

    def put(self, record: SessionRecord) -> SessionRecord:
        """The session was used now and has its whole time before it; returned as it is kept.

        Raises:
            WireError: the settings hold something that cannot be kept.
        """
        record = replace(record, used_s=self._clock())
        self._write(record)
        return record

    def delete(self, record: SessionRecord) -> None:
        """The session is over."""
        self._store.delete(_name(record.session_id))

    def _write(self, record: SessionRecord) -> None:
        written = {name: getattr(record, name) for name in _KINDS} | {"settings": dict(record.settings)}
        data = encode({"version": RECORD_VERSION} | written, max_bytes=self._config.max_value_bytes)
        self._store.put(_name(record.session_id), data, self._config.session_ttl_s)

    def _read(self, session_id: str) -> SessionRecord | None:
        if not _SESSION_ID.fullmatch(session_id):
            return None
        data = self._store.get(_name(session_id))
        if data is None and self._store.health():
            raise UnavailableError("sessions cannot be looked up at the moment", retry_after_s=self._config.retry_s)
        return _record(data, session_id) if data is not None else None


_NOBODYS = SessionRecord(session_id="", caller="", token_digest=b"", settings={}, created_s=0.0, used_s=0.0)
_KINDS = {name: type(getattr(_NOBODYS, name)) for name in SessionRecord.__slots__}


def _record(data: bytes, session_id: str) -> SessionRecord | None:
    """The record; None where the bytes are damaged, foreign, of another session or of another version."""
    try:
        value = decode(data)
    except WireError:
        return None
    if not isinstance(value, dict) or value.pop("version", None) != RECORD_VERSION:
        return None
    if {name: type(item) for name, item in value.items()} != _KINDS or value["session_id"] != session_id:
        return None
    return SessionRecord(**value)


def _digest(text: str) -> bytes:
    # Any text may come from outside, also halves of characters.
    return hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()


def _name(session_id: str) -> str:
    return f"sessions:{session_id}"
