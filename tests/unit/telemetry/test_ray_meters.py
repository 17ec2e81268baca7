"""What Ray is given adds up to the totals, however often it is given."""

from __future__ import annotations

from typing import Any, ClassVar

import pytest
from hypothesis import given
from hypothesis import strategies as st

from flashsd_ray.engine.meters import LaneMeters
from flashsd_ray.runtime import meters as ray_meters
from flashsd_ray.runtime.meters import RayMeters
from flashsd_ray.telemetry.metrics import EdgeMeters, render
from tests.unit.telemetry.parts import ENCODER, STATUS, edge_meters, lane_meters

Given = dict[tuple[str, tuple[tuple[str, str], ...]], Any]


class FakeMetric:
    """Stands for one of ray.util.metrics: it refuses what Ray refuses."""

    given: ClassVar[Given] = {}

    def __init__(self, name: str, text: str, *rest: Any) -> None:
        self.name = name
        self.tag_keys: tuple[str, ...] = rest[-1]
        self.bounds = rest[0]
        assert isinstance(self.tag_keys, tuple)

    def key(self, tags: dict[str, str]) -> Any:
        assert set(tags) == set(self.tag_keys)
        return (self.name, tuple(sorted(tags.items())))


class FakeCounter(FakeMetric):
    def inc(self, value: float, tags: dict[str, str]) -> None:
        assert value > 0
        self.given[self.key(tags)] = self.given.get(self.key(tags), 0.0) + value


class FakeGauge(FakeMetric):
    def set(self, value: float, tags: dict[str, str]) -> None:
        self.given[self.key(tags)] = value


class FakeHistogram(FakeMetric):
    def observe(self, value: float, tags: dict[str, str]) -> None:
        counts = self.given.setdefault(self.key(tags), [0] * (len(self.bounds) + 1))
        counts[next((i for i, bound in enumerate(self.bounds) if value <= bound), len(self.bounds))] += 1


@pytest.fixture
def given_to_ray(monkeypatch: pytest.MonkeyPatch) -> Given:
    monkeypatch.setattr(FakeMetric, "given", {})
    for kind in (FakeCounter, FakeGauge, FakeHistogram):
        monkeypatch.setattr(ray_meters, kind.__name__.removeprefix("Fake"), kind)
    return FakeMetric.given


def lane(name: str, **labels: str) -> Any:
    return (f"flashsd_lane_{name}", tuple(sorted({"lane": "lane-0", **labels}.items())))


def test_a_lane_is_exported_once_however_often_it_is_told(given_to_ray: Given) -> None:
    meters, mine = lane_meters(), RayMeters()
    for _ in range(3):
        mine.export_lane("lane-0", meters, STATUS.lanes[0])
    assert given_to_ray[lane("rounds_total")] == 3
    assert given_to_ray[lane("stage_seconds_total", stage="verify")] == pytest.approx(0.75)
    assert given_to_ray[lane("answers_total", reason="stop")] == 1
    assert given_to_ray[lane("accepted_at_position_total", position="2")] == 74
    assert given_to_ray[lane("round_requests")] == [1, 0, 1, 0, 0, 0, 0, 1]
    assert given_to_ray[lane("waiting_requests")] == 2
    meters.count_round(3, {"verify": 0.25})
    mine.export_lane("lane-0", meters, STATUS.lanes[0])
    assert given_to_ray[lane("rounds_total")] == 4
    assert given_to_ray[lane("stage_seconds_total", stage="verify")] == pytest.approx(1.0)
    assert given_to_ray[lane("round_requests")] == [1, 0, 2, 0, 0, 0, 0, 1]


def test_encoders_and_edges_are_exported(given_to_ray: Given) -> None:
    mine, edges = RayMeters(), edge_meters()
    for _ in range(2):
        mine.export_encoder("encoder-0", ENCODER)
        mine.export_edges(edges)
    assert given_to_ray["flashsd_encoder_frames_total", (("encoder", "encoder-0"),)] == 100
    assert given_to_ray["flashsd_encoder_waiting_frames", (("encoder", "encoder-0"),)] == 8
    assert given_to_ray["flashsd_requests_total", (("edge", "http"), ("outcome", "stop"))] == 1
    assert sum(given_to_ray["flashsd_request_seconds", (("edge", "http"),)]) == 1


def test_ray_is_given_the_names_of_the_page(given_to_ray: Given) -> None:
    mine, edges = RayMeters(), edge_meters()
    mine.export_lane("lane-0", lane_meters(), STATUS.lanes[0])
    mine.export_encoder("encoder-0", ENCODER)
    mine.export_edges(edges)
    mine.export_service(STATUS)
    mine.export_scales(STATUS.scales)
    text = render(edges.registry, {"lane-0": lane_meters()}, STATUS, encoders={"encoder-0": ENCODER})
    on_page = {line.split()[2] for line in text.splitlines() if line.startswith("# TYPE")}
    assert {name for name, _ in given_to_ray} == on_page


@given(rounds=st.lists(st.lists(st.integers(1, 200), max_size=5), max_size=6))
def test_increments_add_up(rounds: list[list[int]]) -> None:
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(FakeMetric, "given", {})
        for kind in (FakeCounter, FakeGauge, FakeHistogram):
            monkeypatch.setattr(ray_meters, kind.__name__.removeprefix("Fake"), kind)
        meters, mine = LaneMeters(), RayMeters()
        for sizes in rounds:  # an export after each of them
            for size in sizes:
                meters.count_round(size, {"decode": 0.5})
            mine.export_lane("lane-0", meters, STATUS.lanes[0])
        given_all = FakeMetric.given
    num_rounds = sum(map(len, rounds))
    assert given_all.get(lane("rounds_total"), 0) == num_rounds
    assert given_all.get(lane("stage_seconds_total", stage="decode"), 0) == num_rounds * 0.5
    assert given_all.get(lane("round_requests"), meters.batch_sizes) == meters.batch_sizes


def test_edges_that_did_nothing_are_no_trouble(given_to_ray: Given) -> None:
    RayMeters().export_edges(EdgeMeters())
    assert given_to_ray == {}
