"""The entry point: finds the verb, and turns every way it can end into one line and an exit code."""

from __future__ import annotations

import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress

from flashsd_ray import __version__
from flashsd_ray.cli import batch, bench, caption, demo, doctor, serve, stream, train
from flashsd_ray.cli.parsing import Parser, UsageError
from flashsd_ray.cli.terminal import report_error
from flashsd_ray.errors import FlashSDError

DESCRIPTION = """\
Lossless speculative decoding of large multimodal models: a drafter that sees compressed frames proposes tokens, the
model checks several of them at once, and the answer is the one it would have given alone."""
USAGE, INTERNAL, INTERRUPTED, BROKEN_PIPE = 2, 70, 130, 141


def main(argv: Sequence[str] | None = None) -> int:
    """The verb has run; returns the exit code."""
    words = sys.argv[1:] if argv is None else list(argv)
    is_debugging = "--debug" in words
    for output in (sys.stdout, sys.stderr):
        with suppress(AttributeError, ValueError):  # a stream of a test, or one that is detached
            output.reconfigure(errors="backslashreplace")  # type: ignore[union-attr]
    interrupts: list[int] = []
    try:
        with _remembering(interrupts):
            code = _run(words)
        return INTERRUPTED if interrupts else code
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        # Whoever read our output has seen enough; Python would complain about the rest when it flushes at exit.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return BROKEN_PIPE
    except (UsageError, FlashSDError) as error:
        if is_debugging:
            raise
        report_error(str(error))
        return USAGE
    except Exception as error:  # the last line of defence: a user gets a sentence, not a traceback
        if is_debugging:
            raise
        report_error(f"unexpected {type(error).__name__}: {error} (add --debug for details, and please report it)")
        return INTERNAL


@contextmanager
def _remembering(interrupts: list[int]) -> Iterator[None]:
    """An interrupt counts even where it fell into a library's callback, which swallows whatever is raised there."""

    def interrupt(number: int, _frame: object) -> None:
        interrupts.append(number)
        raise KeyboardInterrupt

    if signal.getsignal(signal.SIGINT) is not signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def build_parser() -> Parser:
    """The parser of the whole command line."""
    parser = Parser(prog="flashsd", description=DESCRIPTION)
    parser.add_argument("--version", action="version", version=f"flashsd {__version__}")
    verbs = parser.add_subparsers(metavar="VERB", dest="VERB", parser_class=Parser, required=True)
    for verb in (caption, batch, serve, stream, train, bench, doctor, demo):
        verb.add_parser(verbs)
    for named in verbs.choices.values():
        named.add_argument("--debug", action="store_true", help="show the traceback of an error")
    return parser


def _run(words: list[str]) -> int:
    from flashsd_ray.cli.loading import quiet_libraries

    parser = build_parser()
    if not words:
        parser.print_help()
        return USAGE
    arguments = parser.parse_args(words)
    if not arguments.debug:
        quiet_libraries()
    code: int = arguments.run(arguments)
    sys.stdout.flush()
    return code


if __name__ == "__main__":
    sys.exit(main())
