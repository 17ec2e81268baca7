"""A rank in a process of its own, beside the first: orders come by standard input, whose end is the end of the rank.

So a rank never outlives the process that started it, however that ends.
"""

from __future__ import annotations

import json
import os
import signal
import sys
from contextlib import suppress
from typing import BinaryIO

from flashsd_ray.config import from_mapping
from flashsd_ray.errors import FlashSDError


def main() -> None:
    """The process was a rank until its input ended."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # of the terminal: rank 0 decides when this ends
    answers = os.fdopen(os.dup(sys.stdout.fileno()), "wb")
    os.dup2(sys.stderr.fileno(), sys.stdout.fileno())  # what libraries print is no answer
    orders = sys.stdin.buffer
    task = json.loads(orders.readline() or b"null")
    if task is not None:
        serve(orders, answers, **task)


def serve(orders: BinaryIO, answers: BinaryIO, *, model: dict[str, object], rank: int, host: str) -> None:
    """Orders were carried out until they ended, or until one could not be."""
    from flashsd_ray.models.parallel.worker import RankWorker

    config = from_mapping({"model": model}).model
    try:
        worker = RankWorker(config, rank, host, sharing=config.tensor_parallel)
        for line in orders:
            answer = worker.handle(line)
            if answer is not None:
                answers.write(answer + b"\n")
                answers.flush()
    except FlashSDError as error:
        with suppress(OSError):  # whoever would read it may be gone
            answers.write(json.dumps({"error": str(error)}).encode() + b"\n")
            answers.flush()
    # Not through the interpreter's end, which may wait for threads of a group that is gone.
    sys.stderr.flush()
    os._exit(0)


if __name__ == "__main__":
    main()
