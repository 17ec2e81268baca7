"""From counted loads to costs, from processes to parts, from costs to clusters."""

from __future__ import annotations

import math
import os
from dataclasses import replace
from pathlib import Path

import pytest

from flashsd_ray.bench.scaling.clusters import bounds, scale
from flashsd_ray.bench.scaling.costs import Costs, Workload
from flashsd_ray.bench.scaling.cpu import PARTS, Clock, used_s
from flashsd_ray.bench.scaling.figure import draw
from flashsd_ray.bench.scaling.fit import TERMS, Counted, Machine, explained, fitted
from flashsd_ray.bench.scaling.study import Check

TRUE = Costs(
    round_s=0.004,
    row_s=0.0002,
    prompt_row_s=0.00002,
    place_s=0.001,
    frame_s=0.003,
    edge_request_s=0.005,
    edge_feed_s=0.0006,
    edge_chunk_s=0.0002,
    lane_beside_request_s=0.002,
    lane_beside_feed_s=0.0004,
    encoder_beside_s=0.001,
    edge_beside_request_s=0.0015,
    edge_beside_feed_s=0.0002,
    client_request_s=0.002,
    client_chunk_s=0.0001,
    ray_request_s=0.004,
    ray_feed_s=0.0003,
    decode_s=0.006,
)
IDLE_S = {**dict.fromkeys(PARTS, 0.0), "ray": 0.05, "lane": 0.01}
WORKLOAD = Workload(num_frames=8, prompt_rows=300, new_tokens=64, draft_length=4, survival=(0.8, 0.5, 0.3, 0.2))


def counted(requests: int, rounds: int, rows: int, chunks: int, seconds: float = 2.0) -> Counted:
    """A load that costs exactly what TRUE says."""
    one = Counted(
        users=1,
        lanes=1,
        new_tokens=64,
        seconds=seconds,
        answer_s=0.1,
        requests=requests,
        tokens=64 * requests,
        rounds=rounds,
        rows=rows,
        prompt_rows=requests * (300 + rounds % 7),
        chunks=chunks,
        frames=8 * requests,
    )
    used = {
        part: sum(getattr(TRUE, cost) * getattr(one, count) for cost, count in terms.items())
        + IDLE_S.get(part, 0.0) * seconds
        for part, terms in TERMS.items()
    }
    used["edge beside"] += TRUE.decode_s * requests
    return replace(one, cpu_s={**dict.fromkeys(PARTS, 0.0), **used})


LOADS = [
    counted(10, 220, 1000, 230),
    counted(32, 150, 900, 420, seconds=3.0),
    counted(24, 400, 2500, 620),
    counted(64, 300, 6200, 1500, seconds=5.0),
    counted(16, 90, 2100, 470),
]


def test_costs_are_found_again() -> None:
    found = fitted(LOADS, IDLE_S, Costs(decode_s=TRUE.decode_s), Machine())
    for terms in TERMS.values():
        for name in terms:
            # Frames go with requests, so an encoder's cost can only be told for both together.
            if name not in ("frame_s", "encode_s"):
                assert getattr(found, name) == pytest.approx(getattr(TRUE, name), rel=1e-3, abs=1e-9), name
    per_request = found.encode_s + 8 * found.frame_s
    assert per_request == pytest.approx(8 * TRUE.frame_s, rel=1e-6)


def test_no_cost_is_negative_and_idle_time_is_nobodys() -> None:
    idle = [replace(one, cpu_s={part: IDLE_S[part] * one.seconds for part in PARTS}) for one in LOADS]
    found = fitted(idle, IDLE_S, Costs(decode_s=0.01), Machine())
    assert all(value >= 0 for value in found.as_dict().values())
    assert found.round_s == pytest.approx(0.0, abs=1e-9)
    with pytest.raises(ValueError, match="no loads"):
        fitted([], IDLE_S, Costs(), Machine())


def test_costs_are_those_of_a_task_that_is_alone() -> None:
    machine = Machine(num_cores=2, slowdown=1.5)
    crowded = []
    for one in LOADS:
        # Both cores were busy all the time, so all of it took half as long again.
        stretched = {part: seconds * 1.5 for part, seconds in one.cpu_s.items()}
        crowded.append(replace(one, cpu_s=stretched, seconds=sum(stretched.values()) / 2))
    no_idle = dict.fromkeys(PARTS, 0.0)
    alone = fitted(LOADS, no_idle, Costs(decode_s=TRUE.decode_s), Machine())
    found = fitted(crowded, no_idle, Costs(decode_s=TRUE.decode_s), machine)
    assert found.as_dict() == pytest.approx(alone.as_dict())
    assert crowded[0].crowding(machine) == pytest.approx(1.5)
    shares = explained(found, crowded[1], no_idle, machine)
    assert shares["lane"] == pytest.approx(1.0, rel=0.05)


def process(proc: Path, pid: int, parent: int, title: str, ticks: tuple[int, int], *threads: int) -> None:
    folder = proc / str(pid)
    folder.mkdir()
    (folder / "status").write_text(f"Name:\tx\nPPid:\t{parent}\nVmRSS:\t1 kB\n")
    (folder / "cmdline").write_bytes(title.encode() + b"\0")
    for number, spent in ((pid, ticks), *((10 * pid + index, (one, 0)) for index, one in enumerate(threads))):
        inside = folder if number == pid else folder / "task" / str(number)
        inside.mkdir(parents=True, exist_ok=True)
        fields = ["S", str(parent), *["0"] * 9, *map(str, spent), *["0"] * 30]
        (inside / "stat").write_text(f"{number} (a name) with) brackets) {' '.join(fields)}\n")


def test_processor_time_is_told_by_part(tmp_path: Path) -> None:
    ticks = os.sysconf("SC_CLK_TCK")
    process(tmp_path, 1, 0, "flashsd", (ticks, ticks))
    process(tmp_path, 2, 1, "python", (3 * ticks, 0))  # the clients
    process(tmp_path, 3, 1, "raylet", (ticks // 2, 0))
    process(tmp_path, 4, 3, "ray::LanePart.status", (4 * ticks, ticks), 4 * ticks, ticks)
    process(tmp_path, 5, 3, "ray::EncoderPart", (6 * ticks, 0))
    process(tmp_path, 6, 3, "ray::IDLE", (ticks // 2, 0))
    process(tmp_path, 7, 0, "somebody else", (100 * ticks, 0))
    clock = Clock([2], root=1, proc=tmp_path)
    before = clock.read()
    so_far = {part: seconds for part, seconds in clock.during({}).items() if seconds}
    assert so_far == {"edge": 2.0, "client": 3.0, "lane": 4.0, "lane beside": 1.0, "encoder": 6.0, "ray": 1.0}
    (tmp_path / "4" / "stat").write_text(
        (tmp_path / "4" / "stat").read_text().replace(f" {4 * ticks} ", f" {9 * ticks} ")
    )
    worked = tmp_path / "4" / "task" / "41" / "stat"
    worked.write_text(worked.read_text().replace(f" {ticks} ", f" {4 * ticks} "))
    since = {part: seconds for part, seconds in clock.during(before).items() if seconds}
    assert since == {"lane": 3.0, "lane beside": 2.0}
    assert used_s(99, tmp_path) == 0.0


def test_a_process_of_this_machine_has_used_time() -> None:
    assert used_s(os.getpid()) > 0.0


def test_one_edge_is_the_limit_of_many_lanes_and_more_edges_are_not() -> None:
    costs = replace(TRUE, watch_s=0.0001, redis_s=0.0001, route_s=1e-6)
    points = {
        (point.scenario, point.supply.num_lanes): point
        for point in scale(costs, WORKLOAD, users_per_lane=8, lanes=(1, 16))
    }
    assert points["one edge", 1].prediction.limit == "lanes"
    assert points["one edge", 16].prediction.limit.startswith("edge")
    enough = points["enough edges", 16]
    assert enough.prediction.limit == "lanes"
    assert enough.supply.num_edges > 1
    assert enough.prediction.steady_tokens_per_s > points["one edge", 16].prediction.steady_tokens_per_s
    assert points["enough edges", 1].as_dict()["tokens_per_s"] > 0


def test_bounds_say_the_same_without_a_queue() -> None:
    costs = replace(TRUE, watch_s=0.001)
    found = bounds(costs, WORKLOAD, users_per_lane=8)
    assert list(found.values()) == sorted(found.values())
    assert found["fleet"] == pytest.approx(1000.0)
    assert math.isinf(found["Redis"])
    assert bounds(replace(costs, redis_s=0.001), WORKLOAD, users_per_lane=8)["Redis"] < math.inf
    # Routing that looks at every lane is what an edge feels first when there are many.
    assert (
        bounds(replace(costs, route_s=0.01), WORKLOAD, users_per_lane=8)["edge: event loop"] < found["edge: event loop"]
    )


def test_a_figure_is_drawn(tmp_path: Path) -> None:
    points = scale(TRUE, WORKLOAD, users_per_lane=2, lanes=(1, 4))
    check = Check(num_lanes=1, measured_tokens_per_s=100.0, predicted_tokens_per_s=110.0, repeats=(100.0,))
    assert check.error == pytest.approx(0.1)
    draw(points, [check], tmp_path / "folder" / "scaling.svg")
    assert (tmp_path / "folder" / "scaling.svg").read_text(encoding="utf-8").count("one edge") >= 1
