"""`flashsd bench scaling` as it is asked for, and what it prints and saves of what was measured."""

from __future__ import annotations

import json
import math
from dataclasses import replace
from pathlib import Path

import pytest

from flashsd_ray.bench.scaling import commands, study
from flashsd_ray.bench.scaling.costs import Costs, Supply
from flashsd_ray.bench.scaling.fit import Machine
from flashsd_ray.bench.scaling.raw import Raw
from flashsd_ray.bench.scaling.study import Check, Measured
from flashsd_ray.cli.main import main
from tests.unit.bench.test_scaling_fit import IDLE_S, LOADS, TRUE, WORKLOAD

RAW = Raw(
    machine=Machine(num_cores=2, slowdown=1.1),
    known=Costs(decode_s=TRUE.decode_s),
    idle_s=IDLE_S,
    num_watched=2,
    loads=tuple(replace(one, survival=(0.9,) if one.requests > 20 else (0.5, 0.2)) for one in LOADS),
    checked={1: tuple(LOADS[:2]), 2: tuple(LOADS[1:3])},
    supplies={1: Supply(num_lanes=1, num_cores=2), 2: Supply(num_lanes=2, num_cores=2)},
    users_per_lane=2,
    new_tokens=64,
    draft_length=2,
    num_frames=8,
    num_pictures=4,
)


def measured(error: float) -> Measured:
    checks = tuple(
        Check(
            num_lanes=number,
            measured_tokens_per_s=100.0 * number,
            predicted_tokens_per_s=100.0 * number * (1 + error),
            repeats=(100.0, 101.0),
            draws=(99.0, 102.0),
            explained={"lane": 0.97},
        )
        for number in (1, 2)
    )
    return Measured(costs=TRUE, workload=WORKLOAD, slowdown=1.1, loads=tuple(LOADS), checks=checks)


@pytest.mark.parametrize(("error", "code"), [(0.149, 0), (-0.149, 0), (0.16, 1)])
def test_the_study_is_sound_when_its_predictions_are(
    error: float, code: int, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(commands, "_measured", lambda arguments: RAW)
    monkeypatch.setattr(study, "concluded", lambda raw: measured(error))
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


def test_what_was_measured_is_concluded_from_again(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    kept = tmp_path / "kept.json"
    kept.write_text(json.dumps({"measured": RAW.as_dict()}))
    assert Raw.of(json.loads(kept.read_text())["measured"]) == RAW
    words = ["bench", "scaling", "--quick", "--lanes", "2", "--output", str(tmp_path / "again.json")]
    assert main([*words, "--measured", str(kept)]) == 0
    assert "| one edge | 2 |" in capsys.readouterr().out
    first = json.loads((tmp_path / "again.json").read_text())
    assert Raw.of(first["measured"]) == RAW


@pytest.mark.parametrize("text", ["", "{}", '{"measured": {"machine": {}}}'])
def test_a_file_of_something_else_is_refused(text: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "other.json").write_text(text)
    assert main(["bench", "scaling", "--measured", str(tmp_path / "other.json")]) == 2
    assert capsys.readouterr().err.startswith("flashsd: error: ")


def test_drafts_are_told_by_answers_as_long_as_those_that_are_predicted() -> None:
    short = tuple(replace(one, new_tokens=16, survival=(0.99, 0.99)) for one in RAW.loads)
    found = study.concluded(replace(RAW, loads=(*RAW.loads, *short))).workload
    assert found.survival == study.concluded(RAW).workload.survival
    assert study.concluded(replace(RAW, loads=short)).workload.survival == pytest.approx((0.99, 0.99))


def test_a_round_waits_for_what_its_thread_did_not_work() -> None:
    waiting = replace(LOADS[0], users=1, rounds_s=LOADS[0].cpu_s["lane"] + 0.001 * LOADS[0].rounds)
    others = tuple(replace(one, users=4, rounds_s=100.0) for one in LOADS[1:])
    found = study.concluded(replace(RAW, loads=(waiting, *others)))
    assert found.costs.round_wait_s == pytest.approx(0.001)
    crowded = replace(RAW, loads=(waiting, *others), machine=Machine(num_cores=1))
    assert study.concluded(crowded).costs.round_wait_s == 0.0
