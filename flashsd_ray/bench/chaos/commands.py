"""The chaos measurement and its options; what measures is imported when it is needed."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from flashsd_ray.bench.arguments import add_model_options
from flashsd_ray.bench.chaos.schedule import KINDS
from flashsd_ray.bench.report import Report


def add_measurements(measurements: Any) -> None:
    """The subparsers know the measurement."""
    text = "parts are killed, hang and are late under load; every answer against the undisturbed one"
    parser: argparse.ArgumentParser = measurements.add_parser("chaos", help=text, description=f"{text.capitalize()}.")
    parser.add_argument("--requests", type=int, metavar="N", help="at least; HTTP, gRPC, live sessions (default: 200)")
    parser.add_argument("--faults", type=int, metavar="N", help="of all kinds in turn (default: 30)")
    parser.add_argument("--seed", type=int, default=1, help="of the schedule (default: 1)")
    parser.add_argument("--concurrency", type=int, metavar="N", default=8, help="requests open at a time (default: 8)")
    names = [f"{action}-{target}" for action, target in KINDS]
    parser.add_argument("--only", nargs="+", choices=names, metavar="FAULT", help=f"of: {', '.join(names)}")
    parser.add_argument("--placement", choices=("colocated", "dedicated"), default="dedicated")
    parser.add_argument(
        "--ranks", type=int, metavar="R", default=1, help="of each lane; with 2, ranks are lost as well"
    )
    parser.add_argument("--nodes", action="store_true", help="on a cluster of several nodes, which are lost as well")
    parser.add_argument("--apart", action="store_true", help="a fault waits until what came before is recovered from")
    parser.add_argument("--verbose", action="store_true", help="tell each fault as it is recovered from")
    add_model_options(parser, dtype="float32", threads=1)
    parser.add_argument("--figure", type=Path, metavar="FILE", help="PNG or SVG file for a time-line of it")
    parser.set_defaults(measure=_measure)


def _measure(arguments: argparse.Namespace) -> Report:
    found: Report = import_module("flashsd_ray.bench.chaos.report").report(arguments)
    return found
