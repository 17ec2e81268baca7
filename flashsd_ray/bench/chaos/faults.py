"""Faults of a schedule, one after the other as the load goes on, and how long each is felt."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from flashsd_ray.bench.chaos.cluster import Cluster, is_running, process_of, send
from flashsd_ray.bench.chaos.redis import RedisProcess
from flashsd_ray.bench.chaos.schedule import Fault, Target
from flashsd_ray.config import Config
from flashsd_ray.timeouts import within

LOOK_S = 0.3
GIVE_UP_S = 900.0  # nobody waits longer for a part to be back; another fault may take it again meanwhile
PREFIXES: dict[Target, str] = {"lane": "lane-", "rank": "rank-", "encoder": "encoder-", "drafter": "drafter-of-"}
OF_MANY: tuple[Target, ...] = ("fleet", "node", "head")  # what takes parts of several kinds along


@dataclass(slots=True, kw_only=True)
class Felt:
    """What came of one fault; times are seconds since the load began."""

    fault: Fault
    victim: str = ""
    began_s: float = 0.0
    whole_s: float | None = None  # when everything was there again; None: it never was
    answered_s: float | None = None  # when the first request that was sent after the fault had its answer

    @property
    def recovery_s(self) -> float | None:
        """Until everything was there again."""
        return None if self.whole_s is None else self.whole_s - self.began_s

    @property
    def outage_s(self) -> float | None:
        """Until a request that was sent after the fault was answered."""
        return None if self.answered_s is None else self.answered_s - self.began_s

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {
            "kind": self.fault.kind,
            "victim": self.victim,
            "began_s": self.began_s,
            "recovery_s": self.recovery_s,
            "outage_s": self.outage_s,
        }


class Saboteur:
    """Hurts a cluster, and watches it recover."""

    def __init__(
        self,
        cluster: Cluster,
        redis: RedisProcess,
        config: Config,
        now: Callable[[], float],
    ) -> None:
        self._cluster = cluster
        self._redis = redis
        self._wanted = parts_wanted(config)
        self._now = now
        self._stopped: dict[int, str] = {}  # processes that hang by our doing

    async def hurt(self, fault: Fault) -> Felt:
        """The fault has happened, and everything is there again or was waited for in vain."""
        felt = Felt(fault=fault, began_s=self._now())
        try:
            await within(GIVE_UP_S, self._carried_out(felt))
            felt.whole_s = self._now()
        except asyncio.TimeoutError:
            pass
        return felt

    def leftovers(self) -> list[str]:
        """Parts that were stopped and whose processes nobody has ended; they are ended now."""
        left = {pid: name for pid, name in self._stopped.items() if is_running(pid)}
        for pid in left:
            send(pid, signal.SIGKILL)
        return sorted(left.values())

    async def _carried_out(self, felt: Felt) -> None:
        fault = felt.fault
        if fault.target == "redis":
            felt.victim = "redis"
            await (self._redis.restart() if fault.action == "restart" else self._redis.delay(fault.length_s))
            await self._redis.answers()
        elif fault.target in PREFIXES:
            await self._hurt_part(felt)
        else:
            felt.victim = await self._cluster.kill(fault.target, fault.pick)
            while await self._cluster.identity(fault.target) in ("", felt.victim):  # noqa: ASYNC110 - nobody tells
                await asyncio.sleep(LOOK_S)
        while not await self._is_whole(fault.target):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK_S)

    async def _hurt_part(self, felt: Felt) -> None:
        fault = felt.fault
        name, pid = await self._chosen(fault)
        felt.victim, felt.began_s = name, self._now()
        if fault.action == "delay":
            send(pid, signal.SIGSTOP)
            await asyncio.sleep(fault.length_s)
            send(pid, signal.SIGCONT)
            return
        if fault.action == "hang":
            self._stopped[pid] = name
        send(pid, signal.SIGKILL if fault.action == "kill" else signal.SIGSTOP)
        while is_running(pid):  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(LOOK_S)

    async def _chosen(self, fault: Fault) -> tuple[str, int]:
        while True:
            parts = await self._cluster.parts()
            names = sorted(name for name in parts if name.startswith(PREFIXES[fault.target]))
            if names:
                name = names[int(fault.pick * len(names))]
                if pid := await process_of(parts[name]):
                    return name, pid
            await asyncio.sleep(LOOK_S)

    async def _is_whole(self, target: Target) -> bool:
        """Whether the parts of this kind are all there and answer; with the fleet, everything."""
        if target in ("http-edge", "grpc-edge"):
            return await (self._cluster.http_answers() if target == "http-edge" else self._cluster.grpc_answers())
        if target == "redis":
            return True
        concerned = [one for one in PREFIXES if target in (one, *OF_MANY)]
        parts = await self._cluster.parts()
        parts = {
            name: part for name, part in parts.items() if name.startswith(tuple(PREFIXES[one] for one in concerned))
        }
        for one in concerned:
            if sum(name.startswith(PREFIXES[one]) for name in parts) < self._wanted[one]:
                return False
        if target == "head" and not (await self._cluster.http_answers() and await self._cluster.grpc_answers()):
            return False
        return all(await asyncio.gather(*map(process_of, parts.values())))


def parts_wanted(config: Config) -> dict[Target, int]:
    """How many parts of each kind the configuration asks for."""
    placement = config.placement
    return {
        "lane": placement.num_lanes,
        "rank": placement.num_lanes * (config.model.tensor_parallel - 1),
        "encoder": placement.num_encoders,
        "drafter": placement.num_lanes if placement.kind == "dedicated" else 0,
    }


async def carry_out(
    faults: Sequence[Fault],
    saboteur: Saboteur,
    num_ended: Callable[[], int],
    changed: asyncio.Condition,
    on_end: Callable[[Felt], None],
    *,
    is_apart: bool = False,
) -> list[Felt]:
    """Each fault happens when enough requests have ended, and also those before it are recovered from if they are apart."""

    async def one(fault: Fault) -> Felt:
        felt = await saboteur.hurt(fault)
        on_end(felt)
        return felt

    running = []
    for fault in faults:
        async with changed:
            await changed.wait_for(lambda fault=fault: num_ended() >= fault.after)  # type: ignore[misc]
        running.append(asyncio.create_task(one(fault)))
        if is_apart:
            await running[-1]
    return list(await asyncio.gather(*running))
