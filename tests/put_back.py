"""What commands set for their whole process must not outlive the test that runs them inside of its own."""

from __future__ import annotations

import gc
import os
import signal
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

import structlog

_BY_PYTEST = {"PYTEST_CURRENT_TEST"}  # which changes it within a test
_SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGUSR1, signal.SIGUSR2)


@contextmanager
def put_back() -> Iterator[None]:
    """Logs, variables, folder, signals, garbage collection and torch's threads are as before afterwards."""
    logs = structlog.get_config() if structlog.is_configured() else None
    told = structlog.contextvars.get_contextvars()
    variables, folder = dict(os.environ), Path.cwd()
    handlers = {number: signal.getsignal(number) for number in _SIGNALS}
    thresholds, frozen = gc.get_threshold(), gc.get_freeze_count()
    torch = sys.modules.get("torch")  # loading it takes seconds, which most tests can do without
    threads = torch.get_num_threads() if torch else 0
    try:
        yield
    finally:
        structlog.reset_defaults() if logs is None else structlog.configure(**logs)
        structlog.contextvars.clear_contextvars()
        structlog.contextvars.bind_contextvars(**told)
        _put_back_variables(variables)
        os.chdir(folder)
        for number, handler in handlers.items():
            if signal.getsignal(number) is not handler:
                signal.signal(number, handler)
        gc.set_threshold(*thresholds)
        if gc.get_freeze_count() > frozen:
            gc.unfreeze()
        if torch and torch.get_num_threads() != threads:
            torch.set_num_threads(threads)


def _put_back_variables(before: Mapping[str, str]) -> None:
    for name in os.environ.keys() - before.keys() - _BY_PYTEST:
        del os.environ[name]
    for name, value in before.items():
        if name not in _BY_PYTEST and os.environ.get(name) != value:
            os.environ[name] = value
