"""What is measured, and in which order: everybody gets the same clips, and a run cut short is short everywhere."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

FEWEST_TURNS = 8  # of a batch size; an interval over fewer would say nothing
FEWEST_FOREIGN = 4  # the same for foreign contenders, which are slow


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """One temperature and one batch size."""

    temperature: float
    batch_size: int


@dataclass(frozen=True, slots=True, order=True)
class Turn:
    """One batch of clips, which every contender of the turn answers."""

    cell: Cell
    number: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """Cells, clips and contenders."""

    cells: tuple[Cell, ...]
    num_clips: int
    contenders: tuple[str, ...]
    num_baseline_clips: int = 0  # the first ones, which foreign contenders answer as well
    foreign: frozenset[str] = frozenset()  # contenders that only see these
    alone: frozenset[str] = frozenset()  # contenders that can answer one question at a time only

    def num_turns(self, cell: Cell) -> int:
        """Enough that every clip is answered, and that there are some to resample."""
        if cell.batch_size == 1:
            return self.num_clips
        return max(FEWEST_TURNS, -(-self.num_clips // cell.batch_size))

    def turns(self) -> list[Turn]:
        """All turns; at every moment about the same share of each cell is done."""
        shares = [
            ((number + 0.5) / self.num_turns(cell), cell, number)
            for cell in self.cells
            for number in range(self.num_turns(cell))
        ]
        return [Turn(cell, number) for _, cell, number in sorted(shares)]

    def clips_of(self, turn: Turn) -> list[int]:
        """Batches are always full: behind the last clip the first ones come again, in other company."""
        first = turn.number * turn.cell.batch_size
        size = min(turn.cell.batch_size, self.num_clips)
        return [(first + offset) % self.num_clips for offset in range(size)]

    def order(self, turn: Turn) -> list[str]:
        """Who answers, one after the other; each begins as often as the others."""
        has_foreign = turn.number < self._num_foreign_turns(turn.cell)
        taking_part = [
            name
            for name in self.contenders
            if (name not in self.foreign or has_foreign) and (name not in self.alone or turn.cell.batch_size == 1)
        ]
        first = turn.number % len(taking_part)
        return taking_part[first:] + taking_part[:first]

    def _num_foreign_turns(self, cell: Cell) -> int:
        if not self.num_baseline_clips:
            return 0
        return max(FEWEST_FOREIGN, -(-self.num_baseline_clips // cell.batch_size))


def cells_of(temperatures: Sequence[float], batch_sizes: Sequence[int]) -> tuple[Cell, ...]:
    """Every temperature with every batch size."""
    return tuple(Cell(temperature, size) for temperature in temperatures for size in batch_sizes)
