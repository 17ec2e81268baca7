"""``flashsd bench batch-planning``: a manifest of very many rows; time to the first answer, memory of the driver."""

from __future__ import annotations

import argparse
import json
import tempfile
import threading
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from flashsd_ray.bench.batch.corpus import write_clips
from flashsd_ray.bench.batch.drivers import Driver
from flashsd_ray.bench.batch.memory import proportional_bytes
from flashsd_ray.bench.report import Report

MOST_BYTES, MOST_START_S = 2**30, 60.0
TIMEOUT_S = 600.0


def measure(arguments: argparse.Namespace) -> Report:
    """The command ran over the manifest until its rows were counted and the first unit was in the output."""
    with tempfile.TemporaryDirectory(prefix="flashsd-planning-") as name:
        place = Path(name)
        clips = write_clips(place / "clips", 8)
        manifest = place / "manifest.jsonl"
        write_manifest(manifest, clips, arguments.rows)
        row = watch(manifest, place, arguments.seconds)
    row = {"rows": arguments.rows, **row}
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    is_sound = row["driver_peak_bytes"] < MOST_BYTES and row["first_read_s"] is not None
    return Report(rows=[row], is_sound=is_sound and row["first_read_s"] < MOST_START_S)


def write_manifest(path: Path, clips: Sequence[Path], num_rows: int) -> None:
    """A manifest of so many rows with ids, prompts and other columns of their own."""
    with path.open("w", encoding="utf-8") as file:
        for number in range(num_rows):
            row = {"id": f"row-{number}", "path": str(clips[number % len(clips)]), "prompt": f"What moves? ({number})"}
            file.write(json.dumps(row | {"split": "train", "score": number / 7}) + "\n")


def watch(manifest: Path, place: Path, seconds: float) -> dict[str, Any]:
    """The command was watched from its start: when it reads and answers first, and how much memory its driver takes."""
    words = [str(manifest), "--output", str(place / "out"), "--format", "jsonl", "--max-new-tokens", "8", "--no-report"]
    driver = Driver.start(words, place / "log")
    peak = _Peak(driver.process.pid)
    began_s = time.monotonic()
    found: dict[str, float | None] = {"first_read_s": None, "first_unit_s": None}
    try:
        while time.monotonic() - began_s < TIMEOUT_S and driver.exit_code is None:
            passed_s = time.monotonic() - began_s
            if found["first_read_s"] is None and driver.workers("reader"):
                found["first_read_s"] = passed_s
            if found["first_unit_s"] is None and any((place / "out" / "jsonl").glob("*.jsonl")):
                found["first_unit_s"] = passed_s
            if found["first_unit_s"] is not None and passed_s > seconds:
                break
            time.sleep(0.05)
        if driver.exit_code is not None:
            raise RuntimeError(f"the run ended: {driver.log.read_text()[-2000:]}")
    finally:
        peak.stop()
        driver.end()
    return {**found, "driver_peak_bytes": peak.num_bytes, "watched_s": time.monotonic() - began_s}


class _Peak:
    """The most memory that a process had."""

    def __init__(self, pid: int) -> None:
        self.num_bytes = 0
        self._pid = pid
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()

    def _watch(self) -> None:
        while not self._is_over.wait(0.25):
            self.num_bytes = max(self.num_bytes, proportional_bytes(self._pid)[0])

    def stop(self) -> None:
        self._is_over.set()
        self._thread.join()
