"""Which part is hurt, how, and when: a function of a seed."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

Action: TypeAlias = Literal["kill", "hang", "delay", "restart", "poison"]
Target: TypeAlias = Literal[
    "lane", "rank", "encoder", "drafter", "fleet", "http-edge", "grpc-edge", "redis", "node", "head"
]

# A hang lasts until somebody ends the process; a delay ends by itself, and a restart forgets what was kept.
KINDS: tuple[tuple[Action, Target], ...] = (
    ("kill", "lane"),
    ("hang", "lane"),
    ("delay", "lane"),
    ("kill", "encoder"),
    ("hang", "encoder"),
    ("delay", "encoder"),
    ("kill", "drafter"),
    ("hang", "drafter"),
    ("delay", "drafter"),
    ("kill", "http-edge"),
    ("kill", "grpc-edge"),
    ("kill", "fleet"),
    ("restart", "redis"),
    ("delay", "redis"),
    ("poison", "lane"),
    ("poison", "encoder"),
    ("kill", "rank"),
    ("hang", "rank"),
    ("kill", "node"),
    ("kill", "head"),
)
EARLIEST, LATEST = 0.02, 0.85  # of all requests: the last faults are to be recovered from under load
SHORTEST_DELAY_S, LONGEST_DELAY_S = 0.2, 1.5


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """One thing that goes wrong."""

    action: Action
    target: Target
    after: int  # requests that have ended by then
    pick: float  # 0..1: which one of its kind is hurt
    length_s: float  # of a delay

    @property
    def kind(self) -> str:
        """In words."""
        return f"{self.action} {self.target}"


def possible(
    kinds: Sequence[tuple[Action, Target]] = KINDS,
    *,
    has_drafters: bool,  # in processes of their own
    has_ranks: bool,  # lanes are gangs
    has_nodes: bool,  # beside the head, on which no part stands
) -> tuple[tuple[Action, Target], ...]:
    """Of these kinds, those that have somebody to befall."""
    absent: set[Target] = set()
    absent |= set() if has_drafters else {"drafter"}
    absent |= set() if has_ranks else {"rank"}
    absent |= set() if has_nodes else {"node", "head"}
    return tuple(kind for kind in kinds if kind[1] not in absent)


def schedule(
    *,
    seed: int,
    num_faults: int,
    num_requests: int,
    kinds: Sequence[tuple[Action, Target]] = KINDS,
) -> tuple[Fault, ...]:
    """The faults in their order; every kind as often as every other, give or take one."""
    chance = random.Random(seed)
    chosen: list[tuple[Action, Target]] = []
    while len(chosen) < num_faults:
        chosen += chance.sample(list(kinds), len(kinds))
    span = (LATEST - EARLIEST) * num_requests
    steps = sorted(EARLIEST * num_requests + chance.random() * span for _ in range(num_faults))
    return tuple(
        Fault(
            action=action,
            target=target,
            after=int(step),
            pick=chance.random(),
            length_s=chance.uniform(SHORTEST_DELAY_S, LONGEST_DELAY_S),
        )
        for (action, target), step in zip(chosen[:num_faults], steps, strict=True)
    )
