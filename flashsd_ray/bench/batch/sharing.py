"""``flashsd bench batch-drivers``: two drivers on one Redis ledger; one of them is killed, the other one finishes."""

from __future__ import annotations

import argparse
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from redis import Redis

from flashsd_ray.bench.batch.corpus import write_clips
from flashsd_ray.bench.batch.drivers import Driver
from flashsd_ray.bench.batch.kills import TIMEOUT_S, common_words, compare, finish, rows_of
from flashsd_ray.bench.report import Report

LEASE_S = 6.0


def measure(arguments: argparse.Namespace) -> Report:
    """Both drivers worked on one corpus until one was killed; the output was compared with that of one driver."""
    with tempfile.TemporaryDirectory(prefix="flashsd-drivers-") as name, redis_server(Path(name)) as url:
        place = Path(arguments.directory or name)
        write_clips(place / "clips", arguments.clips)
        words = common_words(place / "clips", arguments.max_new_tokens)
        alone, shared = place / "alone", place / "shared"
        if finish([*words, "--output", str(alone)], place / "alone.log") != 0:
            raise RuntimeError(f"the run alone failed: {(place / 'alone.log').read_text()[-2000:]}")
        # Small batches, so that a driver takes no more than a few units at a time and both of them get some.
        sizes = ["--set", f"batch.lease_s={LEASE_S}", "--set", "scheduling.max_running=4"]
        ledger = ["--output", str(shared), "--ledger", url, *sizes]
        done = share([*words, *ledger], place, url, kill_after=arguments.kill_after)
        found = compare(rows_of(alone), rows_of(shared))
    row: dict[str, Any] = {**done, **found}
    print(", ".join(f"{name} {value}" for name, value in row.items()))
    return Report(rows=[row], is_sound=found["is_equal"] and done["done_by_both"])


def share(words: list[str], place: Path, url: str, *, kill_after: int) -> dict[str, Any]:
    """Two drivers ran; the first was killed once each had finished ``kill_after`` units. Returns who did how many.

    Raises:
        RuntimeError: the other one did not finish.
    """
    redis = Redis.from_url(url)
    first, second = (Driver.start(words, place / f"driver-{number}.log") for number in (1, 2))
    try:
        end_s = time.monotonic() + TIMEOUT_S
        while not _both_have(redis, kill_after) and first.exit_code is None and second.exit_code is None:
            if time.monotonic() > end_s:
                raise RuntimeError("the drivers do not get on")
            time.sleep(0.1)
        before = units_done(redis)
        was_running = first.exit_code is None
        first.kill()
        if second.wait(TIMEOUT_S) != 0:
            raise RuntimeError(f"the other driver failed: {second.log.read_text()[-2000:]}")
        after = units_done(redis)
        return {
            "units": sum(after.values()),
            "units_by_driver": sorted(after.values()),
            "units_before_the_kill": sum(before.values()),
            "done_by_both": len(after) == 2 and was_running,
        }
    finally:
        first.end()
        second.end()


def units_done(redis: Any) -> dict[str, int]:
    """Units in the output, by the driver that finished them."""
    counts: dict[str, int] = {}
    for key in redis.scan_iter("*:batch:*:units"):
        for owner in redis.hvals(key):
            if owner.startswith(b"done:"):
                counts[owner.decode()] = counts.get(owner.decode(), 0) + 1
    return counts


def _both_have(redis: Any, number: int) -> bool:
    done = units_done(redis)
    return len(done) == 2 and min(done.values()) >= number


@contextmanager
def redis_server(directory: Path) -> Iterator[str]:
    """The address of a Redis that lives as long as the block.

    Raises:
        RuntimeError: redis-server is not installed or does not start.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    command = ["redis-server", "--port", str(port), "--save", "", "--dir", str(directory), "--bind", "127.0.0.1"]
    try:
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
    except FileNotFoundError as error:
        raise RuntimeError("redis-server is not installed") from error
    try:
        redis = Redis(port=port, socket_timeout=1.0)
        for _ in range(200):
            try:
                redis.ping()
                break
            except Exception:  # noqa: BLE001 - whatever it is, it is not ready
                time.sleep(0.05)
        yield f"redis://127.0.0.1:{port}/0"
    finally:
        process.terminate()
        process.wait()
