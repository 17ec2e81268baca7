"""One Ray for all tests of this folder: starting it takes seconds."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator

import pytest

SHUTDOWN_S = 30.0


@pytest.fixture(scope="session", autouse=True)
def ray_cluster() -> Iterator[None]:
    """A local Ray; it starts a process for each CPU that it is told of, so it is told of few."""
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_worker_niceness", "0")  # Ray's own choice is 15: behind everything else on the machine
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    # Ray 2.60 takes leave of its control service without a time limit, and after these tests was once not answered.
    node = ray._private.worker._global_node
    impatient = threading.Timer(SHUTDOWN_S, node.kill_gcs_server, kwargs={"check_alive": False})
    impatient.start()
    ray.shutdown()
    impatient.cancel()
