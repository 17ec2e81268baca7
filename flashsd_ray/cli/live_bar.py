"""A bar on standard error for work that takes long; where there is no terminal, its owner prints lines instead."""

from __future__ import annotations

import sys
from types import TracebackType
from typing import Any, TypeVar

from flashsd_ray.cli.terminal import console

Bar = TypeVar("Bar", bound="LiveBar")


class LiveBar:
    """Shown inside its block."""

    def __init__(
        self,
        *,
        on_interrupt: str,  # what somebody who presses Ctrl-C is told
    ) -> None:
        self._console = console(sys.stderr)
        self._on_interrupt = on_interrupt
        self._bar: Any = None  # None: no terminal

    def __enter__(self: Bar) -> Bar:
        if self._console.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn

            columns = (TextColumn("{task.description}"), BarColumn(bar_width=24), TextColumn("{task.fields[note]}"))
            self._bar = Progress(*columns, console=self._console, transient=True)
            self._bar.start()
            self._task = self._bar.add_task("starting", total=None, note="")
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        if self._bar is not None:
            self._bar.stop()
        if kind is KeyboardInterrupt:
            self._print(self._on_interrupt)

    def _print(self, line: str) -> None:
        self._console.print(line, soft_wrap=True)

    def _update(self, what: str, total: float | None, completed: float, note: str) -> None:
        self._bar.update(self._task, description=what, total=total, completed=completed, note=note)
