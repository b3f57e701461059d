"""The bound of an answer that the engine writes into a file."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from infra.local.clickhouse.errors import TOO_MANY_ROWS_OR_BYTES, QueryError

_BETWEEN_LOOKS_SECONDS = 0.1


@contextmanager
def bounded(path: Path, most: int | None, cancel: Callable[[], None]) -> Iterator[None]:
    """Call `cancel`, in another thread, once the file is longer than `most` bytes; None: it may be of any length.

    The engine's own bound on results counts a constant once, however many rows repeat it.

    Raises:
        QueryError: what ran within the block failed, because of that.
    """
    if most is None:
        yield
        return
    done, beyond = threading.Event(), threading.Event()

    def watch() -> None:
        while not done.wait(_BETWEEN_LOOKS_SECONDS):
            if path.exists() and path.stat().st_size > most:
                beyond.set()
                cancel()
                return

    watcher = threading.Thread(target=watch, name="answer", daemon=True)
    watcher.start()
    try:
        yield
    except Exception as error:
        if not beyond.is_set():
            raise
        message = f"The answer is longer than {most} bytes; ask for less, or for it in parts"
        raise QueryError(TOO_MANY_ROWS_OR_BYTES, message, "TOO_MANY_ROWS_OR_BYTES") from error
    finally:
        done.set()
        watcher.join()
