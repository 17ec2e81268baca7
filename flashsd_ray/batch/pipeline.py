"""Planning, reading and captioning as one streaming execution of Ray Data, and the same for a dataset that is there.

planning (one task, a generator) -> reading (tasks on CPUs) -> captioning (a pool of lanes) -> whoever iterates

Every parcel is a block: what is under way at a time is bounded by the gate, not by the size of the corpus.
"""

from __future__ import annotations

import logging
import math
import warnings
from collections.abc import Generator, Iterable, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, Datasource, ReadTask, TaskPoolStrategy
from ray.data.block import BlockMetadata

from flashsd_ray.batch.claims import Claims, SoleDriver
from flashsd_ray.batch.gate import Waiter, start_gate
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.lane import LaneWorker
from flashsd_ray.batch.parcels import Head, head_of, outcomes_in, with_problem
from flashsd_ray.batch.planning import Selection, UnitSource, parcels
from flashsd_ray.batch.reading import read_parcel
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.config import amounts

log = logging.getLogger(__name__)

ROW_BY_ROW: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}
PATIENCE_S = 60.0  # a planner that hears nothing for so long goes on by one parcel


@dataclass(frozen=True, slots=True, kw_only=True)
class Pass:
    """One way through the corpus."""

    job: Job
    source: UnitSource
    selection: Selection = field(default_factory=Selection)
    claims: Claims = field(default_factory=SoleDriver)
    is_careful: bool = False  # one row at a time, so that one that kills its worker takes no other with it

    @property
    def rows_per_parcel(self) -> int:
        """Rows that travel together."""
        return 1 if self.is_careful else self.job.config.batch.rows_per_parcel

    @property
    def num_lanes(self) -> tuple[int, int]:
        """Fewest and most lanes."""
        least = self.job.config.placement.num_lanes
        return least, max(least, self.job.config.batch.max_lanes)

    @property
    def parcels_per_lane(self) -> int:
        """Parcels that a lane works on at once, so that it always has a full batch and some more waiting."""
        if self.is_careful:
            return 1
        requests = self.rows_per_parcel * max(1, len(self.job.prompts))
        return max(2, math.ceil(1.5 * self.job.config.scheduling.max_running / requests))

    @property
    def ahead(self) -> int:
        """Parcels that may be under way at a time."""
        workers = self.job.config.batch.decode_workers or num_cpus()
        return self.num_lanes[1] * (self.parcels_per_lane + 2) + 2 * workers + 4


def num_cpus() -> int:
    """CPUs of the cluster."""
    return max(1, int(ray.cluster_resources().get("CPU", 1)))  # type: ignore[no-untyped-call]


def captioned(work: Pass) -> Generator[tuple[Head, list[Outcome]], None, None]:
    """Every parcel as it was answered, in any order; the one without a unit tells how planning ended.

    What was lost with its worker ``batch.max_attempts`` times does not come. Leaving the loop ends the execution.
    """
    gate = start_gate()
    try:
        with _context():
            blocks = dataset(work, gate).iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=1)
            for table in blocks:
                for row in _rows(table):
                    head = head_of(row)
                    gate.tell.remote(head.serial)
                    yield head, outcomes_in(row) if head.unit_id and "problem" not in head.notes else []
    finally:
        ray.kill(gate)


def _rows(table: pa.Table) -> Iterator[pa.Table]:
    for index in range(table.num_rows):
        yield table.slice(index, 1)


def dataset(work: Pass, gate: Any) -> Dataset:
    """The parcels as they will be answered; nothing runs yet."""
    waiter = Waiter(gate, work.ahead, PATIENCE_S)
    planned: Dataset = ray.data.read_datasource(_Plan(work, waiter), override_num_blocks=1, num_cpus=0)
    with warnings.catch_warnings():
        # How often lost work is tried again can be said in no other way.
        warnings.filterwarnings("ignore", "`ray_remote_args`", category=DeprecationWarning)
        read: Dataset = planned.map_batches(
            partial(_read, job=work.job), compute=_readers(work.job), **ROW_BY_ROW, **reading_resources(work.job)
        )
        answered: Dataset = read.map_batches(
            LaneWorker,
            fn_constructor_args=(work.job,),
            compute=_lanes(work),
            **ROW_BY_ROW,
            **lane_resources(work.job),
        )
    return answered


def _readers(job: Job) -> TaskPoolStrategy:
    return TaskPoolStrategy(size=job.config.batch.decode_workers or None)


def _read(row: pa.Table, job: Job) -> Iterator[pa.Table]:
    try:
        yield from read_parcel(row, job)
    except Exception as error:
        log.exception("a parcel cannot be read")
        yield with_problem(head_of(row), "clips cannot be read", error)


def reading_resources(job: Job) -> dict[str, Any]:
    """What a task that reads clips takes, and how often it is tried again."""
    batch = job.config.batch
    return {"num_cpus": batch.decode_cpus, "max_retries": batch.max_attempts - 1}


def _lanes(work: Pass) -> ActorPoolStrategy:
    least, most = work.num_lanes
    return ActorPoolStrategy(
        min_size=least,
        max_size=most,
        max_tasks_in_flight_per_actor=work.parcels_per_lane + (0 if work.is_careful else 2),
        max_concurrent_calls_per_actor=work.parcels_per_lane,
    )


def lane_resources(job: Job) -> dict[str, Any]:
    """What a lane takes, with all ranks of a split target, and how often it and its parcels are tried again."""
    placement, ranks = job.config.placement, job.config.model.tensor_parallel
    resources: dict[str, Any] = {"num_cpus": ranks * placement.lane_cpus}
    if placement.lane_gpus:
        resources["num_gpus"] = ranks * placement.lane_gpus
    if placement.lane_resources:
        own = amounts(placement.lane_resources, "placement.lane_resources")
        resources["resources"] = {name: ranks * amount for name, amount in own.items()}
    # The pool's actors come back as often as they are lost; a parcel is tried again only so often.
    return resources | {"max_restarts": -1, "max_task_retries": job.config.batch.max_attempts - 1}


class _Plan(Datasource):
    """Planning as a source of Ray Data: one task that gives out parcels as they are wanted."""

    def __init__(self, work: Pass, wait: Waiter) -> None:
        self._work = work
        self._wait = wait

    def get_name(self) -> str:
        """For messages of Ray."""
        return "Plan"

    def estimate_inmemory_data_size(self) -> int | None:
        """Nobody knows before it was listed."""
        return None

    def get_read_tasks(self, parallelism: int, *_: Any, **__: Any) -> list[ReadTask]:
        """One task."""
        unknown = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        return [ReadTask(partial(_planned, self._work, self._wait), unknown)]


def _planned(work: Pass, wait: Waiter) -> Iterable[pa.Table]:
    return parcels(
        work.source,
        work.selection,
        work.claims,
        rows_per_unit=work.job.config.batch.rows_per_unit,
        rows_per_parcel=work.rows_per_parcel,
        wait=wait,
    )


class _context:  # noqa: N801 - used like a function
    """Ray Data's settings as they must be here, while datasets are made and run."""

    def __enter__(self) -> None:
        self._before = DataContext.get_current()
        mine = self._before.copy()
        mine.target_max_block_size = 1  # every parcel goes on at once, by itself
        mine.max_errored_blocks = -1  # what is lost is counted and done again here
        mine.enable_progress_bars = False
        mine.execution_options.preserve_order = False
        mine.print_on_execution_start = False
        DataContext._set_current(mine)

    def __exit__(self, *_: object) -> None:
        DataContext._set_current(self._before)
