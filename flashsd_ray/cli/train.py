"""``flashsd train drafter``: a drafter for any target, from questions alone."""

from __future__ import annotations

import argparse
import shlex
from contextlib import closing
from typing import TYPE_CHECKING, Any

from flashsd_ray.cli.parsing import Parser, UsageError
from flashsd_ray.cli.train_options import add_options, job_of, workers_of
from flashsd_ray.cli.train_target import add_target_parser
from flashsd_ray.errors import ConfigError

if TYPE_CHECKING:
    from flashsd_ray.cli.train_progress import Progress
    from flashsd_ray.training.drafter.job import Job

HELP = "train a drafter for a model of yours, or a bundled model"
DRAFTER_HELP = "train a drafter on the target's own answers to any prompts, videos and images"
EXAMPLES = """\
examples:
  flashsd train drafter --data town:5000 --minutes 10 --out runs/block
  flashsd train drafter --target Qwen/Qwen2.5-VL-7B-Instruct --data questions.jsonl --steps 20000 --out runs/qwen
  flashsd train drafter --target ./my-model --data clips/ --prompt "What happens?" --minutes 60 --out runs/mine
  flashsd train drafter --data questions.jsonl --workers 4 --worker-gpus 1 --out /shared/runs/mine --resume

A line of a data file is an object with "prompt" or "prompts", and if you like "path" or "paths" (relative to the file),
"start" and "end" in seconds, and "answer". docs/train-your-drafter.md goes through all of it.

exit codes: 0 trained, 2 it could not be done, 130 interrupted (go on with --resume)
"""


class WholeParser(Parser):
    """Judges all words itself, so that the nearest option to an unknown one is one of its own."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """Raises UsageError for an unknown word."""
        known, unknown = super().parse_known_args(args, namespace)
        if unknown:
            self.error(f"unrecognized arguments: {' '.join(unknown)}")
        return known, unknown


def add_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser("train", help=HELP, description=HELP.capitalize() + ".")
    what = parser.add_subparsers(metavar="WHAT", parser_class=WholeParser, required=True)
    drafter = what.add_parser(
        "drafter", help=DRAFTER_HELP, description=DRAFTER_HELP.capitalize() + ".", epilog=EXAMPLES
    )
    add_target_parser(what)
    add_options(drafter)
    drafter.add_argument("--debug", action="store_true", default=argparse.SUPPRESS, help=argparse.SUPPRESS)
    drafter.set_defaults(run=run, parser=drafter)


def run(arguments: argparse.Namespace) -> int:
    """The drafter is trained; returns the exit code.

    Raises:
        UsageError: options exclude each other.
        FlashSDError: the data, the target or a setting is wrong, or something is in the way.
    """
    from flashsd_ray.cli.loading import check_model_name
    from flashsd_ray.cli.train_progress import Progress
    from flashsd_ray.models.pretrained import BUNDLED_TARGETS
    from flashsd_ray.training.drafter.job import make_room

    _check(arguments)
    check_model_name(arguments.target, list(BUNDLED_TARGETS))
    job = job_of(arguments, spelled(arguments))
    if not make_room(job, resumes=arguments.resume, overwrites=arguments.overwrite):
        print(f"{job.out} holds a finished drafter already")
        return 0
    with Progress() as progress:
        _train(arguments, job, progress)
    print(progress.summary(job))
    return 0


def _check(arguments: argparse.Namespace) -> None:
    refusals = {
        "--resume and --overwrite exclude each other": arguments.resume and arguments.overwrite,
        "--address names a Ray cluster; say with --workers how many of its workers to use": (
            arguments.address and not arguments.workers
        ),
        "--heldout-data says itself how much is held out; leave --heldout out": (
            arguments.heldout_data is not None and arguments.heldout is not None
        ),
    }
    for message, holds in refusals.items():
        if holds:
            raise UsageError(message)


def _train(arguments: argparse.Namespace, job: Job, progress: Progress) -> None:
    from flashsd_ray.training.drafter.events import JOURNAL_FILE, Journal, to_all
    from flashsd_ray.training.drafter.run import data_of, train

    data = data_of(job)  # before anything is loaded: a mistake in a line should not cost minutes
    progress.has_found(len(data.train), len(data.heldout))
    with closing(Journal(job.out / JOURNAL_FILE, goes_on=arguments.resume or job.only_answers)) as journal:
        if arguments.workers:
            _train_on_workers(arguments, job, progress)
        else:
            train(job, data, to_all([journal, progress]))


def _train_on_workers(arguments: argparse.Namespace, job: Job, progress: Progress) -> None:
    try:
        from flashsd_ray.training.drafter.workers import train_on_workers
    except ImportError as error:
        if (getattr(error, "name", None) or "").startswith("flashsd_ray"):
            raise
        raise ConfigError("--workers needs Ray Train: pip install 'ray[train]'") from error
    train_on_workers(job, workers_of(arguments), progress)


def spelled(arguments: argparse.Namespace) -> str:
    """The command that would do the same, without what is the default anyway."""
    words = ["flashsd", "train", "drafter"]
    for action in arguments.parser._actions:
        value = getattr(arguments, action.dest, None)
        if value is None or value == action.default or action.dest in ("resume", "overwrite", "debug"):
            continue
        name = action.option_strings[0]
        if isinstance(value, bool):
            words.append(action.option_strings[0 if value else -1])
            continue
        for one in value if isinstance(value, list) else [value]:
            words += [name, ",".join(map(str, one)) if isinstance(one, tuple) else str(one)]
    return shlex.join(words)
