"""From decoded clips to the table: what each row reaches, and how rows that differ in one thing compare."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from flashsd_ray.bench.ablation.rows import PAIRS, AblationRow
from flashsd_ray.bench.decode.contenders import Outcome
from flashsd_ray.bench.decode.measuring import Measured
from flashsd_ray.bench.decode.summary import PLAIN, Row, rows_of
from flashsd_ray.bench.intervals import Ratio, rate_ratio


@dataclass(frozen=True, slots=True, kw_only=True)
class Run:
    """One row with one seed and one number of frames."""

    row: AblationRow
    frames: int
    seed: int
    measured: Sequence[Measured]
    described: Mapping[str, Any] = field(default_factory=dict)  # the drafter's config.json; empty where none is


@dataclass(frozen=True, slots=True, kw_only=True)
class RowResult:
    """A row with one number of frames, all seeds together."""

    row: AblationRow
    frames: int
    runs: Sequence[Run]
    decoded: Row  # at temperature 0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        trainings = [run.described.get("provenance", {}) for run in self.runs]
        return {
            "row": self.row.name,
            "text": self.row.text,
            "frames": self.frames,
            "seeds": [run.seed for run in self.runs],
            "trainings": [
                {name: made.get(name) for name in ("steps", "minutes", "num_answers", "num_parameters", "quality")}
                for made in trainings
                if made
            ],
            **self.decoded.as_dict(),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class PairResult:
    """Two rows that differ in one thing, clip by clip."""

    better: str
    than: str
    text: str
    frames: int
    tau: Ratio  # how many times larger

    @property
    def is_certain(self) -> bool:
        """Whether the interval leaves no doubt which one is larger."""
        return self.tau.low > 1.0 or self.tau.high < 1.0

    def as_dict(self) -> dict[str, Any]:
        """For JSON."""
        return {
            "row": self.better,
            "against": self.than,
            "text": self.text,
            "frames": self.frames,
            "tau": self.tau.as_dict(),
            "is_certain": self.is_certain,
        }


def results_of(runs: Sequence[Run]) -> list[RowResult]:
    """One for each row and number of frames that was decoded with."""
    groups: dict[tuple[int, str], list[Run]] = {}
    for run in sorted(runs, key=lambda run: run.frames):
        if run.measured:
            groups.setdefault((run.frames, run.row.name), []).append(run)
    found = []
    for (frames, _), mine in groups.items():
        row = mine[0].row
        rows = rows_of([one for run in mine for one in run.measured])
        name = PLAIN if row.is_plain else row.name
        decoded = [one for one in rows if one.contender == name and not one.cell.temperature]
        found += [RowResult(row=row, frames=frames, runs=mine, decoded=one) for one in decoded]
    return found


def pairs_of(results: Sequence[RowResult]) -> list[PairResult]:
    """The pairs both of whose rows are there."""
    known = {(result.frames, result.row.name): result for result in results}
    found = []
    for frames in sorted({result.frames for result in results}):
        for better, than, text in PAIRS:
            if (frames, better) in known and (frames, than) in known:
                mine, theirs = (_taus(known[frames, name]) for name in (better, than))
                shared = sorted(mine.keys() & theirs.keys())
                if shared:
                    tau = rate_ratio([theirs[key] for key in shared], [mine[key] for key in shared])
                    found.append(PairResult(better=better, than=than, text=text, frames=frames, tau=tau))
    return found


def _taus(result: RowResult) -> dict[tuple[int, int], tuple[float, float]]:
    """Tokens and rounds of each clip, by seed and turn."""
    found = {}
    for run in result.runs:
        for one in run.measured:
            outcome: Outcome | None = one.outcomes.get(result.row.name)
            if outcome is not None and outcome.rounds and not one.turn.cell.temperature:
                found[run.seed, one.turn.number] = (float(outcome.num_tokens), float(outcome.rounds))
    return found
