"""Resident memory of a server's processes, as Linux tells it."""

from __future__ import annotations

import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from time import monotonic

PROC = Path("/proc")
# Parts of Ray that hold nothing of ours, and workers that wait for work and come and go.
NOT_OURS = ("gcs_server", "raylet", "ray::IDLE", "ray::DashboardAgent", "ray::RuntimeEnvAgent", "python")
FEWEST_READINGS = 16  # that say anything about growth


@dataclass(frozen=True, slots=True)
class Process:
    """One process and what it takes."""

    name: str  # what it calls itself, for a Ray actor the name of its class
    parent: int
    rss_bytes: int


def processes(proc: Path = PROC) -> dict[int, Process]:
    """Every process of the machine that can be looked at."""
    found = {}
    for directory in proc.iterdir():
        if directory.name.isdigit():
            try:
                status = dict(line.split(":\t", 1) for line in (directory / "status").read_text().splitlines())
                words = (directory / "cmdline").read_bytes().split(b"\0")
            except (OSError, ValueError):
                continue  # it has ended, or is none of ours
            rss_kb = status.get("VmRSS", "0 kB").split()[0]
            found[int(directory.name)] = Process(_name(words), int(status["PPid"]), int(rss_kb) * 1024)
    return found


def _name(words: Sequence[bytes]) -> str:
    first = words[0].decode("utf-8", "replace") if words else ""
    # An actor's title also tells the method that runs; the name of its class is what stays.
    return first.split(".")[0] if first.startswith("ray::") else Path(first.split(" ")[0]).name


def tree(root: int, found: Mapping[int, Process]) -> dict[int, Process]:
    """The root and everything that descends from it."""
    inside = {root} & set(found)
    while more := {pid for pid, one in found.items() if one.parent in inside} - inside:
        inside |= more
    return {pid: found[pid] for pid in inside}


def rss_by_part(root: int, proc: Path = PROC) -> dict[str, int]:
    """Bytes of each part of a server: the process that was started is ``server``, actors have the names of their class."""
    parts: dict[str, int] = {}
    for pid, one in tree(root, processes(proc)).items():
        name = "server" if pid == root else one.name
        if pid == root or not one.name.startswith(NOT_OURS):
            parts[name] = parts.get(name, 0) + one.rss_bytes
    return parts


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory at one moment."""

    at: float  # seconds, of whatever clock the measurement goes by
    parts: Mapping[str, int]  # bytes

    @property
    def total_bytes(self) -> int:
        """Of all parts."""
        return sum(self.parts.values())

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"at": self.at, "total_bytes": self.total_bytes, "parts": dict(self.parts)}


@dataclass(slots=True)
class Watch:
    """Readings as they are taken."""

    root: int
    readings: list[Reading] = field(default_factory=list)

    def read(self, at: float) -> None:
        """One more reading is there."""
        self.readings.append(Reading(at, rss_by_part(self.root)))


@contextmanager
def watched(root: int, period_s: float) -> Iterator[Watch]:
    """Memory is read from now on until the end of the block, in a thread; times count from here."""
    watch, ended, start_s = Watch(root), threading.Event(), monotonic()

    def run() -> None:
        while not ended.wait(period_s):
            watch.read(monotonic() - start_s)

    watch.read(0.0)
    thread = threading.Thread(target=run, name="memory", daemon=True)
    thread.start()
    try:
        yield watch
    finally:
        ended.set()
        thread.join()


def growth(readings: Sequence[Reading]) -> float | None:
    """Last quarter over second quarter, minus one: what comes before is warming up. None: too few to tell."""
    if len(readings) < FEWEST_READINGS:
        return None
    series = [reading.total_bytes for reading in readings]
    quarter = len(series) // 4
    return median(series[-quarter:]) / median(series[quarter : 2 * quarter]) - 1
