"""Two nodes, each in a network of its own and with TLS between them, answer as one machine does."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pytest

from flashsd_ray.bench.serving.networks import two_places
from tests.e2e.conftest import start

LIMIT_S = 400.0


@pytest.fixture
def networks() -> None:
    """Two networks can be had here."""
    with two_places() as (here, there):
        if here == there:
            pytest.skip("no network namespaces: they take root, NET_ADMIN and the command ip")


@pytest.mark.timeout(2 * LIMIT_S)
@pytest.mark.usefixtures("networks")
def test_encoder_and_lane_on_nodes_of_their_own_answer_as_one_machine_does(tmp_path: Path) -> None:
    output = tmp_path / "two-nodes.json"
    words = ("bench", "two-nodes", "--quick", "--placements", "dedicated", "--output", output)
    with start(*words) as process:
        try:
            out, err = process.communicate(timeout=LIMIT_S)
        except subprocess.TimeoutExpired:
            process.terminate()
            raise
    assert process.returncode == 0, out + err
    rows = json.loads(output.read_text(encoding="utf-8"))["rows"]
    assert {row["edge"] for row in rows} == {"http", "grpc"}
    for row in rows:
        assert row["num_networks"] == 2
        assert row["stands_apart"], row
        assert row["lane"] != row["encoder"] == row["drafter"]
        assert row["num_requests"] > 0
        assert row["wrong"] == []
