"""From the command line of a measurement to the configurations of its servers."""

from __future__ import annotations

import argparse
from collections.abc import Sequence

from flashsd_ray.config import Config, with_overrides

PLACEMENTS = ("local", "colocated", "dedicated")


def config_of(
    arguments: argparse.Namespace,
    placement: str,
    assignments: Sequence[str] = (),  # what the measurement needs; --set wins over it
) -> Config:
    """The configuration of one server, on ports that are free.

    Raises:
        ConfigError: a setting is unknown or its value is not allowed.
    """
    given = [
        f"model.name={arguments.model}",
        f"model.dtype={arguments.dtype}",
        f"model.threads={arguments.threads}",
        f"placement.kind={placement}",
        "serving.http_port=0",
        "serving.grpc_port=0",
        "telemetry.log_level=warning",
    ]
    return with_overrides(Config(), [*given, *assignments, *arguments.assignments])
