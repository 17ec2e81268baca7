"""The ablation on a tiny target: rows differ in what they say, learn from the same answers, and are not made twice."""

from __future__ import annotations

import argparse
from itertools import pairwise
from pathlib import Path

import pytest
import torch

from flashsd_ray.bench.ablation import report as report_module
from flashsd_ray.bench.ablation.rows import LAST, PAIRS, ROWS, AblationRow, rows_named
from flashsd_ray.bench.ablation.training import training_of
from flashsd_ray.bench.report import Report
from flashsd_ray.bench.scrambling import scramble
from flashsd_ray.cli.main import build_parser
from flashsd_ray.errors import ConfigError
from flashsd_ray.models.drafters.build import build_network
from flashsd_ray.models.drafters.checkpoint import describe
from flashsd_ray.training.drafter.trainer import Trainer, TrainingConfig
from tests.tiny_checkpoints import checkpoint
from tests.tiny_drafting import tiny_view

BY_NAME = {row.name: row for row in ROWS}
TRAINED = tuple(row for row in ROWS if not row.is_plain and not row.drafter_of)


def test_every_row_of_the_method_is_there_once() -> None:
    assert len(BY_NAME) == len(ROWS)
    assert {f"A{number}" for number in range(8)} | {"B1", "B2", "B3", "B4-hide", "B4-scramble"} <= BY_NAME.keys()
    assert all(better in BY_NAME and than in BY_NAME for better, than, _ in PAIRS)


@pytest.mark.parametrize("row", TRAINED, ids=lambda row: row.name)
def test_every_row_can_be_built(row: AblationRow) -> None:
    view = tiny_view()
    config = row.config(view)
    network = build_network(row.kind, view, config=config)
    assert config.compressor.name == row.compressor
    assert (config.tap_layers == (view.num_layers,)) is (row.taps == LAST or row.kind == "flash")
    assert network.config == config


def test_rows_differ_in_what_they_are_trained_with() -> None:
    usual = TrainingConfig(steps=5, seed=3)
    settings = {name: training_of(row, usual) for name, row in BY_NAME.items()}
    assert settings["B3"] == usual
    assert settings["A4"].weights.feature > 0
    assert settings["A4"].early == settings["B1"].early == 1.0
    assert {one.steps for one in settings.values()} == {5}


def test_rows_are_named_with_those_that_they_need() -> None:
    assert [row.name for row in rows_named(["B5-gate", "A0"])] == ["A0", "B3", "B5-gate"]
    with pytest.raises(ConfigError, match="B9"):
        rows_named(["B9"])


def test_noise_has_the_shape_and_the_size_of_latents() -> None:
    network = build_network("block", tiny_view())
    pieces = torch.randn(3, 12, network.config.width)
    before = network.compressor(pieces).detach()
    scramble(network)
    first, second = network.compressor(pieces).detach(), network.compressor(pieces).detach()
    assert first.shape == before.shape
    assert float(first.std() / before.std()) == pytest.approx(1.0, rel=0.5)
    assert not torch.equal(first, second)
    hidden = build_network("block", tiny_view(), compressor="hide")
    scramble(hidden)
    assert hidden.compressor(pieces).numel() == 0


def parsed(out: Path, *rows: str) -> argparse.Namespace:
    words = [
        *("bench", "ablation", "--model", str(checkpoint("llava15")), "--dtype", "float32", "--threads", "1"),
        *("--rows", *rows, "--data", "town:4", "--heldout", "2", "--frames", "2", "--steps", "2", "--readings", "2"),
        *("--anchors", "2", "--clips", "2", "--max-new-tokens", "8", "--out", str(out)),
    ]
    return build_parser().parse_args(words)


def measured(arguments: argparse.Namespace) -> Report:
    report: Report = arguments.measure(arguments)
    return report


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("ablation")


ASKED = ("A0", "A1", "A5", "B1", "B3", "B4-hide", "B4-scramble", "B4-vision", "B5-given", "B5-last", "B5-gate")


@pytest.fixture(scope="module")
def report(folder: Path) -> Report:
    torch.set_num_threads(1)
    return measured(parsed(folder, *ASKED))


def test_every_row_is_trained_and_decodes_as_plain_decoding_does(report: Report, folder: Path) -> None:
    assert report.is_sound, "float32, so whatever was drafted, no token may change"
    rows = {str(row["row"]): row for row in report.rows}
    assert list(rows) == list(ASKED)
    for name, row in rows.items():
        assert row["num_clips"] == 2
        assert row["num_diverged"] == 0
        if name != "A0":
            assert row["num_compared"] == 2
            assert row["tau"]["value"] >= 1.0
            assert row["round_ms"]["draft"] > 0
            assert row["trainings"][0]["steps"] == 2
    drafted = {name: row["drafted_per_round"] for name, row in rows.items()}
    assert drafted["A0"] == 0 < drafted["B5-gate"] <= drafted["B3"]
    falling = rows["B3"]["survival"]
    assert all(later <= earlier for earlier, later in pairwise(falling))
    assert {(pair["row"], pair["against"]) for pair in report.details["pairs"]} >= {
        ("B3", "B4-hide"),
        ("B5-gate", "B3"),
    }
    assert (folder / "ablation.md").read_text().count("B4-hide") >= 2
    assert (folder / "ablation.svg").exists()


def test_rows_are_kept_with_where_they_come_from(report: Report, folder: Path) -> None:
    made = describe(folder / "frames-2" / "B4-hide" / "seed-0")
    assert made["config"]["compressor"]["name"] == "hide"
    assert made["provenance"]["row"]["name"] == "B4-hide"
    assert not (folder / "frames-2" / "B5-gate" / "seed-0" / "model.safetensors").exists(), "B3's drafter is used"
    assert len(list((folder / "frames-2" / "answers").glob("*.jsonl"))) == 1, "asked once for all rows"


def test_finished_rows_are_not_made_again(report: Report, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refused(*_: object, **__: object) -> None:
        raise AssertionError

    monkeypatch.setattr(report_module, "Library", refused)
    monkeypatch.setattr(Trainer, "run", refused)
    again = measured(parsed(folder, *ASKED))
    assert again.rows == report.rows


def test_a_table_has_one_training(report: Report, folder: Path) -> None:
    arguments = parsed(folder, "B3")
    arguments.steps = 3
    with pytest.raises(ConfigError, match="steps 2, now it is 3"):
        measured(arguments)


def test_a_row_that_cannot_be_is_left_out_in_words(capsys: pytest.CaptureFixture[str]) -> None:
    arguments = argparse.Namespace(rows=["B3", "B5-given"], data="questions.jsonl")
    assert [row.name for row in report_module._rows(arguments)] == ["B3"]
    assert "B5-given" in capsys.readouterr().out
