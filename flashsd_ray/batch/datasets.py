"""Captions for a Ray Dataset: a step of a pipeline that somebody else has built."""

from __future__ import annotations

import asyncio
import warnings
from collections.abc import Sequence
from functools import partial
from typing import Any

import pyarrow as pa
from ray.data import ActorPoolStrategy, Dataset

from flashsd_ray.batch.inputs.row_ids import derived_id
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.lane import LaneWorker
from flashsd_ray.batch.outputs.schema import ARROW, as_table
from flashsd_ray.batch.parcels import segments_of, segments_table
from flashsd_ray.batch.pipeline import lane_resources, reading_resources
from flashsd_ray.batch.reading import read_clip
from flashsd_ray.batch.rows import Clip, Outcome
from flashsd_ray.errors import ConfigError

FRAMES = "__frames"  # a column between the two steps
LEFT_OUT = ("source", "extra", "schema_version")  # of an outcome: the caller's row has them in other words


def caption_dataset(
    ds: Dataset,
    *,
    path_column: str = "path",  # of a file, a URI, or a directory of frames
    prompt_column: str | None = None,  # a prompt for each row; None, or an empty one: the job's
    start_column: str | None = None,  # seconds
    end_column: str | None = None,
    job: Job | None = None,
    batch_size: int | None = None,  # rows that are read by one task; None: batch.rows_per_parcel
) -> Dataset:
    """Every row with its caption, and the other columns of an outcome, beside the columns it came with.

    A row with several segments or prompts becomes several rows; one that cannot be captioned has its reason in
    ``error``. Nothing runs before the dataset is consumed.

    Raises:
        ConfigError: the job is wrong.
    """
    job = job or Job()
    columns = {"start_s": start_column, "end_s": end_column, "prompt": prompt_column, "source": path_column}
    named = {name: column for name, column in columns.items() if column is not None}
    rows = batch_size or job.config.batch.rows_per_parcel
    batches: dict[str, Any] = {"batch_size": rows, "batch_format": "pyarrow", "zero_copy_batch": True}
    placement, most = job.config.placement, job.config.batch.max_lanes
    lanes = ActorPoolStrategy(
        min_size=placement.num_lanes,
        max_size=max(placement.num_lanes, most),
        max_concurrent_calls_per_actor=max(2, 2 * job.config.scheduling.max_running // rows),
    )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "`ray_remote_args`", category=DeprecationWarning)
        read = ds.map_batches(partial(_read, job=job, columns=named), **batches, **reading_resources(job))
        captioned: Dataset = read.map_batches(
            DatasetLane, fn_constructor_args=(job,), compute=lanes, **batches, **lane_resources(job)
        )
    return captioned


def _read(batch: pa.Table, job: Job, columns: dict[str, str]) -> pa.Table:
    """The batch, a row for each segment, with the frames in a column of their own."""
    missing = [column for column in columns.values() if column not in batch.column_names]
    if missing:
        raise ConfigError(f"the dataset has no column {missing[0]!r}; it has {', '.join(batch.column_names)}")
    clips = [_clip(row) for row in batch.select(list(columns.values())).rename_columns(list(columns)).to_pylist()]
    read = [(index, segment) for index, clip in enumerate(clips) for segment in read_clip(clip, job)]
    frames = segments_table([segment for _, segment in read])
    rows = batch.take(pa.array([index for index, _ in read], pa.int64()))
    return rows.append_column(FRAMES, frames.to_struct_array())


def _clip(row: dict[str, Any]) -> Clip:
    prompt = row.get("prompt") or ""
    source, start_s, end_s = str(row["source"]), row.get("start_s"), row.get("end_s")
    prompts = (prompt,) if prompt else ()
    return Clip(
        row_id=derived_id(source, start_s, end_s, prompts),
        source=source,
        start_s=start_s,
        end_s=end_s,
        prompts=prompts,
    )


class DatasetLane(LaneWorker):
    """A lane for batches of somebody's rows."""

    async def __call__(self, batch: pa.Table) -> pa.Table:
        """The batch with the columns of outcomes, a row for each prompt."""
        rows = batch.drop_columns([FRAMES])
        segments = segments_of(pa.Table.from_struct_array(batch.column(FRAMES)))
        answered = await asyncio.gather(*(self.answer([segment]) for segment in segments))
        places = [index for index, outcomes in enumerate(answered) for _ in outcomes]
        return _beside(rows.take(pa.array(places, pa.int64())), [one for outcomes in answered for one in outcomes])


def _beside(rows: pa.Table, outcomes: Sequence[Outcome]) -> pa.Table:
    """The caller's columns, then those of the outcomes that have other names."""
    described = as_table(outcomes)
    for name in ARROW.names:
        if name not in rows.column_names and name not in LEFT_OUT:
            rows = rows.append_column(name, described.column(name))
    return rows
