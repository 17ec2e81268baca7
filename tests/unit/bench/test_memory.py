"""Resident memory of a tree of processes, as a directory like /proc tells it."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from flashsd_ray.bench.serving.memory import Reading, growth, processes, rss_by_part, tree


def add(proc: Path, pid: int, parent: int, rss_kb: int, title: str) -> None:
    (proc / str(pid)).mkdir()
    status = f"Name:\tx\nPPid:\t{parent}\nVmRSS:\t   {rss_kb} kB\n" if rss_kb else f"Name:\tx\nPPid:\t{parent}\n"
    (proc / str(pid) / "status").write_text(status)
    (proc / str(pid) / "cmdline").write_bytes(title.encode() + b"\0-x\0")


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "self").mkdir()
    (tmp_path / "77").mkdir()  # has ended: its files cannot be read
    add(tmp_path, 1, 0, 10, "/sbin/init")
    add(tmp_path, 10, 1, 100, "/usr/bin/python3")
    add(tmp_path, 11, 10, 50, "/site-packages/ray/raylet")
    add(tmp_path, 12, 11, 7, "ray::LanePart.submit")
    add(tmp_path, 13, 11, 8, "ray::LanePart")
    add(tmp_path, 14, 11, 1000, "ray::IDLE")
    add(tmp_path, 15, 11, 3, "ray::ServeReplica:flashsd:HttpEdge.handle_request")
    add(tmp_path, 16, 11, 0, "kernel")
    add(tmp_path, 20, 1, 500, "another")
    return tmp_path


def test_the_tree_holds_all_descendants_and_nobody_else(proc: Path) -> None:
    assert set(tree(10, processes(proc))) == {10, 11, 12, 13, 14, 15, 16}


def test_parts_are_summed_by_name_without_what_is_not_ours(proc: Path) -> None:
    parts = rss_by_part(10, proc)
    assert parts.pop("kernel") == 0
    assert parts == {
        "server": 100 * 1024,
        "ray::LanePart": 15 * 1024,
        "ray::ServeReplica:flashsd:HttpEdge": 3 * 1024,
    }


def test_this_process_is_found() -> None:
    assert rss_by_part(os.getpid())["server"] > 2**20


def readings(*values: int) -> list[Reading]:
    return [Reading(float(number), {"server": value}) for number, value in enumerate(values)]


def test_growth_leaves_out_warming_up_and_single_peaks() -> None:
    flat = readings(*[1, 50, 70, 90], *[100] * 8, *[100, 100, 900, 100])
    assert growth(flat) == 0.0
    assert growth(readings(*range(100, 1700, 100))) == pytest.approx(1450 / 650 - 1)


def test_a_few_readings_say_nothing() -> None:
    assert growth(readings(*[1] * 15)) is None
