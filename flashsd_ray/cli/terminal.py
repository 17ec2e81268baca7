"""What a person at a terminal sees besides the answer: errors, what is going on, colours."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, TextIO

if TYPE_CHECKING:
    from rich.console import Console
    from rich.live import Live


def console(stream: TextIO | None = None) -> Console:
    """A console that writes to the stream, to standard output when none is named."""
    from rich.console import Console

    return Console(file=stream or sys.stdout, highlight=False, markup=False, emoji=False)


def report_error(message: str) -> None:
    """One line on standard error."""
    print(f"flashsd: error: {' '.join(message.split())}", file=sys.stderr, flush=True)


def visible(text: str) -> str:
    """The text without characters that would steer a terminal; line breaks and tabs stay."""
    return "".join(c if c.isprintable() or c in "\n\t" else "\ufffd" for c in text)


class Activity:
    """A line on standard error that says what is going on, while nothing else is being written; only on a terminal."""

    def __init__(self) -> None:
        self._live: Live | None = None
        self._is_shown = sys.stderr.isatty()

    def says(self, text: str, *, is_moving: bool = True) -> None:
        """The line is shown and reads so; one that does not move costs no time while something is being measured."""
        if not self._is_shown:
            return
        from rich.live import Live
        from rich.spinner import Spinner
        from rich.text import Text

        line = Text(f"{visible(text)} ...", style="dim")
        if self._live is not None and self._live.auto_refresh != is_moving:
            self.rests()
        if self._live is None:
            self._live = Live(console=console(sys.stderr), transient=True, auto_refresh=is_moving, refresh_per_second=8)
            self._live.start()
        self._live.update(Spinner("dots", line) if is_moving else line, refresh=True)

    def rests(self) -> None:
        """The line is gone, and something else may be written."""
        if self._live is not None:
            self._live.stop()
            self._live = None
