"""``flashsd train target``: the bundled targets, trained again from nothing."""

from __future__ import annotations

import argparse
from typing import Any

from flashsd_ray.training.target_options import add_options

HELP = "train a bundled model from nothing"
EXAMPLES = """\
examples:
  flashsd train target --world town --stage all --out runs/town            # about two and a half hours on two cores
  flashsd train target --world town --stage all --out runs/town --resume   # goes on after a kill
  flashsd train target --world demo --stage vision --minutes 12 --out runs/demo

exit codes: 0 trained, 130 interrupted (a checkpoint is written; go on with --resume)
"""


def add_target_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser(
        "target",
        help=HELP,
        description=HELP.capitalize() + ".",
        epilog=EXAMPLES,
    )
    add_options(parser)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """The stages are trained; returns the exit code."""
    from flashsd_ray.training.target.command import run as train

    return train(arguments)
