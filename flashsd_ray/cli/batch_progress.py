"""What a person sees of a run over a corpus: a bar on a terminal, a line a minute anywhere else."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

from flashsd_ray.cli.live_bar import LiveBar
from flashsd_ray.cli.terminal import visible

if TYPE_CHECKING:
    from flashsd_ray.batch.tallies import Progress, Summary

LINE_EVERY_S = 60.0  # where there is no terminal


class ProgressBar(LiveBar):
    """Listens to a run and writes to standard error."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        super().__init__(on_interrupt="interrupted; the same command goes on where this one stopped")
        self._clock = clock
        self._next_s = clock() + LINE_EVERY_S

    def __call__(self, progress: Progress) -> None:
        """How the run stands is shown."""
        if self._bar is not None:
            total, done = progress.total_rows, progress.num_done
            self._update("captioning", total, done, line(progress))
        elif self._clock() >= self._next_s:
            self._next_s = self._clock() + LINE_EVERY_S
            self._print(line(progress))


def line(progress: Progress) -> str:
    """How the run stands, in one line."""
    of = f" of {progress.total_rows}" if progress.total_rows is not None else ""
    rate = f"{3600 * progress.rows_per_s:.0f} rows/h" if progress.num_rows else "no rate yet"
    failed = f", {progress.num_errors} errors" if progress.num_errors else ""
    left = f", {duration(progress.left_s)} left" if progress.left_s is not None else ""
    return f"{progress.num_done}{of} rows, {rate}{failed}{left}"


def duration(seconds: float) -> str:
    """A time for people."""
    for name, length in (("d", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 1.5 * length:
            return f"{seconds / length:.1f} {name}"
    return f"{seconds:.0f} s"


def told(summary: Summary, output: str, problem: str = "") -> str:
    """What a run came to, for standard output."""
    progress = summary.progress
    lines = [
        f"{output}: {progress.num_rows} rows captioned in {duration(progress.seconds)}"
        f" ({3600 * progress.rows_per_s:.0f} rows/h, {progress.num_tokens} tokens)"
    ]
    lines += [f"  {count} x {visible(kind)}" for kind, count in sorted(progress.errors.items())]
    if summary.waiting_share is not None:
        lines.append(f"  lanes waited for clips {100 * summary.waiting_share:.1f} % of their time")
    if summary.num_repeated_passes:
        lines.append(f"  workers were lost; what they had was done again ({summary.num_repeated_passes} times)")
    if summary.stopped:
        lines.append(f"  stopped: {summary.stopped}; the same command goes on")
    if problem:
        lines.append(f"  {problem}")
    return "\n".join(lines)
