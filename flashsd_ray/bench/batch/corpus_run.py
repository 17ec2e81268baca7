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
from flashsd_ray.bench.batch.drivers import Driver
from flashsd_ray.bench.batch.kills import TIMEOUT_S, rows_of
from flashsd_ray.bench.batch.memory import Reading, drift, read_memory, table, while_captioning
from flashsd_ray.bench.report import Report

EVERY_S = 2.0
MOST_DRIFT = 0.05  # of memory, over the second half of the run


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
    row |= {"seconds": seconds, "rows_per_hour": 3600 * row["rows"] / seconds, "drift": drift(memory)}
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    print(told(memory))
    is_sound = row["is_complete"] and (row["drift"] or 0.0) < MOST_DRIFT
    details = {"memory": [one.as_dict() for one in memory], "parts": table(memory), "said": said}
    return Report(rows=[row], is_sound=is_sound, details=details)


def watched(words: Sequence[str], log: Path) -> tuple[int | None, float, list[Reading]]:
    """Exit code, seconds, and memory of the driver and of everything below it while there were lanes."""
    began_s = time.monotonic()
    driver = Driver.start(words, log)
    memory = []
    try:
        while (code := driver.wait(EVERY_S)) is None and time.monotonic() - began_s < TIMEOUT_S:
            memory.append(read_memory(driver.process.pid, began_s))
        return code, time.monotonic() - began_s, while_captioning(memory)
    finally:
        driver.end()


def told(memory: Sequence[Reading]) -> str:
    """Memory by part as lines, for people."""
    lines = ["proportional memory (PSS), MB: at a quarter of the run, at half, at the end; growth over the second half"]
    for row in table(memory):
        sizes = "  ".join(f"{row[name]:8.0f}" for name in ("at a quarter", "at half", "at the end"))
        grown = "too short to tell" if row["drift"] is None else f"{100 * row['drift']:+.1f} %"
        lines.append(f"  {row['part']:14}{sizes}  {grown}")
    return "\n".join(lines)


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
