"""The dashboard asks for metrics that are there, and Prometheus is told to read them."""

from __future__ import annotations

import json
import re
from itertools import combinations
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.unit.telemetry.test_metrics import Page, whole_page

CLUSTER = Path(__file__).parents[3] / "cluster"
DASHBOARD = json.loads((CLUSTER / "grafana" / "flashsd.json").read_text(encoding="utf-8"))
PANELS: list[dict[str, Any]] = [panel for panel in DASHBOARD["panels"] if panel["type"] != "row"]
QUERIES = [
    pytest.param(target["expr"], target["legendFormat"], id=f"{panel['title']}: {target['legendFormat']}")
    for panel in PANELS
    for target in panel["targets"]
]
LABELS = {sample[0]: {name for name, _ in sample[1:]} for sample in Page(whole_page()).values}


@pytest.mark.parametrize(("query", "legend"), QUERIES)
def test_a_query_asks_for_what_is_there(query: str, legend: str) -> None:
    asked = re.findall(r"flashsd_\w+", query)
    assert asked
    assert [name for name in asked if name not in LABELS] == []
    # Each metric comes from one job: lanes are on the page of every edge, and would be counted twice.
    assert len(re.findall(r'flashsd_\w+\{job=~"\$job"', query)) == len(asked)
    # Totals are looked at as rates, and the sums of histograms not at all: Ray knows them only roughly.
    assert [name for name in asked if name.endswith("_sum")] == []
    totals = [name for name in asked if name.endswith(("_total", "_bucket", "_count"))]
    assert len(re.findall(r"rate\(flashsd_", query)) == len(totals)
    assert query.count("(") == query.count(")")


@pytest.mark.parametrize(("query", "legend"), QUERIES)
def test_a_query_groups_by_labels_that_its_metrics_have(query: str, legend: str) -> None:
    grouped = {name.strip() for names in re.findall(r"by \(([^)]*)\)", query) for name in names.split(",")}
    for name in re.findall(r"flashsd_\w+", query):
        known = LABELS[name]
        assert grouped & {"lane", "edge", "encoder", "store"} <= known
    known = set().union(*(LABELS[name] for name in re.findall(r"flashsd_\w+", query)))
    assert grouped <= known
    assert set(re.findall(r"\{\{(\w+)\}\}", legend)) <= grouped


def test_no_metric_is_left_out_of_the_dashboard() -> None:
    asked = {name for query in QUERIES for name in re.findall(r"flashsd_\w+", str(query.values[0]))}
    shown = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in asked}
    there = {re.sub(r"_(total|bucket|count|sum)$", "", name) for name in LABELS}
    assert there - shown == set()


def test_panels_have_room_and_say_what_they_show() -> None:
    assert len({panel["id"] for panel in DASHBOARD["panels"]}) == len(DASHBOARD["panels"])
    assert all(panel["title"] and panel["description"].endswith(".") for panel in PANELS)
    places = [panel["gridPos"] for panel in DASHBOARD["panels"]]
    assert all(place["x"] + place["w"] <= 24 for place in places)
    for one, other in combinations(places, 2):
        beside = one["x"] + one["w"] <= other["x"] or other["x"] + other["w"] <= one["x"]
        above = one["y"] + one["h"] <= other["y"] or other["y"] + other["h"] <= one["y"]
        assert beside or above


def test_prometheus_reads_a_single_process_and_ray() -> None:
    settings = yaml.safe_load((CLUSTER / "prometheus.yaml").read_text(encoding="utf-8"))
    jobs = {job["job_name"]: job for job in settings["scrape_configs"]}
    assert jobs.keys() == {"flashsd", "flashsd-ray"}
    assert jobs["flashsd"]["metrics_path"] == "/metrics"
    rename = jobs["flashsd-ray"]["metric_relabel_configs"][0]
    names = [f"ray_{name}" for name in LABELS]
    assert [re.sub(f"^{rename['regex']}$", r"\1", name) for name in names] == list(LABELS)
    assert rename["replacement"] == "$1"
    assert re.fullmatch(rename["regex"], "ray_node_cpu_utilization") is None
