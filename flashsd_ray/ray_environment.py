"""What a Ray that is started here reads from the environment of its processes."""

from __future__ import annotations

import os

RAY_ENVIRONMENT = {
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",  # Ray's own choice is 15: behind everything else on the machine
    # The exporter of metrics that Ray 2.60 uses otherwise ends a process that it measures, a fleet for instance, by a
    # segmentation fault now and then. The older one has the same names; the level keeps the labels the same too.
    "RAY_enable_open_telemetry": "0",
    "RAY_metric_cardinality_level": "legacy",
}


def prepare_ray_environment() -> None:
    """A Ray that this process starts finds what is wanted; what the user has set is left alone."""
    for name, value in RAY_ENVIRONMENT.items():
        os.environ.setdefault(name, value)
