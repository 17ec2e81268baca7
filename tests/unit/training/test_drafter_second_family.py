"""The same command trains a drafter for a target of another family, and what it drafts is worth more than lookup."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashsd_ray.cli import loading
from flashsd_ray.cli.main import main
from flashsd_ray.models.drafters.checkpoint import describe
from tests.tiny_checkpoints import missing_requirement
from tests.unit.training.tiny_captioner import teach

FAMILY = "qwen25_vl"


@pytest.mark.skipif(missing_requirement(FAMILY) is not None, reason=str(missing_requirement(FAMILY)))
def test_a_drafter_for_another_family_beats_lookup(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "quiet_libraries", lambda: None)
    target, out = tmp_path / "target", tmp_path / "drafter"
    teach(target, 70, family=FAMILY, tasks=("short", "count", "place"), clips=100)
    command = f"train drafter --target {target} --dtype float32 --data town:50 --heldout 12 --frames 2 --threads 1"
    command += f" --max-new-tokens 64 --sampled-share 0 --draft-length 4 --steps 60 --learning-rate 3e-3 --out {out}"
    assert main([*command.split(), "--check", "8"]) == 0
    made = describe(out)["provenance"]
    engine = {checked["drafter"]: checked for checked in made["engine"]}
    assert [checked["num_equal"] for checked in engine.values()] == [8, 8]
    assert engine["block"]["tau"] > 1.4 * engine["lookup"]["tau"]
    assert made["quality"]["greedy_tau"] > 1.5
