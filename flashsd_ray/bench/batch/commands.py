"""The measurements of offline captioning and their options; what measures is imported when it is needed."""

from __future__ import annotations

import argparse
from importlib import import_module
from pathlib import Path
from typing import Any

from flashsd_ray.bench.report import Report


def add_measurements(measurements: Any) -> None:
    """The subparsers know these measurements."""
    batch = _added(measurements, "batch", "throughput", "captioning a corpus against Ray Data with plain generate")
    batch.add_argument("--clips", type=int, metavar="N", default=192)
    batch.add_argument("--prompts", type=int, choices=(1, 2, 3, 4), default=1, help="asked about every clip")
    batch.add_argument("--repeats", type=int, metavar="N", default=2, help="of both, in turn")
    batch.add_argument("--max-new-tokens", type=int, metavar="N", default=96)
    batch.add_argument("--lanes", type=int, metavar="N", default=2, help="of ours, and actors of the plain pipeline")
    batch.add_argument(
        "--tuning-clips", type=int, metavar="N", default=128, help="to find the plain pipeline's settings"
    )
    batch.add_argument("--set", action="append", metavar="NAME=VALUE", default=[], help="a setting of ours")
    batch.add_argument("--pixels", type=int, metavar="N", default=192, help="width and height of the clips")
    batch.add_argument("--model", default="demo")
    batch.add_argument("--dtype", choices=("auto", "float32", "bfloat16"), default="auto")
    batch.add_argument("--directory", metavar="DIR", help="keep the clips here")

    kills = _added(measurements, "batch-kills", "kills", "a run under SIGKILL against one that nobody disturbs")
    kills.add_argument("--clips", type=int, metavar="N", default=200)
    kills.add_argument("--kills", type=int, metavar="N", default=10, help="of driver, lane and reader in turn")
    kills.add_argument("--seed", type=int, metavar="N", default=0)
    kills.add_argument("--max-new-tokens", type=int, metavar="N", default=48)
    kills.add_argument("--directory", metavar="DIR", help="keep clips and outputs here")

    drivers = _added(measurements, "batch-drivers", "sharing", "two drivers on one ledger, one of which is killed")
    drivers.add_argument("--clips", type=int, metavar="N", default=200)
    drivers.add_argument("--kill-after", type=int, metavar="N", default=3, help="units that each has finished by then")
    drivers.add_argument("--max-new-tokens", type=int, metavar="N", default=48)
    drivers.add_argument("--directory", metavar="DIR", help="keep clips and outputs here")

    corpus = _added(
        measurements, "batch-corpus", "corpus_run", "many clips, codecs and damaged files; memory over time"
    )
    corpus.add_argument("--clips", type=int, metavar="N", default=2000)
    corpus.add_argument("--damaged", type=int, metavar="N", default=50)
    corpus.add_argument("--max-new-tokens", type=int, metavar="N", default=64)
    corpus.add_argument("--directory", metavar="DIR", help="keep clips and captions here")

    planning = _added(measurements, "batch-planning", "planning", "a manifest of very many rows: memory, time to start")
    planning.add_argument("--rows", type=int, metavar="N", default=1_000_000)
    planning.add_argument("--seconds", type=float, default=60.0, help="to watch, and until the first unit at least")


def _added(measurements: Any, name: str, module: str, what: str) -> argparse.ArgumentParser:
    parser: argparse.ArgumentParser = measurements.add_parser(name, help=what, description=what.capitalize() + ".")
    parser.add_argument("--output", type=Path, metavar="FILE", help="save what was measured, as JSON")

    def measure(arguments: argparse.Namespace) -> Report:
        report: Report = import_module(f"flashsd_ray.bench.batch.{module}").measure(arguments)
        return report

    parser.set_defaults(measure=measure)
    return parser
