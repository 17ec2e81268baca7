"""``flashsd bench batch-kills``: a run whose driver, lanes and readers are killed against one that nobody disturbs."""

from __future__ import annotations

import argparse
import os
import random
import signal
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from flashsd_ray.batch.outputs import Writer
from flashsd_ray.batch.rows import Outcome
from flashsd_ray.bench.batch.corpus import write_clips, write_damaged
from flashsd_ray.bench.batch.drivers import Driver
from flashsd_ray.bench.report import Report

KINDS = ("driver", "lane", "reader")
TIMEOUT_S = 3600.0
# What an answer must not depend on; times, copies and tau do depend on who was in the batch.
FREE = ("tau", "read_s", "encode_s", "decode_s", "is_copy")


def measure(arguments: argparse.Namespace) -> Report:
    """Both runs were made and their outputs compared, row for row."""
    with tempfile.TemporaryDirectory(prefix="flashsd-kills-") as name:
        place = Path(arguments.directory or name)
        clips = write_clips(place / "clips", arguments.clips)
        write_damaged(place / "clips", clips[0], max(1, arguments.clips // 20))
        words = common_words(place / "clips", arguments.max_new_tokens)
        undisturbed = place / "undisturbed"
        if finish([*words, "--output", str(undisturbed)], place / "undisturbed.log") not in (0, 1):
            raise RuntimeError(f"the undisturbed run failed: {(place / 'undisturbed.log').read_text()[-2000:]}")
        disturbed = place / "disturbed"
        kills = disturb(
            [*words, "--output", str(disturbed)], place / "disturbed.log", arguments.kills, seed=arguments.seed
        )
        found = compare(rows_of(undisturbed), rows_of(disturbed))
    row: dict[str, Any] = {"kills": len(kills), **{kind: sum(one == kind for one in kills) for kind in KINDS}, **found}
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    return Report(rows=[row], is_sound=found["is_equal"] and len(kills) == arguments.kills)


def common_words(clips: Path, max_new_tokens: int) -> list[str]:
    """The command over these clips, in units so small that kills fall between many of them."""
    sizes = ["--set", "batch.rows_per_unit=8", "--set", "batch.rows_per_parcel=2"]
    answers = ["--max-new-tokens", str(max_new_tokens), "--dtype", "float32", "--no-report", "--format", "jsonl"]
    return [str(clips), *answers, *sizes]


def finish(words: Sequence[str], log: Path, timeout_s: float = TIMEOUT_S) -> int | None:
    """The command has run to its end; returns its exit code."""
    driver = Driver.start(words, log)
    try:
        return driver.wait(timeout_s)
    finally:
        driver.end()


def disturb(
    words: Sequence[str], log: Path, num_kills: int, *, seed: int = 0, timeout_s: float = TIMEOUT_S
) -> list[str]:
    """The command was started again until it ended by itself; returns who was killed.

    Raises:
        RuntimeError: a run ended with a failure of its own, or does not end.
    """
    source = random.Random(seed)
    planned = planned_kills(source, num_kills)
    end_s = time.monotonic() + timeout_s
    kills: list[str] = []
    driver = Driver.start(words, log)
    try:
        while time.monotonic() < end_s:
            kind = next(planned, None)
            if kind is None:
                code = driver.wait(end_s - time.monotonic())
                if code not in (0, 1):
                    raise RuntimeError(f"the run ended with {code}: {log.read_text()[-2000:]}")
                return kills
            if not kill(driver, kind, source, end_s):
                return kills  # it ended before there was anybody to kill
            kills.append(kind)
            if kind == "driver":
                driver = Driver.start(words, log)
        raise RuntimeError(f"the run does not end: {log.read_text()[-2000:]}")
    finally:
        driver.end()


def planned_kills(source: random.Random, number: int) -> Iterator[str]:
    """Whom to kill next: every kind in turn, in an order that chance decides."""
    kinds = [KINDS[index % len(KINDS)] for index in range(number)]
    source.shuffle(kinds)
    yield from kinds


def kill(driver: Driver, kind: str, source: random.Random, end_s: float) -> bool:
    """One of this kind is dead, at a moment that chance has chosen after lanes have begun; False: the run had ended."""
    victims: list[int] = []
    while not (driver.workers("lane") and victims):
        if driver.exit_code is not None or time.monotonic() > end_s:
            return False
        victims = [driver.process.pid] if kind == "driver" else driver.workers(kind)
        time.sleep(0.02)
    if kind != "reader":  # those are busy for a moment only
        time.sleep(source.uniform(0.0, 4.0))
    if driver.exit_code is not None:
        return False
    if kind == "driver":
        driver.kill()
    else:
        with suppress(ProcessLookupError):
            os.kill(source.choice(victims), signal.SIGKILL)
    return True


def rows_of(directory: Path) -> list[Outcome]:
    """All rows of an output."""
    return list(Writer(str(directory), ("jsonl",)).outcomes())


def compare(expected: Sequence[Outcome], found: Sequence[Outcome]) -> dict[str, Any]:
    """How two outputs differ, leaving out what may."""
    ours, theirs = ({one.key: essence(one) for one in rows} for rows in (expected, found))
    return {
        "rows": len(expected),
        "rows_disturbed": len(found),
        "twice": len(found) - len(theirs),
        "missing": len(ours.keys() - theirs.keys()),
        "new": len(theirs.keys() - ours.keys()),
        "different": sum(theirs.get(key, essence_) != essence_ for key, essence_ in ours.items()),
        "is_equal": len(expected) == len(found) and ours == theirs,
    }


def essence(outcome: Outcome) -> tuple[tuple[str, Any], ...]:
    """What must be the same on every run."""
    names = [name for name in outcome.__dataclass_fields__ if name not in FREE]
    return tuple((name, getattr(outcome, name)) for name in names)
