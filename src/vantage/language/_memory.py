"""Freed memory is kept for the next tensor of its size."""

import ctypes
import sys

_MMAP_THRESHOLD, _TRIM_THRESHOLD = -3, -1
"""M_MMAP_THRESHOLD and M_TRIM_THRESHOLD of glibc's malloc.h."""


def keep_freed_memory() -> bool:
    """Let the C library keep what it was given back; returns whether it was told.

    Each pass over a model allocates and frees the same megabytes; given back to the system each time, every page has
    to be asked for again, and small models spend a quarter of their time on that. Linux with glibc only.
    """
    if not sys.platform.startswith("linux"):
        return False
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    return mallopt is not None and bool(mallopt(_MMAP_THRESHOLD, 1 << 30) and mallopt(_TRIM_THRESHOLD, (1 << 31) - 1))
