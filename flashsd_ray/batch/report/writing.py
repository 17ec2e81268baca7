"""``report.json`` and ``report.html``, made from what is in the output."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Mapping
from datetime import datetime, timezone
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from flashsd_ray.batch.outputs import Writer
from flashsd_ray.batch.report.example_frames import example_frames
from flashsd_ray.batch.report.figures import Figures
from flashsd_ray.batch.report.page import page
from flashsd_ray.batch.rows import SCHEMA_VERSION, Outcome
from flashsd_ray.batch.storage import Location
from flashsd_ray.errors import FlashSDError

PACKAGES = ("flashsd_ray", "ray", "torch", "transformers", "av", "pyarrow", "scenedetect-headless")


def write_report(
    writer: Writer,
    *,
    source: str,  # what was captioned, for people
    run: Mapping[str, Any],  # what the last run came to: ``Summary.as_dict()``
    settings: Mapping[str, Any],
) -> Location:
    """Both files stand in the output directory; returns where the page is.

    Raises:
        StorageError: the output cannot be read, or the report not be written.
    """
    figures = collect(writer)
    report = {
        "schema_version": SCHEMA_VERSION,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "input": source,
        "output": writer.directory,
        "settings": dict(settings),
        "versions": versions(),
        "videos_per_hour": run.get("rows_per_hour", 0.0),  # of the last run
        "run": dict(run),
        "corpus": figures.as_dict(),
    }
    directory = Location.at(writer.directory)
    directory.child("report.json").write((json.dumps(report, indent=1) + "\n").encode())
    shown = [_shown(outcome, writer) for outcome in figures.examples]
    place = directory.child("report.html")
    place.write(page(report, figures, shown).encode("utf-8", "backslashreplace"))
    return place


def collect(writer: Writer) -> Figures:
    """The figures of all that is in the output."""
    figures = Figures()
    for unit_id in sorted(writer.finished()):
        written_s = writer.written_s(unit_id)
        for outcome in writer.read(unit_id):
            figures.add(outcome, written_s)
    return figures


def versions() -> dict[str, str | int | None]:
    """Packages and machine that the report was made with."""
    found: dict[str, str | int | None] = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            found[name] = None
    return found | {"python": platform.python_version(), "machine": platform.machine(), "cores": os.cpu_count()}


def _shown(outcome: Outcome, writer: Writer) -> tuple[Outcome, list[str], str]:
    try:
        return outcome, example_frames(outcome, writer.media), ""
    except FlashSDError as error:
        return outcome, [], str(error)
