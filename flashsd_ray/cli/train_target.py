"""``flashsd train target``: the bundled model, trained again from nothing."""

from __future__ import annotations

import argparse
from typing import Any

from flashsd_ray.training.target_options import add_options

HELP = "train the bundled model from nothing"
EXAMPLES = """\
examples:
  flashsd train target --out runs/town                    # all stages, about two hours on one core
  flashsd train target --out runs/town --resume           # goes on after a kill
  flashsd train target --stage vision --out runs/town     # one stage

exit codes: 0 trained, 2 it could not be done, 130 interrupted (a checkpoint is written; go on with --resume)
"""


def add_target_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser("target", help=HELP, description=HELP.capitalize() + ".", epilog=EXAMPLES)
    add_options(parser)
    parser.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    parser.set_defaults(run=run, parser=parser)


def run(arguments: argparse.Namespace) -> int:
    """The stages are trained; returns the exit code.

    Raises:
        ConfigError: an earlier stage is missing, or something is in the way.
    """
    from flashsd_ray.cli.target_progress import TargetProgress
    from flashsd_ray.training.target.command import INTERRUPTED, train_stages

    with TargetProgress() as progress:
        code = train_stages(arguments, progress)
    if code == INTERRUPTED:
        progress.says_how_to_go_on()
    elif arguments.stage in ("captions", "all"):
        print(f"trained; try  flashsd caption clip.mp4 --model {arguments.out / 'target'} --drafter none")
    return code
