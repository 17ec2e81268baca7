"""The C library's allocator, of which operations of torch on a CPU take memory thousands of times a second."""

from __future__ import annotations

import ctypes
import sys

# Of glibc's mallopt, from malloc.h.
TRIM_THRESHOLD, TOP_PAD, MMAP_THRESHOLD = -1, -2, -3
KEPT_BYTES = 256 * 2**20  # free memory at the end of a heap that is not given back to the system
LARGEST_BYTES = 32 * 2**20  # the largest piece that glibc may be told to take from a heap
ADDED_BYTES = 16 * 2**20  # that a heap grows by at least


def keep_freed_memory() -> bool:
    """Memory that operations free stays with this process; returns whether the C library can be told so.

    By default glibc gives the end of a heap, and pieces above 128 KB at first, back to the system, and gets them again in the
    next operation, page by page: attention of 16 requests took 2.4 ms in place of 0.3 (docs/log.md).
    """
    if not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):  # another C library
        return False
    settings = {MMAP_THRESHOLD: LARGEST_BYTES, TRIM_THRESHOLD: KEPT_BYTES, TOP_PAD: ADDED_BYTES}
    accepted = [mallopt(ctypes.c_int(name), ctypes.c_int(value)) for name, value in settings.items()]
    return all(accepted)
