"""Python's cyclic garbage collector, for processes that hold many records at once and make no cycles of them."""

from __future__ import annotations

import gc

YOUNG = 100_000
"""Objects between collections. A batch is 20,000 records and more; at the default 700 each is walked many times,
which doubles the cost of consuming it."""


def settle_heap() -> None:
    """Leave out of collections what was loaded at start, and collect less often. Call once all is imported."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, 20, 20)
