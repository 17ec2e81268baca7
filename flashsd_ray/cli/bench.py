"""``flashsd bench``: measure decoding and serving on this machine."""

from __future__ import annotations

import argparse
from typing import Any

from flashsd_ray.cli.parsing import Parser, UsageError

HELP = "measure decoding and serving; every speed is a ratio of two things timed in turn"
EXAMPLES = """\
examples:
  flashsd bench decode --drafters auto lookup --minutes 5
  flashsd bench ablation --rows A4 B3 B4-hide --steps 500
  flashsd bench serving --placements local colocated
  flashsd bench serving-equality --output build/bench/serving-equality.json
  flashsd bench overload --seconds 60
  flashsd bench live --quick

exit codes: 0 measured, 1 measured and found something wrong, 2 it could not be done, 130 interrupted
"""


def add_parser(verbs: Any) -> None:
    """The verb is known."""
    from flashsd_ray.bench.commands import add_measurements

    parser = verbs.add_parser("bench", help=HELP, description=HELP.capitalize() + ".", epilog=EXAMPLES)
    add_measurements(parser.add_subparsers(metavar="MEASUREMENT", parser_class=Parser, required=True))
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The measurement is printed and saved; returns the exit code.

    Raises:
        UsageError: a library that it needs is not installed.
        FlashSDError: it cannot be made.
    """
    from flashsd_ray.bench.commands import run as measure

    try:
        return measure(arguments)
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("flashsd_ray"):
            raise
        raise UsageError(f"{error.name} is not installed; pip install 'flashsd_ray[serve,dev]'") from error
