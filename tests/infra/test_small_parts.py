"""Clocks, signals, telemetry and errors: the small parts that every process stands on."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from datetime import UTC, timedelta

import pytest

from infra import errors, telemetry
from infra.clock import ManualClock, SystemClock


def test_a_manual_clock_stands_still_until_both_its_hands_are_moved() -> None:
    clock = ManualClock()
    start = clock.now()
    assert (clock.now(), clock.monotonic()) == (start, 0.0)
    clock.advance(1.5)
    assert clock.now() - start == timedelta(seconds=1.5)
    assert clock.monotonic() == 1.5


def test_clocks_give_aware_utc_and_never_go_back() -> None:
    clock = SystemClock()
    assert clock.now().tzinfo is UTC
    assert ManualClock().now().tzinfo is UTC
    readings = [clock.monotonic() for _ in range(100)]
    assert readings == sorted(readings)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_first_signal_asks_to_stop_and_a_second_ends_the_process(number: signal.Signals) -> None:
    program = (
        "from infra.lifecycle import stop_on_signals\n"
        "stop = stop_on_signals()\n"
        "print('ready', flush=True)\n"
        "stop.wait()\n"
        "print('stopping', flush=True)\n"
        "import time\n"
        "while True: time.sleep(0.01)\n"
    )
    with subprocess.Popen([sys.executable, "-c", program], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
        process.send_signal(number)
        assert process.stdout.readline() == "stopping\n"
        assert process.poll() is None
        process.send_signal(number)
        assert process.wait() == 128 + number


def test_a_trace_context_is_w3c_and_new_each_time() -> None:
    found = {telemetry.new_traceparent().decode() for _ in range(10)}
    assert len(found) == 10
    assert all(re.fullmatch(r"00-[0-9a-f]{32}-[0-9a-f]{16}-01", text) for text in found)


def test_logs_off_a_terminal_are_one_json_object_a_line_with_the_process() -> None:
    program = (
        "import structlog; from infra.telemetry import configure_logging\n"
        "configure_logging('materialize')\n"
        "structlog.get_logger('any').warning('two\\nlines', error='x')\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    (line,) = done.stderr.splitlines()
    entry = json.loads(line)
    assert (entry["event"], entry["process"], entry["level"]) == ("two\nlines", "materialize", "warning")


def test_the_error_tree_is_as_its_module_draws_it() -> None:
    drawn = re.findall(r"[├└]── (\w+)", errors.__doc__ or "")
    found = [name for name, value in vars(errors).items() if isinstance(value, type)]
    assert sorted(drawn) == sorted(name for name in found if name != "InfraError")
    assert all(issubclass(vars(errors)[name], errors.InfraError) for name in drawn)
    unavailable = {name for name in drawn if issubclass(vars(errors)[name], errors.Unavailable)}
    assert {name for name in drawn if name.endswith("Unavailable")} <= unavailable, "recoverable by its type"
