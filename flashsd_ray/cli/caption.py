"""``flashsd caption``: describe videos, images and directories of frames."""

from __future__ import annotations

import argparse
import sys
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from flashsd_ray.cli.parsing import UsageError, clock_time, positive_int, positive_number
from flashsd_ray.cli.settings import add_model_options, add_sampling_options, config_of, sampling_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from flashsd_ray.cli.destination import Destination
    from flashsd_ray.cli.formats import Writer
    from flashsd_ray.cli.tasks import Question
    from flashsd_ray.config import Config
    from flashsd_ray.engine.local import Engine

HELP = "describe videos, images and directories of frames"
EXAMPLES = """\
examples:
  flashsd caption clip.mp4
  flashsd caption clip.mp4 --prompt "How many dogs are there?" --frames 16
  flashsd caption *.mp4 --batch-size 8 --format json --output captions.jsonl
  flashsd caption talk.mp4 --segment 10 --format srt --output talk.srt
  flashsd caption clip.mp4 --compare

exit codes: 0 all captioned, 1 some inputs failed, 2 nothing could be done, 130 interrupted
"""
SUBTITLES = ("srt", "vtt")
REPEATS = 8  # so many that one run in which the machine was busy does not decide


def add_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser("caption", help=HELP, description=HELP.capitalize() + ".", epilog=EXAMPLES)
    parser.add_argument("paths", metavar="PATH", nargs="+", help="video, image, animation or directory of frames")
    parser.add_argument("--prompt", metavar="TEXT", help="what to ask (default: a detailed description)")
    parser.add_argument("--together", action="store_true", help="all PATHs in one prompt, not one caption each")
    _add_frame_options(parser)
    add_sampling_options(parser)
    add_model_options(parser)
    _add_output_options(parser)
    parser.set_defaults(run=run)


def _add_frame_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("frames")
    rate = group.add_mutually_exclusive_group()
    rate.add_argument("--frames", metavar="N", type=positive_int, help="frames taken from a video (default: 8)")
    rate.add_argument("--fps", metavar="RATE", type=positive_number, help="frames per second of video instead")
    group.add_argument("--start", metavar="TIME", type=clock_time, help="look from here on: seconds or [h:]mm:ss")
    group.add_argument("--end", metavar="TIME", type=clock_time, help="look up to here")
    group.add_argument(
        "--segment", metavar="SECONDS", type=positive_number, help="one caption for every so many seconds"
    )


def _add_output_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("output")
    formats = ("text", "json", *SUBTITLES)
    group.add_argument("--format", choices=formats, default="text", help="json: one object a line (default: text)")
    group.add_argument("--output", metavar="FILE", help="write here; a directory gets one file per PATH")
    group.add_argument("--show-drafts", action="store_true", help="colour what was drafted (on a terminal)")
    group.add_argument("--compare", action="store_true", help="then time plain and FLASH decoding of the same input")
    group.add_argument(
        "--repeats", metavar="N", type=positive_int, default=REPEATS, help=f"of --compare (default: {REPEATS})"
    )
    group.add_argument("--batch-size", metavar="N", type=positive_int, help="captions decoded together (default: 1)")


def run(arguments: argparse.Namespace) -> int:
    """Every input is captioned that can be; returns the exit code.

    Raises:
        UsageError: options exclude each other, or the output cannot be written.
        FlashSDError: the configuration, the model or the sampling parameters are wrong.
    """
    from flashsd_ray.cli.answering import answer
    from flashsd_ray.cli.destination import Destination
    from flashsd_ray.cli.formats import SUFFIXES
    from flashsd_ray.cli.loading import load_engine
    from flashsd_ray.cli.session import Session
    from flashsd_ray.cli.tasks import read_tasks
    from flashsd_ray.cli.terminal import Activity

    check(arguments)
    config = config_of(arguments)
    question = _question(arguments, config)
    destination = Destination(arguments.output, arguments.paths, SUFFIXES[arguments.format])
    activity = Activity()

    @cache
    def engine() -> Engine:
        activity.says(f"loading {config.model.name}")
        loaded = load_engine(config)
        activity.says("looking at the frames")
        return loaded

    reads = read_tasks(
        arguments.paths,
        question,
        together=arguments.together,
        segment_s=arguments.segment,
        needs_duration=arguments.format in SUBTITLES,
        says=activity.says,
    )
    has_labels = arguments.segment is not None or (len(arguments.paths) > 1 and not arguments.together)
    session = Session(
        writer=_writer(arguments, destination, engine, has_labels=has_labels and not destination.is_per_input),
        engine=engine,
        activity=activity,
        num_repeats=arguments.repeats if arguments.compare else 0,
        is_json=arguments.format == "json",
        has_labels=has_labels,
        has_footer=arguments.format == "text" and sys.stderr.isatty() and not has_labels,
    )
    try:
        return session.run(answer(reads, engine, arguments.batch_size or 1))
    finally:
        activity.rests()
        destination.close()


def check(arguments: argparse.Namespace) -> None:
    """Raises UsageError when options do not go together."""
    is_subtitles = arguments.format in SUBTITLES
    has_directory = arguments.output is not None and (arguments.output.endswith("/") or Path(arguments.output).is_dir())
    refusals = {
        f"--format {arguments.format} needs one video per caption, --together makes one of all": (
            is_subtitles and arguments.together
        ),
        "--segment and --together exclude each other": arguments.segment and arguments.together,
        "--end must lie after --start": arguments.end is not None and arguments.end <= (arguments.start or 0.0),
        "--compare needs speculation, --draft-length 0 turns it off": arguments.compare and arguments.draft_length == 0,
        f"--compare prints a table; use --format text or json, not {arguments.format}": arguments.compare
        and is_subtitles,
        "--compare times one caption at a time; leave --batch-size out": (
            arguments.compare and (arguments.batch_size or 1) > 1
        ),
        f"several PATHs need several {arguments.format} files: give --output a directory": (
            is_subtitles and len(arguments.paths) > 1 and not has_directory
        ),
    }
    for message, holds in refusals.items():
        if holds:
            raise UsageError(message)


def _question(arguments: argparse.Namespace, config: Config) -> Question:
    from flashsd_ray.cli.tasks import Question

    return Question(
        media=config.media,
        prompt=arguments.prompt,
        sampling=sampling_of(arguments),
        draft_length=arguments.draft_length,
        num_frames=arguments.frames,
        fps=arguments.fps,
        start_s=arguments.start,
        end_s=arguments.end,
    )


def _writer(
    arguments: argparse.Namespace, destination: Destination, engine: Callable[[], Engine], *, has_labels: bool
) -> Writer:
    from flashsd_ray.cli.formats import CueWriter, DraftWriter, JsonWriter, TextWriter
    from flashsd_ray.cli.loading import origin_of
    from flashsd_ray.cli.terminal import console

    if arguments.format == "json":
        return JsonWriter(destination, lambda: origin_of(engine()))
    if arguments.format in SUBTITLES:
        return CueWriter(destination, is_webvtt=arguments.format == "vtt")
    if arguments.show_drafts and destination.is_standard_output and console().is_terminal:
        return DraftWriter(engine, has_labels=has_labels)
    return TextWriter(destination, has_labels=has_labels)
