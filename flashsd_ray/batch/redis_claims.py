"""Claims in a Redis that several drivers share: a unit belongs to who was first, for as long as that driver is alive."""

from __future__ import annotations

import time
import uuid
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from itertools import islice
from typing import Any, TypeVar

from redis import Redis
from redis.exceptions import RedisError

from flashsd_ray.batch.claims import Claim
from flashsd_ray.config import StoresConfig
from flashsd_ray.errors import UnavailableError
from flashsd_ray.stores.redis_address import RedisAddress, parse_address, with_password_of
from flashsd_ray.stores.redis_connection import Deadline, make_pool

Answer = TypeVar("Answer")

KEPT_MS = 30 * 86_400_000  # what is known of a corpus is forgotten when nobody has worked on it for so long
PATIENCE_S = 60.0  # a Redis that is away for longer stops the run, which can be resumed
DONE = "done:"  # and who has done it
AT_ONCE = 1000

# A driver that is asked twice, because a worker of its own was lost, gets the same answer twice.
CLAIM = """
local owner = redis.call('HGET', KEYS[1], ARGV[1])
if owner and owner ~= ARGV[2] and owner ~= ARGV[3] then
  if string.sub(owner, 1, 5) == 'done:' then return 'done' end
  if redis.call('EXISTS', ARGV[4] .. owner) == 1 then return 'theirs' end
end
if owner ~= ARGV[3] then redis.call('HSET', KEYS[1], ARGV[1], ARGV[2]) end
redis.call('PEXPIRE', KEYS[1], ARGV[5])
return 'ours'
"""


@dataclass(slots=True)
class RedisClaims:
    """Claims of one driver on the units of one corpus; can be pickled, a copy speaks for the same driver."""

    config: StoresConfig
    corpus: str  # equal for runs that make the same output
    lease_s: float
    driver: str = field(default_factory=lambda: uuid.uuid4().hex[:12])
    _redis: Any = field(default=None, repr=False)
    _deadline: Deadline | None = field(default=None, repr=False)

    def __reduce__(self) -> Any:
        return RedisClaims, (self.config, self.corpus, self.lease_s, self.driver)

    def claim(self, unit_id: str) -> Claim:
        """Whether this driver may work on the unit.

        Raises:
            UnavailableError: Redis does not answer for long.
        """
        arguments = (unit_id, self.driver, DONE + self.driver, self._driver_key(""), KEPT_MS)
        return Claim(self._ask(lambda redis: redis.eval(CLAIM, 1, self._units, *arguments)).decode())

    def finish(self, unit_id: str) -> None:
        """The unit is in the output; raises as ``claim``."""
        self._ask(lambda redis: redis.hset(self._units, unit_id, DONE + self.driver))

    def renew(self) -> None:
        """This driver's units are its own for another lease; raises as ``claim``."""
        lease_ms = round(1000 * self.lease_s)
        self._ask(lambda redis: redis.set(self._driver_key(self.driver), b"", px=lease_ms))

    def release(self) -> None:
        """This driver's units are free; raises as ``claim``."""
        self._ask(lambda redis: redis.delete(self._driver_key(self.driver)))

    def waiting(self, unit_ids: Iterable[str]) -> tuple[int, int]:
        """How many of the units other drivers work on, and how many are free; raises as ``claim``."""
        theirs = free = 0
        for some in _chunks(unit_ids):
            owners = [owner.decode() if owner else "" for owner in self._owners(some)]
            open_ = [owner for owner in owners if not owner.startswith(DONE)]
            alive = {owner for owner in set(open_) if owner and self._is_alive(owner)}
            theirs += sum(owner in alive for owner in open_)
            free += sum(owner not in alive for owner in open_)
        return theirs, free

    def _owners(self, unit_ids: list[str]) -> list[bytes | None]:
        owners: list[bytes | None] = self._ask(lambda redis: redis.hmget(self._units, unit_ids))
        return owners

    def _is_alive(self, driver: str) -> bool:
        return driver != self.driver and bool(self._ask(lambda redis: redis.exists(self._driver_key(driver))))

    @property
    def _units(self) -> str:
        # The braces keep all keys of a corpus on one server of a Redis Cluster.
        return f"{self.config.prefix}:batch:{{{self.corpus}}}:units"

    def _driver_key(self, driver: str) -> str:
        return f"{self.config.prefix}:batch:{{{self.corpus}}}:driver:{driver}"

    def _ask(self, call: Callable[[Any], Answer]) -> Answer:
        """What Redis answers, within a minute of trying."""
        end_s = time.monotonic() + PATIENCE_S
        while True:
            try:
                redis, deadline = self._connected()
                with deadline.within(self.config.timeout_s):
                    return call(redis)
            except (RedisError, OSError) as error:
                if time.monotonic() > end_s:
                    reason = type(error).__name__
                    raise UnavailableError(f"the ledger's Redis does not answer ({reason})") from error
                time.sleep(min(self.config.retry_s, 1.0))

    def _connected(self) -> tuple[Any, Deadline]:
        if self._redis is None or self._deadline is None:
            self._deadline = Deadline()
            pool = make_pool(_address_of(self.config), self.config, self._deadline)
            self._redis = Redis(connection_pool=pool)
        return self._redis, self._deadline


def open_claims(config: StoresConfig, url: str, corpus: str, lease_s: float) -> RedisClaims:
    """The claims of a new driver, in the Redis at the address; it is alive from now on.

    Raises:
        ConfigError: the address, or the file with its password, cannot be used.
        UnavailableError: Redis does not answer.
    """
    settings = replace(config, url=url)
    _address_of(settings)
    claims = RedisClaims(settings, corpus, lease_s)
    claims.renew()
    return claims


def _address_of(config: StoresConfig) -> RedisAddress:
    """The ledger's address; its own password, where it has one, comes before that of ``stores.password_file``."""
    address = parse_address(config.url)
    return address if address.password is not None else with_password_of(config.password_file, address)


def _chunks(unit_ids: Iterable[str]) -> Iterator[list[str]]:
    rest = iter(unit_ids)
    while some := list(islice(rest, AT_ONCE)):
        yield some
