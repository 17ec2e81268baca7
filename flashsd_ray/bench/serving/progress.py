"""Bars on standard error that say how far a measurement is; only on a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import TypeVar

T = TypeVar("T")


@contextmanager
def counting(description: str, total: int) -> Iterator[Callable[[], None]]:
    """A function that counts one more; inside the block a bar shows how many of ``total`` there are."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    # It is drawn when something was counted and at no other time: a thread that draws takes time from what is measured.
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    bar = Progress(
        *columns,
        console=Console(stderr=True),
        auto_refresh=False,
        transient=True,
        redirect_stdout=False,
        redirect_stderr=False,
        disable=not sys.stderr.isatty(),
    )
    with bar:
        task = bar.add_task(description, total=total)
        bar.refresh()

        def count() -> None:
            bar.advance(task)
            bar.refresh()

        yield count


def counted(description: str, items: Sequence[T]) -> Iterable[T]:
    """The items, counted by a bar."""
    with counting(description, len(items)) as count:
        for item in items:
            yield item
            count()
