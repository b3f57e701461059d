"""Memory of processes that hold a batch of many records at once, and then the next: it is kept between batches."""

from __future__ import annotations

import ctypes
import gc
import os
from contextlib import suppress

YOUNG = 100_000
"""Objects between collections. A batch is 20,000 records and more; at the default 700 each is walked many times,
which doubles the cost of consuming it."""

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # of mallopt(3)
_LARGEST = 256 * 2**20
"""Bytes that glibc takes from its heap, and keeps there, instead of asking the system for them each time."""


def keep_memory() -> None:
    """Keep memory that was freed, up to the most that was ever needed. Call before polars is loaded.

    By default the allocators give a batch's memory back, and the system clears and maps each page of it anew for
    the next: as much time as decoding takes.
    """
    os.environ.setdefault("_RJEM_MALLOC_CONF", "dirty_decay_ms:-1,muzzy_decay_ms:-1")  # polars: its own jemalloc
    with suppress(OSError, AttributeError):  # numpy and Python: glibc's heap; another C library decides for itself
        mallopt = ctypes.CDLL(None).mallopt
        mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        mallopt(_M_TRIM_THRESHOLD, _LARGEST)


def settle_heap() -> None:
    """Leave out of collections what was loaded at start, and collect less often. Call once all is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
