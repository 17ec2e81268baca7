"""One Ray for all tests of this folder: starting it takes seconds."""

from __future__ import annotations

import threading
import warnings
from collections.abc import Iterator
from pathlib import Path

import pytest

from flashsd_ray.ray_environment import prepare_ray_environment

SHUTDOWN_S = 30.0


@pytest.fixture(scope="session", autouse=True)
def ray_cluster() -> Iterator[None]:
    """A local Ray; it starts a process for each CPU that it is told of, so it is told of few."""
    prepare_ray_environment()
    import ray

    ray.init(num_cpus=4, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield
    # Ray 2.60 takes leave of its control service without a time limit, and after these tests was once not answered.
    node = ray._private.worker._global_node
    impatient = threading.Timer(SHUTDOWN_S, node.kill_gcs_server, kwargs={"check_alive": False})
    impatient.start()
    ray.shutdown()
    impatient.cancel()
    logs = sorted(Path(node.get_logs_dir_path()).glob("*.err"))
    crashed = [path.name for path in logs if "SIGSEGV received" in path.read_text(errors="replace")]
    if crashed:
        warnings.warn(f"processes ended by a segmentation fault: {', '.join(crashed)}", stacklevel=1)
