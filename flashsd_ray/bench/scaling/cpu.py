"""Processor time of a measurement's processes, by what they are, as Linux tells it."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from flashsd_ray.bench.serving.memory import PROC, Process, processes, tree

CpuSeconds: TypeAlias = Mapping[str, float]  # by part
SPLIT = ("edge", "lane", "encoder")  # in whose processes one thread does the work, one thing after the other
BESIDE = " beside"  # what the other threads of such a process do: Ray's messages, decoding of pictures
PARTS = (*SPLIT, *(part + BESIDE for part in SPLIT), "client", "fleet", "ray")
# What the actors of the fleet call themselves.
ACTORS = {"ray::LanePart": "lane", "ray::EncoderPart": "encoder", "ray::Fleet": "fleet"}
FIRST_TIME_FIELD = 11  # of /proc/PID/stat behind the name, which may hold anything: user and system ticks


@dataclass(frozen=True, slots=True)
class Reading:
    """What one process has used so far."""

    part: str
    used_s: float
    threads: Mapping[int, float] = field(default_factory=dict)  # seconds of each, where that is of interest


class Clock:
    """Reads how much processor time each part has used since it began.

    The process that holds the clock is the edge; of those that descend from it, the given ones are clients, actors are
    known by name, and the rest is Ray.
    """

    def __init__(self, client_pids: Sequence[int], root: int | None = None, proc: Path = PROC) -> None:
        self._root = os.getpid() if root is None else root
        self._clients = frozenset(client_pids)
        self._proc = proc

    def read(self) -> Mapping[int, Reading]:
        """Every process and what it has used so far."""
        found = {}
        for pid, one in tree(self._root, processes(self._proc)).items():
            part = self._part(pid, one)
            threads = self._threads(pid) if part in SPLIT else {}
            found[pid] = Reading(part, used_s(pid, self._proc), threads)
        return found

    def during(self, before: Mapping[int, Reading]) -> CpuSeconds:
        """Seconds of every part since it was read before."""
        totals = dict.fromkeys(PARTS, 0.0)
        for pid, now in self.read().items():
            earlier = before.get(pid, Reading(now.part, 0.0))
            used = max(0.0, now.used_s - earlier.used_s)
            if now.part in SPLIT:
                spent = [seconds - earlier.threads.get(thread, 0.0) for thread, seconds in now.threads.items()]
                working = min(used, max(spent, default=used))
                totals[now.part + BESIDE] += used - working
                used = working
            totals[now.part] += used
        return totals

    def _threads(self, pid: int) -> dict[int, float]:
        folder = self._proc / str(pid) / "task"
        with suppress(OSError):
            return {int(thread.name): used_s(int(thread.name), folder) for thread in folder.iterdir()}
        return {}

    def _part(self, pid: int, one: Process) -> str:
        if pid == self._root:
            return "edge"
        return "client" if pid in self._clients else ACTORS.get(one.name, "ray")


def machine_s(proc: Path = PROC) -> float:
    """Processor seconds that everything on this machine has used so far."""
    with (proc / "stat").open() as file:
        user, nice, system, _idle, _waiting, *interrupts = (int(word) for word in file.readline().split()[1:8])
    return (user + nice + system + sum(interrupts)) / os.sysconf("SC_CLK_TCK")


def used_s(pid: int, proc: Path = PROC) -> float:
    """Processor seconds of a process so far; 0 for one that has ended."""
    try:
        words = (proc / str(pid) / "stat").read_text().rpartition(")")[2].split()
    except OSError:
        return 0.0
    user, system = words[FIRST_TIME_FIELD : FIRST_TIME_FIELD + 2]
    return (int(user) + int(system)) / os.sysconf("SC_CLK_TCK")
