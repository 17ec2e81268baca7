"""The measurements of serving and their options; what measures is imported when it is needed."""

from __future__ import annotations

import argparse
from functools import partial
from importlib import import_module
from pathlib import Path
from typing import Any

from flashsd_ray.bench.arguments import add_model_options
from flashsd_ray.bench.report import Report
from flashsd_ray.bench.serving.settings import PLACEMENTS


def add_measurements(measurements: Any) -> None:
    """The subparsers know these measurements."""
    equality = _added(
        measurements, "serving-equality", "equality", "answers of every edge and placement against an engine", "float32"
    )
    equality.add_argument("--clips", type=int, metavar="N", help="each asked greedily and sampled (default: 100)")
    equality.add_argument("--concurrencies", type=int, nargs="+", metavar="N", default=[1, 16])
    _add_placements(equality)

    serving = _added(measurements, "serving", "serving", "throughput and latency through HTTP and gRPC")
    serving.add_argument("--concurrencies", type=int, nargs="+", metavar="N", help="default: 1 4 16 64")
    serving.add_argument("--requests", type=int, metavar="N", help="of one closed loop (default: 24)")
    serving.add_argument("--shares", type=float, nargs="+", metavar="SHARE", default=[0.25, 0.5, 0.75, 0.9])
    serving.add_argument("--arrivals", type=int, metavar="N", help="requests of one open loop (default: 32)")
    serving.add_argument("--max-new-tokens", type=int, metavar="N", default=64)
    serving.add_argument("--repeat", type=int, metavar="N", help="only so many clips, asked again and again")
    _add_placements(serving)
    _add_figure(serving)

    ray = _added(measurements, "ray-overhead", "ray_overhead", "Ray against one process, dedicated against colocated")
    ray.add_argument("--requests", type=int, metavar="N", help="one at a time (default: 40)")
    ray.add_argument("--turns", type=int, metavar="N", help="for throughput (default: 6)")
    ray.add_argument("--requests-per-turn", type=int, metavar="N", help="default: 32")
    ray.add_argument("--concurrency", type=int, metavar="N", default=16)
    ray.add_argument("--max-new-tokens", type=int, metavar="N", default=64)
    ray.add_argument("--only", choices=("overhead", "dedicated"), help="default: both")

    live = _added(measurements, "live", "live", "live frames against the same frames sent whole; an hour of frames")
    live.add_argument("--clips", type=int, metavar="N", help="default: 20")
    live.add_argument("--frames", type=int, metavar="N", default=32, help="of a clip")
    live.add_argument("--hour-frames", type=int, metavar="N", help="one a second of video (default: 3600)")
    live.add_argument("--period", type=float, metavar="SECONDS", default=60.0, help="between captions of the hour")
    live.add_argument("--only", choices=("latency", "hour"), help="default: both")
    live.add_argument("--placement", choices=PLACEMENTS, default="colocated")
    _add_figure(live)

    overload = _added(measurements, "overload", "overload", "far more than the server can do, and what becomes of it")
    overload.add_argument("--seconds", type=float, help="of overload, through each edge (default: 60)")
    overload.add_argument("--factor", type=float, default=4.0, help="of what is sustainable")
    overload.add_argument("--clips", type=int, metavar="N", help="asked again and again (default: 32)")
    overload.add_argument("--placement", choices=PLACEMENTS, default="colocated")
    _add_figure(overload)

    cancel = _added(measurements, "cancel", "cancel", "from a client that leaves to free rows of the KV cache")
    cancel.add_argument("--trials", type=int, metavar="N", help="through each edge (default: 20)")
    _add_placements(cancel)

    scaling = _added(measurements, "autoscaling", "autoscaling", "lanes and nodes that follow a load up and down")
    scaling.add_argument("--lanes", type=int, metavar="N", help="most lanes (default: 3)")
    scaling.add_argument("--idle", type=float, metavar="SECONDS", default=6.0, help="after which an empty node goes")
    scaling.add_argument("--patience", type=float, metavar="SECONDS", default=300.0, help="for each phase")
    _add_figure(scaling)

    apart = _added(
        measurements,
        "two-nodes",
        "two_nodes",
        "answers of a cluster of two nodes, TLS between them, part by part",
        "float32",
    )
    apart.add_argument("--clips", type=int, metavar="N", help="each asked greedily and sampled (default: 8)")
    apart.add_argument("--placements", nargs="+", choices=PLACEMENTS[1:], default=list(PLACEMENTS[1:]))


def _added(
    measurements: Any,
    name: str,
    module: str,  # of the folder reports
    text: str,
    dtype: str = "auto",
) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = measurements.add_parser(name, help=text, description=f"{text.capitalize()}.")
    add_model_options(parser, dtype=dtype)
    parser.set_defaults(measure=partial(_measure, module), figure=None)
    return parser


def _add_placements(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--placements", nargs="+", choices=PLACEMENTS, default=list(PLACEMENTS))


def _add_figure(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--figure", type=Path, metavar="FILE", help="PNG or SVG file for a picture of it")


def _measure(module: str, arguments: argparse.Namespace) -> Report:
    found: Report = import_module(f"flashsd_ray.bench.serving.reports.{module}").report(arguments)
    return found
