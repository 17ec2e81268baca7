"""Memory of a run over time, by the part that its processes play.

Proportional: a page that several processes share counts in parts that add up to one. What is in Ray's object store, which all
of them have mapped, is a part of its own.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashsd_ray.bench.batch.drivers import TITLES, children_of, title_of

PROC = Path("/proc")
FEWEST_READINGS = 16  # that say anything about growth
STORE = "object store"


@dataclass(frozen=True, slots=True)
class Reading:
    """Memory at one moment."""

    at_s: float
    parts: dict[str, int]  # bytes
    num_processes: int

    @property
    def total_bytes(self) -> int:
        """Of all parts."""
        return sum(self.parts.values())

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return {"at_s": self.at_s, "parts": self.parts, "total": self.total_bytes, "processes": self.num_processes}


def read_memory(driver: int, began_s: float) -> Reading:
    """Memory of the driver and of everything below it; times count from ``began_s``, by the monotonic clock."""
    parts: dict[str, int] = {}
    pids = [driver, *children_of(driver)]
    for pid in pids:
        part = "driver" if pid == driver else part_of(title_of(pid))
        num_bytes, in_store = proportional_bytes(pid)
        parts[part] = parts.get(part, 0) + num_bytes - in_store
        parts[STORE] = parts.get(STORE, 0) + in_store
    return Reading(time.monotonic() - began_s, parts, len(pids))


def part_of(title: str) -> str:
    """What a process with this title does for a run; a worker reads clips now and waits for some later."""
    if title.startswith(TITLES["lane"]):
        return "lanes"
    return "workers" if title.startswith("ray::") else "ray"


def proportional_bytes(pid: int, proc: Path = PROC) -> tuple[int, int]:
    """Bytes of a process and those of them that are shared memory; shared pages in parts; 0 where it is gone."""
    try:
        lines = (proc / str(pid) / "smaps_rollup").read_text().splitlines()
    except OSError:
        return 0, 0
    sizes = {line.split(":")[0]: int(line.split()[1]) * 1024 for line in lines if line.startswith("Pss")}
    return sizes.get("Pss", 0), sizes.get("Pss_Shmem", 0)


def while_captioning(readings: Sequence[Reading]) -> list[Reading]:
    """The readings from the first to the last at which there was a lane; reports are written after that."""
    places = [place for place, one in enumerate(readings) if one.parts.get("lanes")]
    return list(readings[places[0] : places[-1] + 1]) if places else []


def drift(readings: Sequence[Reading], part: str | None = None) -> float | None:
    """Growth over the second half of a run along a fitted line, relative to its mean there; None: too few to tell.

    A line through everything, and not the last reading less the first: single peaks do not decide.
    """
    late = readings[len(readings) // 2 :]
    if len(readings) < FEWEST_READINGS:
        return None
    sizes = [one.total_bytes if part is None else one.parts.get(part, 0) for one in late]
    mean_size, mean_s = sum(sizes) / len(late), sum(one.at_s for one in late) / len(late)
    spread = sum((one.at_s - mean_s) ** 2 for one in late)
    if not mean_size or not spread:
        return 0.0
    slope = sum((one.at_s - mean_s) * (size - mean_size) for one, size in zip(late, sizes, strict=True)) / spread
    return slope * (late[-1].at_s - late[0].at_s) / mean_size


def table(readings: Sequence[Reading]) -> list[dict[str, Any]]:
    """For each part and for all: MB at a quarter, half and the end of the run, and the drift of the second half."""
    rows: list[dict[str, Any]] = []
    names = sorted({name for one in readings for name in one.parts})
    for name in [*names, None]:
        sizes = [one.total_bytes if name is None else one.parts.get(name, 0) for one in readings]
        row: dict[str, Any] = {"part": name or "all"}
        for label, share in (("at a quarter", 0.25), ("at half", 0.5), ("at the end", 1.0)):
            row[label] = _around(sizes, share) / 1e6
        rows.append(row | {"drift": drift(readings, name)})
    return rows


def _around(sizes: Sequence[int], share: float) -> float:
    """The mean of a twentieth of the readings that end at this share of them; the very last ones belong to the end."""
    stop = max(1, round(len(sizes) * share))
    some = sizes[max(0, stop - max(1, len(sizes) // 20)) : stop]
    return sum(some) / len(some)
