"""`sop console` as a process: it says where it is, serves, and stops while somebody reads the stream."""

from __future__ import annotations

import http.client
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from typer.testing import CliRunner

from consumers.console.security import allowed_hosts, is_loopback
from sop import app
from tests.consumers.console.conftest import World

SOP = Path(sys.executable).with_name("sop")


@contextmanager
def running(
    environment: dict[str, str], *arguments: str
) -> Iterator[tuple[subprocess.Popen[str], int, list[str]]]:
    """The process, its port, and the lines that it began with."""
    command = [str(SOP), "console", "--port", "0", *arguments]
    variables = {"PATH": os.environ["PATH"], **environment}
    with subprocess.Popen(command, env=variables, cwd="/", stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            lines = [process.stdout.readline()]
            found = re.fullmatch(r"console: http://127\.0\.0\.1:(\d+)/\n", lines[0])
            assert found, lines
            if "--operator" in arguments:
                lines.append(process.stdout.readline())
            yield process, int(found[1]), lines
        finally:
            process.kill()


def test_sigterm_stops_it_while_a_stream_is_read(world: World) -> None:
    with running(world.environment) as (process, port, _):
        connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)
        connection.request("GET", "/live")
        stream = connection.getresponse()
        assert stream.getheader("content-type") == "text/event-stream; charset=utf-8"
        assert stream.readline() == b"retry: 2000\n"
        while not stream.readline().startswith(b"data: "):
            pass
        process.send_signal(signal.SIGTERM)
        stream.read()  # to its end: it was closed, and not cut
        assert process.wait(60) == 0


def test_the_operator_s_token_is_shown_once_and_only_if_it_was_made(world: World) -> None:
    with running(world.environment, "--operator") as (process, _, lines):
        assert re.fullmatch(r"operator's token, shown this once: [\w-]{32}\n", lines[1])
        process.send_signal(signal.SIGTERM)
        assert process.wait(60) == 0


@pytest.mark.parametrize(
    ("changes", "arguments", "told"),
    [
        ({"SOP_CLICKHOUSE__ANALYST_USERNAME": None}, (), "SOP_CLICKHOUSE__ANALYST_USERNAME"),
        ({"SOP_CONSOLE__TOKEN": "short"}, ("--operator",), "shorter than 16"),
        ({}, ("--host", "192.0.2.1"), "choose another with --port"),
        ({"SOP_CONSOLE__TOKKEN": "x"}, (), "did you mean SOP_CONSOLE__TOKEN"),
    ],
)
def test_what_it_cannot_start_with_is_wrong_use(
    world: World, changes: dict[str, str | None], arguments: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    variables = {name: value for name, value in {**world.environment, **changes}.items() if value is not None}
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path)
        for name, value in variables.items():
            patch.setenv(name, value)
        result = CliRunner().invoke(app, ["console", *arguments])
    assert (result.exit_code, told in result.output) == (2, True), result.output


def test_only_names_of_loopback_are_answered_there() -> None:
    assert allowed_hosts("127.0.0.1", ()) == ["localhost", "127.0.0.1", "[::1]"]
    assert allowed_hosts("0.0.0.0", ()) == ["*"]  # noqa: S104
    assert "robots.example" in allowed_hosts("0.0.0.0", ["robots.example"])  # noqa: S104
    assert "*" not in allowed_hosts("0.0.0.0", ["robots.example"])  # noqa: S104
    assert allowed_hosts("10.0.0.7", ())[-1] == "10.0.0.7"
    assert [is_loopback(host) for host in ("127.0.0.1", "::1", "localhost", "0.0.0.0", "box")] == [  # noqa: S104
        True,
        True,
        True,
        False,
        False,
    ]
