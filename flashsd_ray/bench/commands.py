"""Every measurement by its name, for ``python -m flashsd_ray.bench`` and for ``flashsd bench``."""

from __future__ import annotations

import argparse
import json
import sys
from typing import Any

from flashsd_ray.bench import decoding_commands
from flashsd_ray.bench.batch import commands as batch_commands
from flashsd_ray.bench.chaos import commands as chaos_commands
from flashsd_ray.bench.report import Report
from flashsd_ray.bench.scaling import commands as scaling_commands
from flashsd_ray.bench.serving import commands as serving_commands
from flashsd_ray.bench.tensor_parallel import commands as tensor_parallel_commands

SOUND, UNSOUND = 0, 1


def add_measurements(measurements: Any) -> None:
    """The subparsers know every measurement."""
    decoding_commands.add_measurements(measurements)
    serving_commands.add_measurements(measurements)
    batch_commands.add_measurements(measurements)
    chaos_commands.add_measurements(measurements)
    scaling_commands.add_measurements(measurements)
    tensor_parallel_commands.add_measurements(measurements)


def run(arguments: argparse.Namespace) -> int:
    """The measurement was made, printed, and saved where that was asked for; 1 when it found something wrong.

    Raises:
        FlashSDError: it cannot be made.
    """
    report: Report = arguments.measure(arguments)
    if arguments.output:
        from flashsd_ray.bench.machine import provenance

        command = " ".join(["flashsd", "bench", *_words()])
        saved = {
            "machine": provenance() | {"command": command},
            "is_sound": report.is_sound,
            "rows": [*report.rows],
            **report.details,
        }
        arguments.output.parent.mkdir(parents=True, exist_ok=True)
        arguments.output.write_text(json.dumps(saved, indent=1) + "\n")
    return SOUND if report.is_sound else UNSOUND


def _words() -> list[str]:
    """The command line from the measurement's name on."""
    words = sys.argv[1:]
    return words[1:] if words[:1] == ["bench"] else words
