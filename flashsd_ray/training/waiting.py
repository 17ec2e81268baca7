"""Settings that are read once, when torch loads."""

from __future__ import annotations

import os


def let_waiting_threads_sleep() -> None:
    """Threads that wait for others sleep instead of spinning, unless the environment says otherwise.

    Spinning makes training two to four times slower on a machine that does anything else. Too late once torch is loaded.
    """
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
