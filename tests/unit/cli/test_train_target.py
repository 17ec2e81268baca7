"""``flashsd train target``: what it says while it learns, and what it refuses."""

from __future__ import annotations

from pathlib import Path

import pytest

from flashsd_ray.cli.main import main
from flashsd_ray.cli.target_progress import TargetProgress
from flashsd_ray.training.target.settings import Event


def event(step: int, *, is_heldout: bool = False, **figures: float) -> Event:
    return Event(stage="vision", step=step, steps=10, spent_s=1.0, left_s=100.0, figures=figures, is_heldout=is_heldout)


def test_progress_is_a_plain_line_where_there_is_no_terminal(capsys: pytest.CaptureFixture[str]) -> None:
    with TargetProgress() as progress:
        progress(event(4, loss=0.5))  # too soon after the start for a line of its own
        progress(event(5, is_heldout=True, kind=0.75))
        progress(event(10, loss=0.25))
    assert capsys.readouterr().err.splitlines() == [
        "vision: step 5 of 10, on held-out clips kind 0.750",
        "vision: step 10 of 10, loss 0.250, 2 min left",
    ]


def test_on_a_terminal_it_is_a_bar(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    with TargetProgress() as progress:
        progress(event(4, loss=0.5))
        progress(event(5, is_heldout=True, kind=0.75))
    shown = capsys.readouterr().err
    assert "vision: step 5 of 10, on held-out clips kind 0.750" in shown
    assert "step 4 of 10, loss 0.500" in shown
    assert "warning" not in shown


def test_what_is_in_the_way_is_said(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "vision.pt").touch()
    assert main(["train", "target", "--out", str(tmp_path)]) == 2
    assert "--resume goes on from it, --overwrite begins anew" in capsys.readouterr().err
    assert main(["train", "target", "--out", str(tmp_path), "--resume", "--overwrite"]) == 2
