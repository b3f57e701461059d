"""Nothing that a command sets for its whole process reaches the next test."""

from __future__ import annotations

import gc
import os
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import torch
from structlog.testing import capture_logs

from infra.heap import settle_heap
from infra.lifecycle import stop_on_signals
from infra.telemetry import configure_logging
from tests.put_back import put_back


def logs() -> None:
    configure_logging("materialize", "CRITICAL")


def variables() -> None:
    os.environ["SOP_S3__BUCKET"] = "left behind"
    os.environ["PATH"] = "nowhere"
    del os.environ["SOP_TEST_PUT_BACK"]


def folder() -> None:
    os.chdir("/")


def signals() -> None:
    stop_on_signals()


def heap() -> None:
    settle_heap()


def threads() -> None:
    torch.set_num_threads(torch.get_num_threads() + 1)


def state() -> tuple[object, ...]:
    return (
        structlog.is_configured(),
        structlog.contextvars.get_contextvars(),
        dict(os.environ),
        Path.cwd(),
        signal.getsignal(signal.SIGTERM),
        signal.getsignal(signal.SIGINT),
        gc.get_threshold(),
        gc.get_freeze_count(),
        torch.get_num_threads(),
    )


@pytest.mark.parametrize("spoil", [logs, variables, folder, signals, heap, threads])
def test_what_a_process_sets_for_all_of_itself_is_put_back(
    spoil: Callable[[], None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SOP_TEST_PUT_BACK", "here")
    before = state()
    with put_back():
        spoil()
        assert state() != before
    assert state() == before


def test_a_log_s_level_and_place_of_one_test_hide_no_line_from_the_next(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with put_back():
        configure_logging("bench", "CRITICAL")
        with capture_logs() as hidden:
            structlog.get_logger().warning("first")
    with capture_logs() as seen:
        structlog.get_logger().warning("second")
    structlog.get_logger().warning("third")
    assert (hidden, [line["event"] for line in seen]) == ([], ["second"])
    captured = capsys.readouterr()
    assert ("third" in captured.out, captured.err) == (True, "")
