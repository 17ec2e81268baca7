"""Memory of a corpus run by part, and whether it is flat."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashsd_ray.bench.batch.memory import (
    STORE,
    Reading,
    drift,
    part_of,
    proportional_bytes,
    read_memory,
    table,
    while_captioning,
)


def readings(*sizes: float) -> list[Reading]:
    return [Reading(2.0 * number, {"lanes": int(size)}, 1) for number, size in enumerate(sizes)]


def test_shared_memory_is_told_apart(tmp_path: Path) -> None:
    (tmp_path / "7").mkdir()
    (tmp_path / "7" / "smaps_rollup").write_text("0-1 ---p 0 [rollup]\nRss: 900 kB\nPss: 30 kB\nPss_Shmem: 10 kB\n")
    assert proportional_bytes(7, tmp_path) == (30 * 1024, 10 * 1024)
    assert proportional_bytes(8, tmp_path) == (0, 0)


def test_processes_play_their_parts() -> None:
    assert part_of("ray::MapWorker(MapBatches(LaneWorker)).submit()") == "lanes"
    assert part_of("ray::MapBatches(_read)") == part_of("ray::IDLE") == "workers"
    assert part_of("/site-packages/ray/raylet --x") == "ray"


def test_a_process_is_its_own_driver() -> None:
    reading = read_memory(os.getpid(), 0.0)
    assert reading.parts["driver"] > 2**20
    assert STORE in reading.parts


def test_growth_in_the_first_half_is_warming_up() -> None:
    assert drift(readings(*range(0, 100, 5), *[100] * 20)) == pytest.approx(0.0)


def test_steady_growth_is_drift() -> None:
    assert drift(readings(*range(1000, 1040))) == pytest.approx(19 / 1029.5)
    assert drift(readings(*range(1000, 1040)), "driver") == 0.0


def test_what_comes_after_the_last_lane_does_not_count() -> None:
    all_ = [Reading(0.0, {"driver": 1}, 1), *readings(5, 6), Reading(9.0, {"driver": 2}, 1)]
    assert while_captioning(all_) == all_[1:3]
    assert while_captioning(all_[:1]) == []


def test_few_readings_say_nothing() -> None:
    assert drift(readings(*[1] * 15)) is None


def test_the_table_holds_every_part_and_their_sum() -> None:
    rows = table(readings(*[2_000_000] * 40))
    assert [row["part"] for row in rows] == ["lanes", "all"]
    assert rows[1]["at the end"] == 2.0
    assert rows[1]["drift"] == 0.0
