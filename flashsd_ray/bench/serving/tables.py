"""Markdown tables that grow while a measurement runs."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TextIO


class MarkdownTable:
    """Its head is written at once, each row as it is known."""

    def __init__(self, *columns: str, out: TextIO | None = None) -> None:
        self._num_columns = len(columns)
        self._out = out or sys.stdout
        self._write(columns)
        self._write(["---"] * len(columns))

    def row(self, *cells: object) -> None:
        """One more row is written.

        Raises:
            ValueError: it has another number of cells than the head.
        """
        if len(cells) != self._num_columns:
            raise ValueError(f"{len(cells)} cells in a table of {self._num_columns} columns")
        self._write([str(cell).replace("|", "\\|").replace("\n", " ") for cell in cells])

    def _write(self, cells: Sequence[str]) -> None:
        print(f"| {' | '.join(cells)} |", file=self._out, flush=True)
