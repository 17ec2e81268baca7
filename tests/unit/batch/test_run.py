"""A run over what is in the output already, or over nothing, ends before anything is started."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from flashsd_ray.batch.job import Job
from flashsd_ray.batch.rows import Outcome, Unit
from flashsd_ray.batch.run import Run
from tests.unit.batch.test_planning import Rows


class Counted(Rows):
    def count(self) -> int:
        return self.number


class Output:
    """Holds units; counts how often it was listed."""

    def __init__(self, units: dict[str, list[Outcome]]) -> None:
        self.units = units
        self.num_listed = 0

    def write(self, unit_id: str, outcomes: Sequence[Outcome]) -> None:
        self.units[unit_id] = list(outcomes)

    def finished(self) -> Iterator[str]:
        self.num_listed += 1
        return iter(tuple(self.units))

    def read(self, unit_id: str) -> list[Outcome]:
        return self.units[unit_id]


def units_of(rows: Rows) -> list[Unit]:
    return list(rows.units(Job().config.batch.rows_per_unit))


def test_a_finished_run_has_nothing_to_do_and_lists_its_output_once():
    rows = Counted(100)
    output = Output({unit.unit_id: [Outcome(row_id=clip.row_id) for clip in unit.clips] for unit in units_of(rows)})
    summary = Run(job=Job(), source=rows, writer=output).nothing()
    assert summary is not None
    assert (summary.progress.num_rows, summary.stopped) == (0, "")
    assert output.num_listed == 1


def test_an_empty_input_has_nothing_to_do():
    assert Run(job=Job(), source=Counted(0), writer=Output({})).nothing() is not None


def test_a_missing_unit_is_something_to_do():
    rows = Counted(100)
    output = Output({units_of(rows)[0].unit_id: []})
    assert Run(job=Job(), source=rows, writer=output).nothing() is None


def test_only_failures_are_retried():
    rows = Counted(3)
    [unit] = units_of(rows)
    output = Output({unit.unit_id: [Outcome(row_id="row-0")]})
    assert Run(job=Job(), source=rows, writer=output, retries_failed=True).nothing() is not None
    output.units[unit.unit_id].append(Outcome(row_id="row-1", error="MediaError"))
    assert Run(job=Job(), source=rows, writer=output, retries_failed=True).nothing() is None
