"""``flashsd bench batch``: clips per second against a plain Ray Data pipeline, and how long lanes wait for clips.

The plain pipeline runs twice: with the attention that the library chooses by itself, and with whatever was fastest when all
settings were tried on a few clips, the batch size being the best one in both.
"""

from __future__ import annotations

import argparse
import itertools
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ray.data import DataContext

from flashsd_ray.batch.cluster import connected
from flashsd_ray.batch.job import Job
from flashsd_ray.batch.pipeline import Pass, captioned
from flashsd_ray.batch.rows import Clip, Outcome, Unit
from flashsd_ray.batch.tallies import Tally
from flashsd_ray.bench.batch.corpus import write_clips
from flashsd_ray.bench.batch.plain import PlainRun, Settings, plain_run
from flashsd_ray.bench.intervals import ratio_of_totals
from flashsd_ray.bench.report import Report
from flashsd_ray.config import Config, with_overrides
from flashsd_ray.errors import ConfigError
from flashsd_ray.types import SamplingParams

PROMPTS = (
    "Describe the video in detail.",
    "What moves in the video, and how?",
    "What is the weather like?",
    "Write a short caption for the video.",
)
GOAL, MOST_WAITING = 3.0, 0.10
START_S = 600  # longest time that lanes and actors may take to load
ATTENTIONS, BATCH_SIZES = ("sdpa", "eager"), (8, 16, 32)  # that the plain pipeline is tried with


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
    cpu_s: float = 0.0  # processor time of the lanes since their first requests


@dataclass(frozen=True, slots=True)
class Turn:
    """All contenders, one after the other."""

    ours: OurRun
    usual: PlainRun
    best: PlainRun


def measure(arguments: argparse.Namespace) -> Report:
    """All pipelines ran in turn on one Ray, each from its first batch to its last; models were loaded before.

    Raises:
        ConfigError: there are too few clips to find the plain pipeline's settings fairly.
    """
    check_tuning(arguments.tuning_clips, arguments.clips, arguments.lanes)
    assignments = [f"model.name={arguments.model}", f"model.dtype={arguments.dtype}"]
    config = with_overrides(Config(), [*assignments, f"placement.num_lanes={arguments.lanes}", *arguments.set])
    job = Job(
        config=config,
        prompts=PROMPTS[: arguments.prompts],
        sampling=SamplingParams(max_new_tokens=arguments.max_new_tokens),
    )
    with tempfile.TemporaryDirectory(prefix="flashsd-batch-") as name:
        clips = write_clips(Path(arguments.directory or name), arguments.clips, size_px=arguments.pixels)
        with connected(config):
            DataContext.get_current().wait_for_min_actors_s = START_S  # else the first one works while others load
            tried = _tried(job, clips[: arguments.tuning_clips], arguments.lanes)
            usual = min((one for one in tried if one.attention == ATTENTIONS[0]), key=tried.__getitem__)
            best = min(tried, key=tried.__getitem__)
            turns = [_turn(job, clips, usual, best, number) for number in range(arguments.repeats)]
    return _report(turns, len(clips), arguments, tried, (usual, best))


def check_tuning(num_clips: int, num_all: int, num_actors: int) -> None:
    """Raises ConfigError unless every actor gets a full batch of each size: with fewer clips small batches seem the best."""
    fewest = num_actors * max(BATCH_SIZES)
    if min(num_clips, num_all) < fewest:
        raise ConfigError(
            f"{min(num_clips, num_all)} clips for tuning flatter small batches; --tuning-clips and --clips must be "
            f"{fewest} or more, a batch of {max(BATCH_SIZES)} for each of {num_actors} actors"
        )


def _tried(job: Job, clips: Sequence[Path], num_actors: int) -> dict[Settings, float]:
    """Seconds of the plain pipeline with every choice of settings."""
    tried = {}
    for attention, batch_size in itertools.product(ATTENTIONS, BATCH_SIZES):
        settings = Settings(attention, batch_size, num_actors)
        tried[settings] = plain_run(job, clips, settings).seconds
        print(f"plain, {settings}: {len(clips) / tried[settings]:.2f} clips/s", flush=True)
    return tried


def _turn(job: Job, clips: Sequence[Path], usual: Settings, best: Settings, number: int) -> Turn:
    """The contenders ran, another one first each time."""
    runs: dict[str, Callable[[], OurRun | PlainRun]] = {
        "ours": lambda: our_run(job, clips),
        "usual": lambda: plain_run(job, clips, usual),
    }
    if best != usual:
        runs["best"] = lambda: plain_run(job, clips, best)
    names = list(runs)
    names = names[number % len(names) :] + names[: number % len(names)]
    done: dict[str, Any] = {}
    for name in names:
        done[name] = runs[name]()
        print(f"turn {number + 1}, {name}: {len(clips) / done[name].seconds:.2f} clips/s", flush=True)
    return Turn(done["ours"], done["usual"], done.get("best", done["usual"]))


def our_run(job: Job, clips: Sequence[Path]) -> OurRun:
    """The clips were captioned by our pipeline, on the Ray that is there."""
    tally = Tally()
    outcomes: list[Outcome] = []
    began_s, ended_s = float("inf"), 0.0
    cpu_s: dict[str, float] = {}
    for head, some in captioned(Pass(job=job, source=Clips(tuple(map(str, clips))))):
        tally.take_notes(head.notes)
        outcomes += some
        if some:
            began_s, ended_s = min(began_s, head.notes["began_s"]), time.time()
            cpu_s[head.notes["lane"]] = max(cpu_s.get(head.notes["lane"], 0.0), head.notes["cpu_s"])
    return OurRun(tuple(outcomes), ended_s - began_s, tally.waiting_share or 0.0, sum(cpu_s.values()))


def _report(
    turns: Sequence[Turn],
    num_clips: int,
    arguments: argparse.Namespace,
    tried: dict[Settings, float],
    chosen: tuple[Settings, Settings],  # with the library's attention, and of all
) -> Report:
    ours_s = [turn.ours.seconds for turn in turns]
    outcomes = turns[0].ours.outcomes
    row: dict[str, Any] = {
        "clips": num_clips,
        "prompts": arguments.prompts,
        "max_new_tokens": arguments.max_new_tokens,
        "lanes": arguments.lanes,
        "clips_per_s": num_clips * len(turns) / sum(ours_s),
        "seconds": ours_s,
        "cpu_s_per_clip": sum(turn.ours.cpu_s for turn in turns) / (num_clips * len(turns)),
        "waiting_share": max(turn.ours.waiting_share for turn in turns),
        "tokens": sum(one.num_tokens for one in outcomes),
        "tau": sum(one.num_tokens for one in outcomes)
        / max(1.0, sum(one.num_tokens / max(one.tau, 1) for one in outcomes)),
        "same_captions": _share_equal(turns[0].usual, turns[0].ours),
        "num_copies": sum(one.is_copy for one in outcomes),
    }
    for name, settings, plain in zip(
        ("usual", "best"), chosen, ([turn.usual for turn in turns], [turn.best for turn in turns]), strict=True
    ):
        seconds = [one.seconds for one in plain]
        ratio = ratio_of_totals(seconds, ours_s)
        row[f"plain_{name}"] = {
            "settings": settings.as_dict(),
            "clips_per_s": num_clips * len(turns) / sum(seconds),
            "seconds": seconds,
            "cpu_s_per_clip": sum(one.cpu_s for one in plain) / (num_clips * len(turns)),
            "waiting_share": max(one.idle_share for one in plain),
            "tokens": plain[0].num_tokens,
        }
        row[f"ratio_{name}"] = ratio.as_dict()
        print(
            f"{row['clips_per_s']:.2f} clips/s against {row[f'plain_{name}']['clips_per_s']:.2f}: {ratio} ({settings})"
        )
    used = [row["cpu_s_per_clip"], *(row[f"plain_{name}"]["cpu_s_per_clip"] for name in ("usual", "best"))]
    print("processor time a clip, ms: ours {:.1f}, plain {:.1f} and {:.1f}".format(*(1000 * one for one in used)))
    print(
        f"lanes waited for clips {100 * row['waiting_share']:.1f} % of their time (at most {100 * MOST_WAITING:.0f} %)"
    )
    print(f"same caption: {100 * row['same_captions']:.0f} % of {len(outcomes)}; goal {GOAL}x")
    is_sound = not any(one.error for turn in turns for one in turn.ours.outcomes)
    details = {"tried": [{**settings.as_dict(), "seconds": seconds} for settings, seconds in tried.items()]}
    return Report(rows=[row], is_sound=is_sound, details=details)


def _share_equal(plain: PlainRun, ours: OurRun) -> float:
    equal = sum(
        plain.captions.get(f"{one.source} {one.prompt}", "").strip() == one.caption.strip() for one in ours.outcomes
    )
    return equal / max(1, len(ours.outcomes))
