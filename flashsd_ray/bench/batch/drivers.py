"""``flashsd batch`` in a process of its own, and the processes of its Ray: what can be killed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Victim = Literal["driver", "lane", "reader"]

# Beginnings of what Ray calls its processes while they run something.
TITLES: dict[str, str] = {"lane": "ray::MapWorker(MapBatches(LaneWorker)", "reader": "ray::MapBatches(_read)"}


@dataclass(slots=True)
class Driver:
    """One run of the command."""

    process: subprocess.Popen[bytes]
    log: Path

    @classmethod
    def start(cls, words: Sequence[str], log: Path) -> Driver:
        """The command runs in a session of its own; what it says goes to the log."""
        command = [sys.executable, "-m", "flashsd_ray", "batch", *words]
        with log.open("ab") as said:
            process = subprocess.Popen(command, stdout=said, stderr=said, start_new_session=True)
        return cls(process, log)

    @property
    def exit_code(self) -> int | None:
        """None while it runs."""
        return self.process.poll()

    def wait(self, timeout_s: float) -> int | None:
        """The exit code; None when it still runs after the time."""
        with suppress(subprocess.TimeoutExpired):
            return self.process.wait(timeout_s)
        return None

    def kill(self) -> None:
        """The driver is dead, without having been asked; its Ray notices by itself."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Nothing of the run is left."""
        for pid in [*children_of(self.process.pid), self.process.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()

    def workers(self, kind: str) -> list[int]:
        """Processes of the run's Ray that are busy as this kind of worker."""
        return [pid for pid in children_of(self.process.pid) if title_of(pid).startswith(TITLES[kind])]


def children_of(pid: int) -> list[int]:
    """All processes below this one."""
    parents = dict(_parents())
    found = []
    for child in parents:
        above = child
        while above in parents:
            above = parents[above]
            if above == pid:
                found.append(child)
                break
    return found


def title_of(pid: int) -> str:
    """What a process calls itself; empty where it is gone."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
    except OSError:
        return ""


def _parents() -> Iterator[tuple[int, int]]:
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            with suppress(OSError, IndexError):
                # After the name, which is in brackets and may hold anything.
                fields = (entry / "stat").read_text().rpartition(")")[2].split()
                yield int(entry.name), int(fields[1])
