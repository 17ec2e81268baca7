"""Options of every measurement of the served model."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_model_options(parser: argparse.ArgumentParser, *, dtype: str = "auto", threads: int = 0) -> None:
    """The parser knows which model is measured and with which settings, and where the result goes."""
    parser.add_argument("--model", default="demo", help="hub id, directory or 'demo'")
    parser.add_argument("--dtype", default=dtype, choices=("auto", "float32", "bfloat16"), help=f"default: {dtype}")
    parser.add_argument(
        "--threads", type=int, default=threads, help=f"of one operation; 0: as the engine decides (default: {threads})"
    )
    parser.add_argument("--set", dest="assignments", metavar="SECTION.NAME=VALUE", action="append", default=[])
    parser.add_argument("--quick", action="store_true", help="as little as shows that it works")
    parser.add_argument("--output", type=Path, metavar="FILE", help="JSON file for the result")
