"""``flashsd demo``: caption a bundled video with the bundled model, and show what speculation brings."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from flashsd_ray.cli import caption
from flashsd_ray.cli.parsing import Parser, UsageError, positive_int
from flashsd_ray.config import Config, with_overrides
from flashsd_ray.errors import CheckpointError

HELP = "caption a bundled video and compare FLASH with plain decoding"
CLIPS = Path(__file__).parents[1] / "assets" / "demo" / "clips"


def add_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser("demo", help=HELP, description=HELP.capitalize() + ".")
    parser.add_argument("--clip", metavar="NAME", help="one of --list (default: the first)")
    parser.add_argument("--list", action="store_true", help="show the bundled clips and stop")
    parser.add_argument("--repeats", metavar="N", type=positive_int, help="timed answers each way")
    parser.add_argument("--serve", action="store_true", help="start the server, ask it over HTTP and gRPC, stop it")
    parser.add_argument(
        "--placement", choices=("local", "colocated", "dedicated"), default="colocated", help="with --serve"
    )
    parser.set_defaults(run=run)


def run(arguments: argparse.Namespace) -> int:
    """The clip is captioned and compared; returns the exit code of ``flashsd caption``.

    Raises:
        UsageError: no clip has this name.
        CheckpointError: no clip is bundled.
    """
    names = clip_names()
    if arguments.list:
        print("\n".join(names))
        return 0
    path = CLIPS / choose(arguments.clip, names)
    if arguments.serve:
        from flashsd_ray.cli.demo_serve import serve_and_ask

        return serve_and_ask(
            path, with_overrides(Config(), [f"placement.kind={arguments.placement}", "telemetry.log_level=warning"])
        )
    options = ["--show-drafts", "--compare"]
    if arguments.repeats:
        options += ["--repeats", str(arguments.repeats)]
    print(f"$ flashsd caption {shown(path)} {' '.join(options)}", flush=True)
    parser = Parser(prog="flashsd demo")
    caption.add_parser(parser.add_subparsers())
    return caption.run(parser.parse_args(["caption", str(path), *options]))


def clip_names() -> list[str]:
    """File names of the bundled clips.

    Raises:
        CheckpointError: there is none.
    """
    names = sorted(path.name for path in CLIPS.glob("*.mp4"))
    if not names:
        raise CheckpointError("no clip is bundled: the installation is incomplete")
    return names


def choose(wanted: str | None, names: list[str]) -> str:
    """The clip whose name is, or begins with, the wanted one.

    Raises:
        UsageError: none or several are.
    """
    if wanted is None:
        return names[0]
    found = [name for name in names if name == wanted] or [name for name in names if name.startswith(wanted)]
    if len(found) != 1:
        raise UsageError(f"{len(found) or 'no'} clips are called {wanted!r}; known: {', '.join(names)}")
    return found[0]


def shown(path: Path) -> Path:
    """The path as one would type it here."""
    here = Path.cwd()
    return path.relative_to(here) if path.is_relative_to(here) else path
