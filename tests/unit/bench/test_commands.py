"""What the command line offers, and how it ends."""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from flashsd_ray.bench.commands import run
from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.settings import config_of
from flashsd_ray.cli.main import build_parser, main

SERVING = ("serving-equality", "serving", "ray-overhead", "live", "overload", "cancel")


@pytest.mark.parametrize("name", SERVING)
def test_every_measurement_of_serving_can_be_quick_and_saved(name: str) -> None:
    words = ["bench", name, "--quick", "--output", "x.json", "--set", "media.num_frames=4"]
    arguments = build_parser().parse_args(words)
    config = config_of(arguments, "local", ["media.num_frames=6", "scheduling.max_waiting=3"])
    assert arguments.quick
    assert config.media.num_frames == 4  # the user's word is the last
    assert config.scheduling.max_waiting == 3
    assert config.placement.kind == "local"
    assert config.serving.http_port == config.serving.grpc_port == 0


def test_a_misspelt_measurement_is_a_usage_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bench", "overlode"]) == 2
    assert "overload" in capsys.readouterr().err


def arguments(report: Report, output: Path | None) -> argparse.Namespace:
    def measure(_: argparse.Namespace) -> Report:
        return report

    return argparse.Namespace(measure=measure, output=output)


@pytest.mark.parametrize(("is_sound", "code"), [(True, 0), (False, 1)])
def test_a_finding_is_an_exit_code_and_is_saved(is_sound: bool, code: int, tmp_path: Path) -> None:
    output = tmp_path / "new" / "result.json"
    report = Report([{"a": 1}], is_sound=is_sound, details={"series": [1, 2]})
    assert run(arguments(report, output)) == code
    saved: dict[str, Any] = json.loads(output.read_text())
    assert saved["rows"] == [{"a": 1}]
    assert saved["series"] == [1, 2]
    assert saved["is_sound"] is is_sound
    assert saved["machine"]["command"].startswith("flashsd bench")
    assert {"date", "processor", "torch"} <= set(saved["machine"])
    assert run(arguments(report, None)) == code


def test_the_options_are_known_without_the_libraries_that_measure() -> None:
    program = (
        "import sys\n"
        "from flashsd_ray.cli.main import build_parser\n"
        "build_parser().parse_args(['bench', 'serving', '--quick'])\n"
        "heavy = {'torch', 'ray', 'numpy', 'aiohttp', 'grpc', 'matplotlib', 'rich'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True, timeout=60)
