"""A process that ends, or that makes no sense, is started again for as long as it is wanted."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator

import pytest

from producers import kept_process
from producers.kept_process import KeptProcess, hear

WAITING = "import sys; print('hello', flush=True); sys.stdin.read()"


@pytest.fixture(autouse=True)
def _hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_process, "_FIRST_PAUSE", 0.001)
    monkeypatch.setattr(kept_process, "_LONGEST_PAUSE", 0.002)


def run(code: str) -> subprocess.Popen[str]:
    return subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)


def ignore(_line: str) -> None:
    """Nobody listens."""


def fails_to_start() -> int:
    raise OSError(11, "no more processes")


def makes_no_sense() -> int:
    raise ValueError("what?")


@pytest.mark.parametrize(
    ("first", "trouble"),
    [
        (lambda: hear(run("raise SystemExit(3)"), ignore), "the thing ended with 3; it is started again"),
        (fails_to_start, "the thing does not start: [Errno 11] no more processes"),
        (makes_no_sense, "the thing is not understood: ValueError('what?'); it is started again"),
        (
            lambda: hear(run("import sys; sys.stdout.buffer.write(b'\\xff')"), ignore),
            "the thing is not understood: Unic",
        ),
    ],
    ids=["ends", "does not start", "is not understood", "says what is no text"],
)
def test_whatever_a_life_ends_with_another_one_follows_and_it_is_told(
    first: Callable[[], int], trouble: str
) -> None:
    lives: Iterator[Callable[[], int]] = iter([first, first])
    told: list[str | None] = []
    processes: list[subprocess.Popen[str]] = []
    heard = threading.Event()

    def live() -> int:
        told.append(kept.trouble)
        if (short := next(lives, None)) is not None:
            return short()
        processes.append(run(WAITING))
        return hear(processes[-1], lambda _line: heard.set())

    kept = KeptProcess("thing", live)
    kept.start()
    assert heard.wait(60)

    def hang_up() -> subprocess.Popen[str]:
        stdin = processes[0].stdin
        assert stdin is not None
        stdin.close()
        return processes[0]

    kept.stop(hang_up)
    assert told[0] is None
    assert [text[: len(trouble)] for text in told[1:] if text] == [trouble, trouble]
    assert (len(processes), processes[0].returncode) == (1, 0)


def test_one_that_does_not_end_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_process, "_END_PATIENCE", 0.1)
    process = run("import time; print('deaf', flush=True); time.sleep(600)")
    heard = threading.Event()
    kept = KeptProcess("thing", lambda: hear(process, lambda _line: heard.set()))
    kept.start()
    assert heard.wait(60)
    kept.stop(lambda: process)
    assert process.wait(60) == -9


@pytest.mark.parametrize(("code", "told"), [(0, None), (3, "the thing ended with 3")])
def test_one_that_ends_as_it_was_asked_to_is_no_trouble(code: int, told: str | None) -> None:
    process = run(f"import sys; print('here', flush=True); sys.stdin.read(); raise SystemExit({code})")
    heard = threading.Event()

    def hang_up() -> subprocess.Popen[str]:
        assert process.stdin is not None
        process.stdin.close()
        return process

    kept = KeptProcess("thing", lambda: hear(process, lambda _line: heard.set()))
    kept.start()
    assert heard.wait(60)
    kept.stop(hang_up)
    assert kept.trouble == told


def test_stopping_while_there_is_none_starts_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kept_process, "_LONGEST_PAUSE", 600.0)
    monkeypatch.setattr(kept_process, "_FIRST_PAUSE", 600.0)
    kept = KeptProcess("thing", lambda: 1)
    kept.start()
    until = time.monotonic() + 60
    while kept.trouble is None:
        assert time.monotonic() < until
        time.sleep(0.001)
    kept.stop(lambda: None)
    assert kept.stopping
