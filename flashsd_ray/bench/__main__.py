"""Measure: ``python -m flashsd_ray.bench MEASUREMENT``, which is the same as ``flashsd bench MEASUREMENT``.

Results go to the terminal as a Markdown table and, with --output, to a JSON file with the machine beside them.
"""

from __future__ import annotations

import argparse
import sys

from flashsd_ray.bench.commands import add_measurements, run
from flashsd_ray.errors import FlashSDError

UNUSABLE, INTERRUPTED = 2, 130


def main() -> int:
    """The measurement named on the command line is printed and saved; returns the exit code."""
    parser = argparse.ArgumentParser(prog="python -m flashsd_ray.bench", description=__doc__)
    add_measurements(parser.add_subparsers(metavar="MEASUREMENT", required=True))
    try:
        return run(parser.parse_args())
    except FlashSDError as error:
        print(f"flashsd: error: {error}", file=sys.stderr)
        return UNUSABLE
    except KeyboardInterrupt:
        return INTERRUPTED


if __name__ == "__main__":
    sys.exit(main())
