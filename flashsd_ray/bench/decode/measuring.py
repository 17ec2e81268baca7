"""The turns of a plan, one after the other: every contender answers the same batch, whoever begins."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from time import monotonic
from typing import Any

from flashsd_ray.bench.decode.contenders import Contender, Outcome
from flashsd_ray.bench.decode.plan import Cell, Plan, Turn
from flashsd_ray.bench.journal import ResultJournal
from flashsd_ray.bench.workload import Question
from flashsd_ray.types import SamplingParams


@dataclass(frozen=True, slots=True)
class Measured:
    """One turn and what each of its contenders made of it."""

    turn: Turn
    outcomes: Mapping[str, Outcome]

    def as_dict(self) -> dict[str, Any]:
        """For the journal."""
        cell = self.turn.cell
        return {
            "temperature": cell.temperature,
            "batch_size": cell.batch_size,
            "turn": self.turn.number,
            "outcomes": {name: outcome.as_dict() for name, outcome in self.outcomes.items()},
        }

    @classmethod
    def of(cls, values: Mapping[str, Any]) -> Measured:
        """What ``as_dict`` was made from."""
        turn = Turn(Cell(values["temperature"], values["batch_size"]), values["turn"])
        return cls(turn, {name: Outcome.of(outcome) for name, outcome in values["outcomes"].items()})


def measure(
    plan: Plan,
    contenders: Mapping[str, Contender],
    questions: Sequence[Question],
    journal: ResultJournal,
    *,
    max_new_tokens: int,
    seconds: float,  # none begins a turn afterwards
    count: Callable[[], None] = lambda: None,  # called for each turn that is done
) -> list[Measured]:
    """What all turns gave that are done by now, those of earlier runs included; the others are left for a later one.

    Before its first turn in this process each contender answers one batch of the cell that is not counted.
    """
    done = {measured.turn: measured for measured in map(Measured.of, journal.results)}
    ends_s, warm = monotonic() + seconds, set[tuple[Cell, str]]()
    for turn in plan.turns():
        if turn in done:
            count()
            continue
        if monotonic() >= ends_s:
            break
        batch = [questions[index] for index in plan.clips_of(turn)]
        samplings = [_sampling(turn.cell, index, max_new_tokens) for index in plan.clips_of(turn)]
        outcomes = {}
        for name in plan.order(turn):
            if (turn.cell, name) not in warm:
                contenders[name].answer(batch, samplings)
                warm.add((turn.cell, name))
            outcomes[name] = contenders[name].answer(batch, samplings)
        done[turn] = Measured(turn, outcomes)
        journal.add(done[turn].as_dict())
        count()
    return sorted(done.values(), key=lambda measured: measured.turn)


def _sampling(cell: Cell, clip: int, max_new_tokens: int) -> SamplingParams:
    return SamplingParams(max_new_tokens=max_new_tokens, temperature=cell.temperature, seed=clip)


def of_cell(measured: Iterable[Measured], cell: Cell) -> list[Measured]:
    """The turns of the cell."""
    return [one for one in measured if one.turn.cell == cell]
