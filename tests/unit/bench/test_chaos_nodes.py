"""Nodes end with everything that runs on them, and are followed by others; no Ray runs here."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashsd_ray.bench.chaos import nodes as module
from flashsd_ray.bench.chaos.cluster import is_running
from flashsd_ray.bench.chaos.nodes import Node, Nodes, NodesCluster
from flashsd_ray.config import Config, ModelConfig, PlacementConfig

CONFIG = Config(placement=PlacementConfig(num_lanes=2, kind="colocated"), model=ModelConfig(tensor_parallel=2))
# A process with a child of its own, whose number it tells.
TREE = (
    "import subprocess, sys, time;"
    "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(600)']);"
    "print(child.pid, flush=True); time.sleep(600)"
)


class Started:
    """Stands for ``ray start``."""

    def __init__(self) -> None:
        self.words: list[list[str]] = []
        self.running: list[subprocess.Popen[bytes]] = []

    def __call__(self, words: list[str], log: Path) -> subprocess.Popen[bytes]:
        self.words.append(words)
        self.running.append(subprocess.Popen([sys.executable, "-c", TREE], stdout=subprocess.PIPE))
        return self.running[-1]


@pytest.fixture
def started(monkeypatch: pytest.MonkeyPatch) -> Iterator[Started]:
    made = Started()
    monkeypatch.setattr(module, "start_node", made)
    monkeypatch.setattr(module, "await_port", lambda address, log: None)
    yield made
    for process in made.running:
        Node("", Path(), process).cut()
        assert process.stdout is not None
        process.stdout.close()


def test_a_node_holds_a_lane_with_its_ranks_and_ends_with_all_that_runs_there(started: Started, tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, CONFIG)
    stays = nodes.start()
    assert nodes.head == "head-1"
    assert f"--temp-dir={stays}" in started.words[1]
    assert nodes.workers == ["worker-3", "worker-4"]
    assert any('"flashsd_lane": 2.0' in word for word in started.words[2])
    victim = started.running[2]
    assert victim.stdout is not None
    child = int(victim.stdout.readline())
    nodes.cut_worker("worker-3")
    assert victim.poll() is not None
    assert not is_running(child)
    assert nodes.workers == ["worker-4"]
    by_itself = started.running[3]
    Node("", tmp_path, by_itself).cut()
    nodes.revive()
    assert nodes.workers == ["worker-5"]
    nodes.revive()
    assert nodes.workers == ["worker-5"]


def test_another_head_has_the_address_and_another_name(started: Started, tmp_path: Path) -> None:
    nodes = Nodes(tmp_path, CONFIG)
    nodes.start_head()
    nodes.cut_head()
    assert nodes.head == ""
    nodes.start_head()
    assert nodes.head == "head-2"
    ports = {word for words in started.words for word in words if word.startswith("--port=")}
    assert ports == {f"--port={nodes.port}"}


async def test_nodes_are_there_when_ray_counts_on_all_of_them(
    started: Started, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nodes = Nodes(tmp_path, CONFIG)
    nodes.start_head()
    nodes.start_worker()
    nodes.start_worker()
    cluster = NodesCluster("", "", nodes)
    alive = {"head-1", "worker-2"}
    monkeypatch.setattr(module, "alive_nodes", lambda: frozenset(alive))
    assert await cluster.identity("node") == ""
    alive.add("worker-3")
    assert await cluster.identity("node") == "worker-2 worker-3"
    monkeypatch.setattr(module, "LOOK_S", 0.0)
    assert await cluster.kill("node", 0.9) == "worker-2 worker-3"
    assert nodes.workers == ["worker-2"]
    alive.remove("worker-3")  # only now there is a successor
    alive.add("worker-4")
    while len(cluster._replacing):
        await next(iter(cluster._replacing))
    assert nodes.workers == ["worker-2", "worker-4"]
