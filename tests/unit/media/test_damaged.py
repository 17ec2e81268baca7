"""Hundreds of damaged inputs: each gives one MediaError or a valid video, and harms nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[3]

# Decoders of one large picture at the limit of the test (16 MB of pixels), and some for the allocator.
MAX_PEAK_GROWTH_KIB = 120 * 2**10

# The first test, whichever it is, waits for all inputs to be made and loaded.
pytestmark = pytest.mark.timeout(120)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> subprocess.CompletedProcess[str]:
    """One process that has loaded them all."""
    directory = str(tmp_path_factory.mktemp("damaged"))
    make = program("make", directory)
    assert make.returncode == 0, make.stderr
    return program("load", directory)


def program(verb: str, directory: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "SVT_LOG": "0", "PYTHONFAULTHANDLER": "1"}
    command = [sys.executable, "-m", "tests.unit.media.damaged_inputs", verb, directory]
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=100, check=False)


@pytest.fixture(scope="module")
def reports(run: subprocess.CompletedProcess[str]) -> list[dict[str, Any]]:
    """What became of each input."""
    return [json.loads(line) for line in run.stdout.splitlines()[:-1]]


def test_nothing_crashes_and_a_good_file_still_loads_after_each(run: subprocess.CompletedProcess[str]) -> None:
    assert run.returncode == 0, run.stderr[-3000:]


def test_there_are_hundreds_of_them(reports: list[dict[str, Any]]) -> None:
    assert len(reports) >= 200
    assert len({report["name"] for report in reports}) == len(reports)


def test_what_cannot_be_recovered_is_an_error(reports: list[dict[str, Any]]) -> None:
    assert [report for report in reports if report["outcome"] == "loaded" and not report["may_load"]] == []


def test_an_error_is_one_line_that_names_its_input(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        if report["outcome"] == "error":
            message = report["message"]
            assert message.isprintable(), report
            assert ": " in message or report["name"] == "nothing", report
            assert " object at 0x" not in message, report
            assert len(message) < 500, report


def test_what_is_loaded_is_a_whole_video_or_picture(reports: list[dict[str, Any]]) -> None:
    for report in reports:
        if report["outcome"] == "loaded":
            num_frames, height, width, channels = report["shape"]
            assert 1 <= num_frames <= 6, report
            assert channels == 3
            assert height * width <= 4 * 2**20


def test_memory_stays_bounded(run: subprocess.CompletedProcess[str]) -> None:
    assert json.loads(run.stdout.splitlines()[-1])["peak_growth_kib"] < MAX_PEAK_GROWTH_KIB


def test_ffmpeg_keeps_its_log_to_itself(run: subprocess.CompletedProcess[str]) -> None:
    # Pillow's libtiff and warnings may say a word; FFmpeg's lines begin with the name of a part and an address.
    assert [line for line in run.stderr.splitlines() if line.startswith("[") and "@ 0x" in line] == []
    assert "PyAV library exception being dropped" not in run.stderr
