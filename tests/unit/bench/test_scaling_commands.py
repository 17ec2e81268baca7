"""`flashsd bench scaling` as it is asked for, and what it prints and saves of what was measured."""

from __future__ import annotations

import json
import math
from pathlib import Path

import pytest

from flashsd_ray.bench.scaling import commands
from flashsd_ray.bench.scaling.study import Check, Measured
from flashsd_ray.cli.main import main
from tests.unit.bench.test_scaling_fit import LOADS, TRUE, WORKLOAD


def measured(error: float) -> Measured:
    checks = tuple(
        Check(
            num_lanes=number,
            measured_tokens_per_s=100.0 * number,
            predicted_tokens_per_s=100.0 * number * (1 + error),
            repeats=(100.0, 101.0),
            explained={"lane": 0.97},
        )
        for number in (1, 2)
    )
    return Measured(costs=TRUE, workload=WORKLOAD, slowdown=1.1, loads=tuple(LOADS), checks=checks)


@pytest.mark.parametrize(("error", "code"), [(0.149, 0), (-0.149, 0), (0.16, 1)])
def test_the_study_is_sound_when_its_predictions_are(
    error: float, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "_measured", lambda arguments: measured(error))
    monkeypatch.setattr(commands, "LANES", (1, 4))
    saved, figure = tmp_path / "scaling.json", tmp_path / "scaling.png"
    assert main(["bench", "scaling", "--users", "2", "--output", str(saved), "--figure", str(figure)]) == code
    printed = capsys.readouterr().out
    assert f"{error:+.1%}" in printed
    assert "| one edge | 4 |" in printed
    found = json.loads(saved.read_text(encoding="utf-8"))
    assert [check["error"] for check in found["checks"]] == pytest.approx([error, error])
    assert found["costs_s"]["round_s"] == TRUE.round_s
    assert found["lanes_that_one_keeps_busy"]["Redis"] is None  # it was not measured
    assert {row["limit"] for row in found["rows"]} <= {
        "lanes",
        "encoders",
        "edge loop",
        "edge decoding",
        "redis",
        "fleet",
    }
    assert all(math.isfinite(row["tokens_per_s"]) for row in found["rows"])
    assert figure.stat().st_size > 1000


def test_loads_of_the_calibration_are_not_those_that_are_predicted() -> None:
    from flashsd_ray.cli.main import build_parser

    for words in ([], ["--quick"], ["--users", "2", "--max-new-tokens", "8"]):
        plan = commands._plan(build_parser().parse_args(["bench", "scaling", *words]))
        assert all(step.users != plan.users_per_lane for step in plan.calibration)
        assert all(step.requests >= 4 and step.new_tokens > 0 for step in plan.calibration)
        assert {step.users for step in plan.calibration} >= {1}
