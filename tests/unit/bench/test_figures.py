from __future__ import annotations

from pathlib import Path

import pytest

from flashsd_ray.bench.serving.figures import draw_loads, draw_memory
from flashsd_ray.bench.serving.memory import Reading

PERCENTILES = {"p50": 0.1, "p90": 0.2, "p99": 0.3, "num_values": 4}


@pytest.mark.parametrize(("suffix", "beginning"), [("png", b"\x89PNG"), ("svg", b"<?xml")])
def test_figures_are_files(suffix: str, beginning: bytes, tmp_path: Path) -> None:
    row = {"placement": "local", "edge": "grpc", "rate_per_s": 2.0, "first_s": PERCENTILES, "whole_s": PERCENTILES}
    closed = {**row, "rate_per_s": 0.0}
    draw_loads([closed, row, {**row, "rate_per_s": 3.0, "first_s": None}], tmp_path / "a" / f"loads.{suffix}")
    series = {"http": [Reading(0.0, {"server": 2**20}), Reading(1.0, {"server": 2**21})]}
    draw_memory(series, tmp_path / f"memory.{suffix}", x_label="seconds")
    for path in (tmp_path / "a" / f"loads.{suffix}", tmp_path / f"memory.{suffix}"):
        assert path.read_bytes().startswith(beginning)
