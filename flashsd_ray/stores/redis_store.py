"""A store in a Redis that may come and go: while it is lost, nothing is found and nobody waits."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from redis import Redis
from redis.client import Pipeline
from redis.exceptions import (
    AuthenticationError,
    NoPermissionError,
    OutOfMemoryError,
    ReadOnlyError,
    RedisError,
    ResponseError,
)
from redis.exceptions import ConnectionError as RedisConnectionError
from redis.exceptions import TimeoutError as RedisTimeoutError

from flashsd_ray.config import StoresConfig
from flashsd_ray.stores.link import Link
from flashsd_ray.stores.redis_address import parse_address, with_password_of
from flashsd_ray.stores.redis_connection import Deadline, make_pool
from flashsd_ray.stores.store import StoreCounts

Answer = TypeVar("Answer")

_LONGEST_TTL_S = 100 * 365 * 86400.0  # Redis refuses times that it cannot count to
# A server that is no Redis may say anything.
_LOST = (RedisError, OSError, ValueError)
# Where the library takes the first word away.
_CODES: dict[type[Exception], str] = {OutOfMemoryError: "OOM", ReadOnlyError: "READONLY", NoPermissionError: "NOPERM"}


class RedisStore:
    """Keeps values under ``stores.prefix`` in the Redis at ``stores.url``; every call ends within stores.timeout_s."""

    def __init__(self, config: StoresConfig, *, wait: Callable[[float], bool] | None = None) -> None:
        """Raises ConfigError when address, stores.password_file or stores.tls_ca cannot be used; a Redis may be away."""
        address = with_password_of(config.password_file, parse_address(config.url))
        self._config = config
        self._name = f"Redis at {address.shown}"
        self._deadline = Deadline()
        self._pool = make_pool(address, config, self._deadline)
        self._redis = Redis(connection_pool=self._pool)
        self._link = Link(self._name, self._attempt, config.retry_s, wait=wait)
        self._refusals: dict[str, str] = {}  # by what was refused: reading, writing or deleting
        self._hits = self._misses = self._errors = 0
        self._counting = threading.Lock()
        self._link.open()

    @property
    def is_shared(self) -> bool:
        """Everybody with the same Redis and prefix finds what is kept here."""
        return True

    @property
    def counts(self) -> StoreCounts:
        """Hits, misses and errors so far."""
        return StoreCounts(hits=self._hits, misses=self._misses, errors=self._errors)

    def get(self, key: str) -> bytes | None:
        """The value under the key; None where there is none, or it is too large or of another type than bytes."""
        return self.get_many([key]).get(key)

    def get_many(self, keys: Iterable[str]) -> dict[str, bytes]:
        """The values of those keys that have one."""
        asked = list(dict.fromkeys(keys))
        found: dict[str, bytes] = self._ask("read", lambda: self._read(asked), {}) if asked else {}
        with self._counting:
            self._hits += len(found)
            self._misses += len(asked) - len(found)
        return found

    def put(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Whether the value is kept now, in place of any other, for ``ttl_s`` seconds."""
        return self._set(key, value, ttl_s, only_new=False)

    def add(self, key: str, value: bytes, ttl_s: float) -> bool:
        """Whether there was no value and this one is kept now; of many callers at once one is told so."""
        return self._set(key, value, ttl_s, only_new=True)

    def delete(self, key: str) -> None:
        """There is no value under the key; in a Redis that is lost it may be found again later."""
        self._ask("delete", lambda: self._redis.delete(self._full(key)), None)

    def health(self) -> str:
        """A sentence that says what is wrong; "" where nothing is."""
        return self._link.problem or " ".join(self._refusals.values())

    def close(self) -> None:
        """Connections are closed; from now on nothing is found."""
        self._link.close()
        self._disconnect_idle()

    def _full(self, key: str) -> bytes:
        return f"{self._config.prefix}:{key}".encode("utf-8", "surrogatepass")

    def _read(self, keys: list[str]) -> dict[str, bytes]:
        """Sizes first: a foreign value under our key may be of any size and type."""
        names = {key: self._full(key) for key in keys}
        limit = self._config.max_value_bytes
        answers = self._pipeline(lambda line: [(line.strlen(name), line.exists(name)) for name in names.values()])
        sizes, existing = answers[::2], answers[1::2]
        found = {key: b"" for key, size, exists in zip(names, sizes, existing, strict=True) if size == 0 and exists}
        readable = [key for key, size in zip(names, sizes, strict=True) if isinstance(size, int) and 0 < size <= limit]
        # Should a value grow in between, one byte more than allowed shows it.
        values = self._pipeline(lambda line: [line.getrange(names[key], 0, limit) for key in readable])
        pairs = zip(readable, values, strict=True)
        return found | {key: value for key, value in pairs if isinstance(value, bytes) and 0 < len(value) <= limit}

    def _pipeline(self, queue: Callable[[Pipeline], object]) -> list[Any]:
        """The answers to what was queued; an error stands for a value of another type.

        Raises:
            ResponseError: Redis refused for another reason.
        """
        with self._redis.pipeline(transaction=False) as line:
            queue(line)
            answers: list[Any] = line.execute(raise_on_error=False)
        for answer in answers:
            if isinstance(answer, ResponseError) and _code(answer) != "WRONGTYPE":
                raise answer
        return answers

    def _set(self, key: str, value: bytes, ttl_s: float, *, only_new: bool) -> bool:
        if len(value) > self._config.max_value_bytes:
            return False
        milliseconds = max(1, round(min(ttl_s, _LONGEST_TTL_S) * 1000))

        def call() -> object:
            return self._redis.set(self._full(key), value, px=milliseconds, nx=only_new)

        return bool(self._ask("write", call, None))

    def _ask(self, verb: str, call: Callable[[], Answer], otherwise: Answer) -> Answer:
        """What Redis answered; ``otherwise`` where it did not, and health says why."""
        if not self._link.problem:
            try:
                with self._deadline.within(self._config.timeout_s):
                    answer = call()
            except ResponseError as error:
                self._refusals[verb] = f"{self._name} refuses to {verb} ({_code(error)})."
            except _LOST as error:
                self._lose(error)
            else:
                self._refusals.pop(verb, None)
                return answer
        with self._counting:
            self._errors += 1
        return otherwise

    def _lose(self, error: Exception) -> None:
        self._disconnect_idle()  # they lead to the same lost server
        self._link.lose(self._sentence(error))

    def _disconnect_idle(self) -> None:
        # A connection that is in use would fail in its own thread in ways that nobody expects there.
        self._pool.disconnect(inuse_connections=False)

    def _attempt(self) -> str:
        try:
            with self._deadline.within(self._config.timeout_s):
                self._redis.ping()
        except NoPermissionError:
            return ""  # not everybody may use PING, but somebody is there
        except _LOST as error:
            return self._sentence(error)
        return ""

    def _sentence(self, error: Exception) -> str:
        """What is wrong, in words that hold nothing of what was sent."""
        if isinstance(error, AuthenticationError):
            return f"{self._name} does not accept the user or password of stores.url."
        if isinstance(error, (RedisTimeoutError, TimeoutError)):
            return f"{self._name} did not answer within stores.timeout_s ({self._config.timeout_s:g} s)."
        if isinstance(error, ResponseError):
            return f"{self._name} refuses the connection ({_code(error)})."
        if isinstance(error, (RedisConnectionError, OSError)):
            return f"{self._name} is not reached: {error}"
        return f"{self._name} answers, but not as a Redis."


def _code(error: ResponseError) -> str:
    """The first word of what Redis says; the rest may repeat what it was sent."""
    return _CODES.get(type(error)) or str(error).split(" ", 1)[0]
