"""``flashsd bench batch-corpus``: many clips, other codecs and damaged files; rows, errors, memory over time."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashsd_ray.bench.batch.corpus import write_clips, write_codecs, write_damaged
from flashsd_ray.bench.batch.drivers import Driver, memory_of, memory_of_one
from flashsd_ray.bench.batch.kills import TIMEOUT_S, rows_of
from flashsd_ray.bench.report import Report

EVERY_S = 2.0
MOST_GROWTH = 0.10  # of memory, from the second quarter of the run to the last


def measure(arguments: argparse.Namespace) -> Report:
    """The corpus was captioned by the command; every file was held against what is in the output."""
    with tempfile.TemporaryDirectory(prefix="flashsd-corpus-") as name:
        place = Path(arguments.directory or name)
        clips = write_clips(place / "clips", arguments.clips)
        codecs = write_codecs(place / "clips", clips[0])
        damaged = write_damaged(place / "clips", clips[0], arguments.damaged)
        words = [str(place / "clips"), "--output", str(place / "captions"), "--format", "jsonl,parquet"]
        words += ["--max-new-tokens", str(arguments.max_new_tokens)]
        code, seconds, memory = watched(words, place / "log")
        if code not in (0, 1):
            raise RuntimeError(f"the run ended with {code}: {(place / 'log').read_text()[-2000:]}")
        row = judged(place / "captions", [*clips, *codecs], damaged)
        said = (place / "log").read_text().splitlines()[-6:]
    row |= {"seconds": seconds, "rows_per_hour": 3600 * row["rows"] / seconds, "memory_growth": growth(memory)}
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    is_sound = row["is_complete"] and (len(memory) < 40 or row["memory_growth"] < MOST_GROWTH)
    return Report(rows=[row], is_sound=is_sound, details={"memory": memory, "said": said})


def watched(words: Sequence[str], log: Path) -> tuple[int | None, float, list[dict[str, float]]]:
    """Exit code, seconds, and memory of the driver and of everything below it, over time."""
    began_s = time.monotonic()
    driver = Driver.start(words, log)
    memory = []
    try:
        while (code := driver.wait(EVERY_S)) is None and time.monotonic() - began_s < TIMEOUT_S:
            pid = driver.process.pid
            memory.append(
                {"s": time.monotonic() - began_s, "driver": memory_of_one(pid), "all": memory_of(pid)},
            )
        return code, time.monotonic() - began_s, memory
    finally:
        driver.end()


def judged(output: Path, good: Sequence[Path], damaged: Sequence[Path]) -> dict[str, Any]:
    """Whether every good file has one caption and every damaged one an error, and nothing else is there."""
    rows = rows_of(output)
    captioned = Counter(row.source for row in rows if not row.error)
    failed = Counter(row.source for row in rows if row.error)
    good_names, damaged_names = {str(path) for path in good}, {str(path) for path in damaged}
    return {
        "rows": len(rows),
        "good": len(good_names),
        "damaged": len(damaged_names),
        "errors": dict(Counter(row.error for row in rows if row.error)),
        "is_complete": captioned == Counter(good_names) and failed == Counter(damaged_names),
        "wrong": sorted((captioned - Counter(good_names)) + (failed - Counter(damaged_names)))[:10],
    }


def growth(memory: Sequence[dict[str, float]]) -> float:
    """Mean memory in the last quarter of the run over that in the second, less one."""
    quarter = max(1, len(memory) // 4)
    early, late = memory[quarter : 2 * quarter], memory[-quarter:]
    if not early or not late:
        return 0.0
    return (sum(one["all"] for one in late) / len(late)) / (sum(one["all"] for one in early) / len(early)) - 1.0
