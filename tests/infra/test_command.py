"""What a command says that a person waits for, when it cannot begin."""

from __future__ import annotations

import re

import pytest
from typer.testing import CliRunner

from infra.errors import KafkaUnavailable
from infra.readiness import Probe
from sop import app

pytestmark = pytest.mark.usefixtures("nothing_set")


@pytest.mark.parametrize(
    "arguments",
    [
        ["policies", "list"],
        ["policies", "hold"],
        ["episodes", "label", "01890000-0000-7000-8000-000000000000", "--exclude", "--reason", "covered"],
    ],
    ids=lambda arguments: arguments[1],
)
def test_who_asks_without_a_broker_is_told_so_in_a_line_and_waits_for_no_start(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOP_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1")
    monkeypatch.setenv("SOP_KAFKA__REQUEST_TIMEOUT", "0.2")
    monkeypatch.setenv("SOP_STARTUP_TIMEOUT", "3")
    monkeypatch.setattr("infra.readiness.wait_for", None)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 1
    line = "error: Kafka does not answer at 127.0.0.1:1: .*`sop stack up`.*SOP_KAFKA__BOOTSTRAP_SERVERS\n"
    assert re.fullmatch(line, result.output), result.output


def test_who_asks_without_any_settings_is_told_that(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("infra.readiness.probes", lambda _, **__: {"Kafka": Probe("nowhere:1", "SOP_X", away)})
    result = CliRunner().invoke(app, ["policies", "show"])
    assert result.exit_code == 1
    assert re.fullmatch(
        "error: Kafka does not answer at nowhere:1, and there are no settings, .*`sop stack up`.*\n", result.output
    ), result.output


def away() -> None:
    raise KafkaUnavailable("connection refused")
