"""``flashsd doctor``: what is installed, which model and drafter would be used, and whether the promise holds here."""

from __future__ import annotations

import argparse
import json
from typing import TYPE_CHECKING, Any

from flashsd_ray.cli.settings import add_model_options, config_of

if TYPE_CHECKING:
    from rich.table import Table

    from flashsd_ray.cli.checks import Finding

HELP = "check the installation, the bundled models, the place to serve in, and that outputs are identical here"
STYLES = {"ok": "green", "note": "yellow", "FAIL": "bold red"}
HEALTHY, ILL = 0, 1


def add_parser(verbs: Any) -> None:
    """The verb is known."""
    parser = verbs.add_parser("doctor", help=HELP, description=HELP.capitalize() + ".")
    parser.add_argument("--json", action="store_true", help="one JSON object instead of a table")
    parser.add_argument("--config", metavar="FILE", help="YAML file of settings; options and --set win over it")
    parser.add_argument("--address", metavar="ADDRESS", default="", help="of a Ray cluster that is looked at too")
    add_model_options(parser)
    parser.set_defaults(run=run, batch_size=None)


def run(arguments: argparse.Namespace) -> int:
    """Everything was looked at and reported; returns 1 when something is broken.

    Raises:
        ConfigError: a setting is unknown or its value is not allowed.
    """
    from flashsd_ray.cli.checks import findings
    from flashsd_ray.cli.terminal import Activity, console

    config = config_of(arguments)
    activity = Activity()
    try:
        found = list(findings(config, activity.says, arguments.address))
    finally:
        activity.rests()
    is_healthy = all(finding.status != "FAIL" for finding in found)
    if arguments.json:
        print(json.dumps({"is_healthy": is_healthy, "checks": [finding.as_dict() for finding in found]}))
    else:
        console().print(table(found))
    return HEALTHY if is_healthy else ILL


def table(found: list[Finding]) -> Table:
    """The findings for people."""
    from rich.table import Table
    from rich.text import Text

    shown = Table(show_header=False, box=None, pad_edge=False)
    for finding in found:
        shown.add_row(Text(finding.status, style=STYLES[finding.status]), Text(finding.name), Text(finding.detail))
    return shown
