"""Alerts ask for metrics that are there, in a form that Prometheus reads, and say where it is written what to do."""

from __future__ import annotations

import inspect
import re
import shutil
import subprocess

import pytest

from flashsd_ray import errors
from flashsd_ray.types import FinishReason
from tests.unit.cluster.files import CLUSTER, ROOT, load, of_kind
from tests.unit.telemetry.test_metrics import Page, whole_page

LABELS = {sample[0]: {name for name, _ in sample[1:]} for sample in Page(whole_page()).values}
(GROUP,) = load("alerts.yaml")["groups"]
ALERTS = [pytest.param(rule, id=rule["alert"]) for rule in GROUP["rules"]]
FUNCTIONS = {"sum", "max", "min", "rate", "absent", "clamp_min", "histogram_quantile"}
WORDS = {"by", "and", "offset", "job", "le", "lane", "edge", "store", "encoder", "outcome"}
WANTED = {"NotReady", "Gone", "QueueWait", "Refusals", "StoreDown", "SpeculationOff", "TauDropped"}


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_asks_for_what_is_there(rule: dict[str, object]) -> None:
    query = str(rule["expr"])
    asked = re.findall(r"flashsd_\w+", query)
    assert asked
    assert [name for name in asked if name not in LABELS] == []
    assert [name for name in asked if name.endswith("_sum")] == []
    totals = [name for name in asked if name.endswith(("_total", "_bucket", "_count"))]
    assert len(re.findall(r"rate\(flashsd_", query)) == len(totals)
    assert query.count("(") == query.count(")")
    assert query.count("{") == query.count("}")
    # Every word is a function, a keyword or a label: a misspelt one is none.
    bare = re.sub(r'"[^"]*"|flashsd_\w+|\b[\d.]+[smhd]?\b', " ", query)
    assert set(re.findall(r"[A-Za-z_]\w*", bare)) <= FUNCTIONS | WORDS


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_tells_its_service_and_only_labels_that_it_has(rule: dict[str, object]) -> None:
    query = str(rule["expr"])
    grouped = {label.strip() for labels in re.findall(r"by \(([^)]*)\)", query) for label in labels.split(",")}
    known = set().union(*(LABELS[name] for name in re.findall(r"flashsd_\w+", query))) | {"job"}
    assert grouped <= known
    assert "job" in grouped or "absent" in query
    annotations = rule["annotations"]
    assert isinstance(annotations, dict)
    used = {label for text in annotations.values() for label in re.findall(r"\$labels\.(\w+)", text)}
    assert used <= grouped


@pytest.mark.parametrize("rule", ALERTS)
def test_an_alert_waits_is_told_to_somebody_and_has_a_page(rule: dict[str, object]) -> None:
    assert rule.keys() == {"alert", "expr", "for", "labels", "annotations"}
    assert re.fullmatch(r"\d+[smh]", str(rule["for"]))
    labels, annotations = rule["labels"], rule["annotations"]
    assert isinstance(labels, dict)
    assert isinstance(annotations, dict)
    assert labels["severity"] in ("page", "ticket")
    assert annotations["summary"].endswith(".")
    path, _, anchor = annotations["runbook"].partition("#")
    headings = re.findall(r"^#+ (.+)$", (ROOT / path).read_text(encoding="utf-8"), flags=re.MULTILINE)
    assert anchor == str(rule["alert"]).lower()
    assert anchor in {heading.lower().replace(" ", "-") for heading in headings}


def test_outcomes_that_alerts_count_are_outcomes() -> None:
    known = {name for name, one in inspect.getmembers(errors, inspect.isclass) if issubclass(one, errors.FlashSDError)}
    known |= {reason.value for reason in FinishReason}
    asked = re.findall(r'outcome=~?"([^"]+)"', str(GROUP))
    assert asked
    assert {outcome for one in asked for outcome in one.split("|")} <= known


def test_there_is_an_alert_for_everything_that_stops_or_slows_answers() -> None:
    names = [rule["alert"] for rule in GROUP["rules"]]
    assert len(set(names)) == len(names)
    assert {f"FlashSD{name}" for name in WANTED} <= set(names)


def test_prometheus_loads_the_alerts_and_the_operator_renames_as_it_does() -> None:
    settings = load("prometheus.yaml")
    assert all((CLUSTER / path).exists() for path in settings["rule_files"])
    jobs = {job["job_name"]: job for job in settings["scrape_configs"]}
    (monitor,) = of_kind("PodMonitor")
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    theirs = [
        {re.sub(r"[A-Z]", lambda match: f"_{match[0].lower()}", key): value for key, value in one.items()}
        for one in endpoint["metricRelabelings"]
    ]
    assert theirs == jobs["flashsd-ray"]["metric_relabel_configs"]


def test_grafana_finds_the_dashboard_and_prometheus() -> None:
    (provider,) = load("grafana/provisioning/dashboards/flashsd.yaml")["providers"]
    (source,) = load("grafana/provisioning/datasources/prometheus.yaml")["datasources"]
    services = load("compose.yaml")["services"]
    mounts = dict(volume.split(":")[:2] for volume in services["grafana"]["volumes"])
    assert mounts["./grafana/flashsd.json"].startswith(provider["options"]["path"] + "/")
    assert mounts["./grafana/provisioning"] == "/etc/grafana/provisioning"
    (variable,) = re.findall(r"\$\{(\w+)\}", source["url"])
    assert variable in services["grafana"]["environment"]
    mounts = dict(volume.split(":")[:2] for volume in services["prometheus"]["volumes"])
    assert f"--config.file={mounts['./prometheus.yaml']}" in services["prometheus"]["command"]


@pytest.mark.skipif(shutil.which("promtool") is None, reason="promtool is not installed")
def test_promtool_agrees() -> None:
    subprocess.run(["promtool", "check", "rules", str(CLUSTER / "alerts.yaml")], check=True, capture_output=True)
