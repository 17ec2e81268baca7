"""``flashsd bench batch``: clips per second against a plain Ray Data pipeline, and how long lanes wait for clips."""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from flashsd_ray.batch.cluster import connected
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.pipeline import Pass, captioned
from flashsd_ray.batch.rows import Clip, Outcome, Unit
from flashsd_ray.batch.tallies import Tally
from flashsd_ray.bench.batch.corpus import write_clips
from flashsd_ray.bench.batch.plain import PlainRun, plain_run
from flashsd_ray.bench.intervals import ratio_of_totals
from flashsd_ray.bench.report import Report
from flashsd_ray.config import Config, with_overrides
from flashsd_ray.types import SamplingParams

PROMPTS = (
    "Describe the video in detail.",
    "What moves in the video, and how?",
    "What is the weather like?",
    "Write a short caption for the video.",
)
GOAL, MOST_WAITING = 3.0, 0.10


@dataclass(frozen=True, slots=True)
class Clips:
    """Files as an input."""

    paths: tuple[str, ...]

    def units(self, rows_per_unit: int) -> Iterator[Unit]:
        """All of them, in order."""
        for index, start in enumerate(range(0, len(self.paths), rows_per_unit)):
            some = self.paths[start : start + rows_per_unit]
            yield Unit(index=index, clips=tuple(Clip(row_id=path, source=path) for path in some))


@dataclass(frozen=True, slots=True)
class OurRun:
    """What our pipeline gave."""

    outcomes: tuple[Outcome, ...]
    seconds: float  # from the first request to the last answer
    waiting_share: float


def measure(arguments: argparse.Namespace) -> Report:
    """Both pipelines ran in turn on one Ray, each from its first batch to its last; models were loaded before."""
    assignments = [f"model.name={arguments.model}", f"model.dtype={arguments.dtype}"]
    config = with_overrides(Config(), assignments)
    job = Job(
        config=config,
        prompts=PROMPTS[: arguments.prompts],
        sampling=SamplingParams(max_new_tokens=arguments.max_new_tokens),
    )
    with tempfile.TemporaryDirectory(prefix="flashsd-batch-") as name:
        clips = write_clips(Path(arguments.directory or name), arguments.clips, size_px=arguments.pixels)
        with connected(config):
            pairs = [_pair(job, clips, arguments.generate_batch, turn) for turn in range(arguments.repeats)]
    return _report(pairs, len(clips), arguments)


def _pair(job: Job, clips: Sequence[Path], batch_size: int, turn: int) -> tuple[PlainRun, OurRun]:
    if turn % 2:
        plain = plain_run(job, clips, batch_size)
        return plain, our_run(job, clips)
    ours = our_run(job, clips)
    return plain_run(job, clips, batch_size), ours


def our_run(job: Job, clips: Sequence[Path]) -> OurRun:
    """The clips were captioned by our pipeline, on the Ray that is there."""
    tally = Tally()
    outcomes: list[Outcome] = []
    for head, some in captioned(Pass(job=job, source=Clips(tuple(map(str, clips))))):
        tally.take_notes(head.notes)
        outcomes += some
    seconds = max(busy_s + idle_s for busy_s, idle_s in tally.lanes.values())
    return OurRun(tuple(outcomes), seconds, tally.waiting_share or 0.0)


def _report(pairs: Sequence[tuple[PlainRun, OurRun]], num_clips: int, arguments: argparse.Namespace) -> Report:
    ratio = ratio_of_totals([plain.seconds for plain, _ in pairs], [ours.seconds for _, ours in pairs])
    row: dict[str, Any] = {
        "clips": num_clips,
        "prompts": arguments.prompts,
        "max_new_tokens": arguments.max_new_tokens,
        "generate_batch": arguments.generate_batch,
        "plain_clips_per_s": num_clips * len(pairs) / sum(plain.seconds for plain, _ in pairs),
        "clips_per_s": num_clips * len(pairs) / sum(ours.seconds for _, ours in pairs),
        "ratio": ratio.as_dict(),
        "waiting_share": max(ours.waiting_share for _, ours in pairs),
        "plain_waiting_share": max(plain.idle_s / plain.seconds for plain, _ in pairs),
        "tokens": sum(one.num_tokens for one in pairs[0][1].outcomes),
        "plain_tokens": pairs[0][0].num_tokens,
        "same_captions": _share_equal(*pairs[0]),
        "num_copies": sum(one.is_copy for one in pairs[0][1].outcomes),
    }
    print(f"{row['clips_per_s']:.2f} clips/s against {row['plain_clips_per_s']:.2f}: {ratio} (goal {GOAL}x)")
    print(
        f"lanes waited for clips {100 * row['waiting_share']:.1f} % of their time (at most {100 * MOST_WAITING:.0f} %)"
    )
    print(f"same caption: {100 * row['same_captions']:.0f} % of {len(pairs[0][1].outcomes)}")
    is_sound = not any(one.error for _, ours in pairs for one in ours.outcomes)
    return Report(rows=[row], is_sound=is_sound)


def _share_equal(plain: PlainRun, ours: OurRun) -> float:
    equal = sum(
        plain.captions.get(f"{one.source} {one.prompt}", "").strip() == one.caption.strip() for one in ours.outcomes
    )
    return equal / max(1, len(ours.outcomes))
