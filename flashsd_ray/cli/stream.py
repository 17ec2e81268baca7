"""``flashsd stream``: play a video to a server as a camera would, and read captions while it runs."""

from __future__ import annotations

import argparse
import os
import sys
from typing import TYPE_CHECKING, Any, TextIO

from flashsd_ray.cli.parsing import UsageError, positive_int, positive_number
from flashsd_ray.cli.settings import add_sampling_options, sampling_of

if TYPE_CHECKING:
    from flashsd_ray.cli.destination import Destination
    from flashsd_ray.cli.streaming_formats import Writer
    from flashsd_ray.cli.terminal import Activity
    from flashsd_ray.client import AnswerFinished, AsyncClient, AsyncSession, Model
    from flashsd_ray.client.requests import Mode

HELP = "play a video to a server and read captions while it runs"
EXAMPLES = """\
examples:
  flashsd stream clip.mp4 --prompt "What is happening?"
  flashsd stream match.mp4 --every 5 --fps 2 --server gpu-1:9000
  flashsd stream door.mp4 --every 2 --changes --format vtt --output door.vtt
  flashsd stream clip.mp4 --speed max --format json

exit codes: 0 all answered, 1 some frames or captions were refused, 2 it could not be done, 130 interrupted
"""
PROMPT = "Describe the video in detail."
API_KEY_VARIABLE = "FLASHSD_API_KEY"
CHANGES_PERIOD_S = 2.0
DEFAULT_FPS = 2.0
FORMATS = ("text", "json", "vtt")


def add_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser("stream", help=HELP, description=HELP.capitalize() + ".", epilog=EXAMPLES)
    parser.add_argument("path", metavar="PATH", help="video file")
    parser.add_argument(
        "--prompt", metavar="TEXT", default=PROMPT, help="what to ask (default: a detailed description)"
    )
    parser.add_argument(
        "--every",
        metavar="SECONDS",
        type=positive_number,
        help="one caption for so much video (default: one at the end)",
    )
    parser.add_argument(
        "--changes",
        action="store_true",
        help=f"only captions that differ from the one before (looked for --every {CHANGES_PERIOD_S:g} s by default)",
    )
    _add_frame_options(parser)
    _add_server_options(parser)
    add_sampling_options(parser)
    group = parser.add_argument_group("output")
    group.add_argument("--format", choices=FORMATS, default="text", help="json: one object a line (default: text)")
    group.add_argument("--output", metavar="FILE", help="write here instead of to standard output")
    parser.set_defaults(run=run)


def _add_frame_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("frames")
    group.add_argument(
        "--fps",
        metavar="RATE",
        type=_rate,
        default=DEFAULT_FPS,
        help=f"frames sent per second of video, or all (default: {DEFAULT_FPS:g}; a model's window holds so many)",
    )
    group.add_argument("--speed", metavar="FACTOR", type=_speed, default=1.0, help="of playing, or max (default: 1.0)")
    group.add_argument(
        "--jpeg", metavar="QUALITY", type=positive_int, help="send frames as JPEG, 1..100 (default: as pixels)"
    )


def _add_server_options(parser: argparse.ArgumentParser) -> None:
    group = parser.add_argument_group("server")
    group.add_argument("--server", metavar="HOST:PORT", default="localhost:9000", help="default: localhost:9000")
    group.add_argument("--api-key", metavar="KEY", help=f"default: the variable {API_KEY_VARIABLE}")
    group.add_argument("--tls", action="store_true", help="encrypt the connection")
    group.add_argument("--ca", metavar="FILE", help="PEM file that the server's certificate is checked against")
    group.add_argument("--cert", metavar="FILE", help="PEM file with a certificate of your own")
    group.add_argument("--key", metavar="FILE", help="PEM file with its private key")


def _rate(text: str) -> float | None:
    return None if text == "all" else positive_number(text)


def _speed(text: str) -> float | None:
    return None if text == "max" else positive_number(text)


def run(arguments: argparse.Namespace) -> int:
    """The video was played and everything that was answered is written; returns the exit code.

    Raises:
        UsageError: the output cannot be written, or the libraries of the client are not installed.
        FlashSDError: the video cannot be read, or the server cannot be reached or refuses.
        KeyboardInterrupt: it was interrupted; the session was ended.
    """
    from flashsd_ray.cli.destination import Destination
    from flashsd_ray.cli.terminal import Activity

    if not arguments.debug:
        os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # read when the library is imported
    try:
        from flashsd_ray.cli.streaming_session import run_until_interrupted
    except ModuleNotFoundError as error:
        raise UsageError(f"{error.name} is not installed; pip install 'flashsd_ray[client]'") from error

    destination = Destination(arguments.output, [arguments.path], f".{arguments.format}")
    activity = Activity()
    try:
        return run_until_interrupted(_play(arguments, destination, activity))
    finally:
        activity.rests()
        destination.close()


async def _play(arguments: argparse.Namespace, destination: Destination, activity: Activity) -> int:
    from flashsd_ray.cli.streaming_frames import Pace, begun, frames_of, in_a_thread
    from flashsd_ray.cli.streaming_session import Play
    from flashsd_ray.config import MediaConfig

    # The first frame is read at once, so that a wrong file is found before a server is looked for.
    frames = begun(frames_of(arguments.path, MediaConfig(), arguments.fps))
    async with _client(arguments) as client:
        activity.says(f"connecting to {arguments.server}")
        writer = _writer(arguments, destination, await client.model())
        try:
            async with _session(arguments, client) as session:
                play = Play(
                    session=session, writer=writer, activity=activity, asks_at_end=_mode(arguments) == "on_demand"
                )
                code = await play.run(in_a_thread(frames), Pace(arguments.speed))
        finally:
            activity.rests()
            writer.close()
    if play.answer is not None and play.asks_at_end and arguments.format == "text" and sys.stderr.isatty():
        _show_footer(play.answer)
    return code


def _client(arguments: argparse.Namespace) -> AsyncClient:
    from flashsd_ray.client import AsyncClient

    return AsyncClient(
        arguments.server,
        api_key=arguments.api_key or os.environ.get(API_KEY_VARIABLE, ""),
        tls=arguments.tls,
        ca=arguments.ca,
        certificate=arguments.cert,
        key=arguments.key,
        jpeg_quality=arguments.jpeg,
    )


def _session(arguments: argparse.Namespace, client: AsyncClient) -> AsyncSession:
    return client.watch(
        prompt=arguments.prompt,
        mode=_mode(arguments),
        period_s=arguments.every or (CHANGES_PERIOD_S if arguments.changes else 0.0),
        sampling=sampling_of(arguments),
        draft_length=arguments.draft_length,
    )


def _mode(arguments: argparse.Namespace) -> Mode:
    if arguments.changes:
        return "changes"
    return "periodic" if arguments.every else "on_demand"


def _writer(arguments: argparse.Namespace, destination: Destination, model: Model) -> Writer:
    from flashsd_ray.cli.streaming_formats import LiveCueWriter, LiveJsonWriter, LiveTextWriter

    def out() -> TextIO:
        return destination.stream(arguments.path)

    if arguments.format == "json":
        origin = {"drafter": model.drafter, "compressor": model.compressor, "dtype": model.dtype}
        return LiveJsonWriter(out, {"path": arguments.path, "model": model.name, **origin})
    if arguments.format == "vtt":
        return LiveCueWriter(out, may_grow=arguments.changes)
    is_terminal = destination.is_standard_output and sys.stdout.isatty()
    return LiveTextWriter(out, has_times=_mode(arguments) != "on_demand", is_terminal=is_terminal)


def _show_footer(answer: AnswerFinished) -> None:
    from flashsd_ray.cli.terminal import console

    statistics = answer.statistics
    tau = f", tau {statistics.tau:.2f}" if statistics.rounds else ""
    console(sys.stderr).print(
        f"first text after {answer.seconds_to_first_text:.2f} s, {statistics.num_new_tokens} tokens{tau}, "
        f"ended by {answer.finish_reason.value}",
        style="dim",
    )
