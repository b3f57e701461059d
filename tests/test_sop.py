"""The command line: exit codes, one line for what is wrong, and a clean end."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NoReturn

import pytest
from confluent_kafka import ConsumerGroupTopicPartitions, TopicPartition
from confluent_kafka.admin import AdminClient
from typer.testing import CliRunner

from infra.deploy import deploy
from infra.errors import InfraError
from infra.kafka import LogReader
from infra.kafka.log_reader import all_partitions
from infra.local.stack import Stack
from infra.settings import Settings, load_settings
from schemas.topics import EPISODE_TOPICS, INDEX_TOPICS
from sop import app

NOWHERE = {
    "Kafka": ("SOP_KAFKA__BOOTSTRAP_SERVERS", "127.0.0.1:1"),
    "schema registry": ("SOP_REGISTRY__URL", "http://127.0.0.1:1"),
    "object store": ("SOP_S3__ENDPOINT_URL", "http://127.0.0.1:1"),
    "ClickHouse": ("SOP_CLICKHOUSE__PORT", "1"),
}
"""How to make each server unreachable."""

SERVICES = ("materialize", "index", "learn")
AT_WORK = {"materialize": "partition_taken_over", "index": "partitions_assigned"}
"""What each process logs once it has something to let go of."""


@pytest.fixture(autouse=True)
def _clean(nothing_set: None, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but a test's own, and the C library's heap as it is."""
    monkeypatch.setattr("infra.heap.keep_memory", lambda: None)  # of these tests' own process, and for good


@pytest.fixture
def servers(stack: Stack, monkeypatch: pytest.MonkeyPatch) -> None:
    """Real servers in the environment; bucket, database and groups are this module's own."""
    own = {
        "SOP_S3__BUCKET": "tests-sop",
        "SOP_CLICKHOUSE__DATABASE": "tests_sop",
        "SOP_MATERIALIZER__GROUP": "tests-sop-materializer",
        "SOP_INDEX__GROUP": "tests-sop-index",
        "SOP_STARTUP_TIMEOUT": "30",
        "SOP_POLICIES__ALLOW_UNSIGNED": "true",
    }
    for name, value in {**stack.environment(), **own}.items():
        monkeypatch.setenv(name, value)


@contextmanager
def running(command: str) -> Iterator[subprocess.Popen[str]]:
    """`sop <command>` as a process of its own; gone at the end."""
    with subprocess.Popen(
        [sys.executable, "-m", "sop", command],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parent.parent)},
    ) as process:
        try:
            yield process
        finally:
            process.kill()


def log_until(process: subprocess.Popen[str], event: str) -> list[str]:
    """Log events up to and with the one named; all of them if it never comes."""
    assert process.stderr is not None
    seen = []
    for line in process.stderr:
        seen.append(json.loads(line)["event"] if line.startswith("{") else line)
        if seen[-1] == event:
            break
    return seen


def names(command: str) -> str:
    """What the error of a command begins with."""
    return f"error: {command}: " if command in SERVICES else "error: "


def test_without_a_command_all_of_them_are_listed() -> None:
    result = CliRunner().invoke(app, [])
    assert result.exit_code == 2
    for command in (
        "stack",
        "deploy",
        "materialize",
        "index",
        "learn",
        "guard",
        "keys",
        "policies",
        "query",
        "demo",
    ):
        assert command in result.output


@pytest.mark.parametrize(
    "command",
    sorted(c.name or c.callback.__name__.replace("_", "-") for c in app.registered_commands if c.callback),
)
def test_every_command_explains_itself(command: str) -> None:
    result = CliRunner().invoke(app, [command, "--help"])
    assert result.exit_code == 0
    assert f"Usage: sop {command}" in result.output.replace("root", "sop")
    assert len(result.output.splitlines()) > 5


def test_the_demo_s_help_names_its_exit_codes() -> None:
    lines = CliRunner().invoke(app, ["demo", "--help"]).output.splitlines()
    at = next(number for number, line in enumerate(lines) if line.strip() == "Exit codes:")
    assert [line.split()[0] for line in lines[at + 1 : at + 5]] == ["0", "1", "2", "130"]


def test_a_wrong_option_or_command_is_wrong_use() -> None:
    for arguments in (["deploy", "--nonsense"], ["nonsense"], ["query"]):
        assert CliRunner().invoke(app, arguments).exit_code == 2


@pytest.mark.parametrize(
    "arguments", [["deploy"], ["materialize"], ["index"], ["learn"], ["query", "SELECT 1"], ["demo"]], ids=str
)
@pytest.mark.parametrize(
    ("name", "value", "line"),
    [
        (
            "SOP_KAFKA__REPLICATION_FACTOR",
            "0",
            "setting SOP_KAFKA__REPLICATION_FACTOR: .* greater than or equal to 1",
        ),
        ("SOP_KAFKA__REQUEST_TIMEOUT", "600", "setting SOP_KAFKA__REQUEST_TIMEOUT: .* less than or equal to 300"),
        ("SOP_KAFKA__SECURITY_PROTOCOL", "SASL_SSL", "setting SOP_KAFKA: SASL_SSL needs SOP_KAFKA__SASL_MECH.*"),
        ("SOP_KAFKA__SASL_MECHANISM", "PLAIN", "setting SOP_KAFKA: .* need SOP_KAFKA__SECURITY_PROTOCOL .*"),
        ("SOP_REGISTRY__URL", "registry:8081", "setting SOP_REGISTRY__URL: not an address such as http://.*"),
        ("SOP_REGISTRY__URL", "http://", "setting SOP_REGISTRY__URL: not an address such as http://.*"),
        ("SOP_REGISTRY__URL", "http://a:1,ftp://b", "setting SOP_REGISTRY__URL: not an address such as http://.*"),
        ("SOP_REGISTRY__URL", "http://me:p@r:8081", "setting SOP_REGISTRY__URL: .* have settings of their own"),
        ("SOP_REGISTRY__URL", "http://r:8081?token=p", "setting SOP_REGISTRY__URL: .* ends with its path"),
        ("SOP_REGISTRY__USERNAME", "me", "setting SOP_REGISTRY: .*_PASSWORD are given both, or neither"),
        ("SOP_REGISTRY__TIMEOUT", "inf", "setting SOP_REGISTRY__TIMEOUT: .* finite number"),
        ("SOP_S3__ENDPOINT_URL", "store:9000", "setting SOP_S3__ENDPOINT_URL: not an address such as http://.*"),
        (
            "SOP_MATERIALIZER__TRANSACTION_TIMEOUT",
            "0.5",
            "setting SOP_MATERIALIZER__TRANSACTION_TIMEOUT: .* greater than or equal to 1",
        ),
        ("SOP_KAFKA__NONSENSE", "1", "SOP_KAFKA__NONSENSE is no setting; .*"),
        ("SOP_NONSENSE", "1", "SOP_NONSENSE is no setting; .*"),
        ("SOP_LEARNER__HIDDEN", "256,256", "SOP_LEARNER__HIDDEN is a list, which is written as JSON, .*"),
        ("SOP_ENV_FILE", "none.env", r"SOP_ENV_FILE names none\.env, which is no file"),
    ],
)
def test_a_wrong_setting_is_one_line_and_exit_code_2(
    arguments: list[str], name: str, value: str, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert re.fullmatch(f"error: {line}\n", result.output), result.output


def test_a_backfill_is_one_process_and_says_so_to_torchrun(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = CliRunner().invoke(app, ["backfill", "--policy", "new"])
    assert result.exit_code == 2
    [line] = result.output.strip().splitlines()
    assert "torchrun started 2" in line


@pytest.mark.parametrize("arguments", [["deploy"], ["materialize"], ["learn"], ["policies", "list"]], ids=str)
@pytest.mark.parametrize("name", ["SOP_KAFKA__SSL_CA_LOCATION", "SOP_KAFKA__SSL_KEY_LOCATION"])
def test_a_setting_that_only_kafka_s_client_can_judge_is_one_line_and_exit_code_2(
    arguments: list[str], name: str, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("SOP_KAFKA__SECURITY_PROTOCOL", "SSL")
    monkeypatch.setenv(name, "/nope")
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2, result.output
    line = rf"error: ({arguments[0]}: )?Kafka's client refuses a setting: {name} failed: .*\n"
    assert re.fullmatch(line, result.output + capfd.readouterr().err), result.output


def test_a_secret_in_the_wrong_place_is_not_repeated(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOP_S3__SECRET_ACCESS_KEY__X", "hush-hush")
    monkeypatch.setenv("SOP_CLICKHOUSE", "hush-hush")
    result = CliRunner().invoke(app, ["deploy"])
    assert result.exit_code == 2
    assert "hush" not in result.output
    monkeypatch.delenv("SOP_S3__SECRET_ACCESS_KEY__X")
    monkeypatch.delenv("SOP_CLICKHOUSE")
    for address in ("http://me:hush@registry:8081", "https://hush@r", "http://r?hush", "me:hush@r:8081"):
        monkeypatch.setenv("SOP_REGISTRY__URL", address)
        result = CliRunner().invoke(app, ["deploy"])
        assert result.exit_code == 2
        assert "hush" not in result.output


@pytest.mark.parametrize("arguments", [["query", "SELECT 1"], ["console", "--port", "0"]], ids=lambda a: a[0])
def test_a_query_without_an_analyst_is_wrong_use_and_runs_as_nobody_else(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 2
    assert re.fullmatch("error: .*`sop stack up`.*SOP_CLICKHOUSE__ANALYST_USERNAME.*\n", result.output), (
        result.output
    )


def test_a_query_to_where_nobody_listens_says_where_and_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOP_CLICKHOUSE__ANALYST_USERNAME", "analyst")
    monkeypatch.setenv(*NOWHERE["ClickHouse"])
    result = CliRunner().invoke(app, ["query", "SELECT 1"])
    assert result.exit_code == 1
    assert re.fullmatch(
        "error: ClickHouse does not answer at 127.0.0.1:1 .*`sop stack up`.*SOP_CLICKHOUSE__PORT\n", result.output
    ), result.output


@pytest.mark.parametrize("command", ["deploy", "reconcile", "gc"])
def test_a_command_without_any_settings_is_refused_before_it_waits(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []
    monkeypatch.setattr("infra.readiness.wait_for", lambda probes, **_: asked.extend(probes))
    monkeypatch.setattr("infra.deploy.deploy", stop_here)
    monkeypatch.setattr("consumers.audit.reconcile.reconcile", stop_here)
    monkeypatch.setattr("consumers.audit.gc.collect", stop_here)
    refused = CliRunner().invoke(app, [command])
    assert refused.exit_code == 2
    assert re.fullmatch("error: there are no settings, .*`sop stack up`.*\n", refused.output), refused.output
    assert not asked
    monkeypatch.setenv("SOP_S3__BUCKET", "mine")
    assert CliRunner().invoke(app, [command]).output == "error: came as far as this\n"
    assert "Kafka" in asked


def stop_here(*_: object, **__: object) -> NoReturn:
    raise InfraError("came as far as this")


@pytest.mark.parametrize("server", NOWHERE)
@pytest.mark.usefixtures("servers")
def test_a_server_that_is_down_at_start_is_named(server: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*NOWHERE[server])
    monkeypatch.setenv("SOP_STARTUP_TIMEOUT", "15")  # enough for the others on a busy machine
    result = CliRunner().invoke(app, ["deploy"])
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert re.match(f"error: {server} did not answer within 15 s at \\S+: .*`sop stack up`.*SOP_", last), (
        result.output
    )


@pytest.mark.parametrize("command", SERVICES)
def test_a_process_gives_up_on_a_server_that_stays_down(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*NOWHERE["Kafka"])
    monkeypatch.setenv("SOP_STARTUP_TIMEOUT", "0.5")
    with running(command) as process:
        seen = log_until(process, "never logged")
        assert process.wait() == 1
    assert seen[-1].startswith("error: Kafka did not answer within 0.5 s at 127.0.0.1:1: ")
    assert not [line for line in seen if "Traceback" in line]


def test_a_signal_ends_the_wait_for_a_server_with_exit_code_0(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(*NOWHERE["schema registry"])
    monkeypatch.setenv(*NOWHERE["Kafka"])
    monkeypatch.setenv("SOP_KAFKA__REQUEST_TIMEOUT", "0.2")
    with running("materialize") as process:
        log_until(process, "waiting_for_server")
        process.send_signal(signal.SIGTERM)
        assert process.wait() == 0


@pytest.mark.usefixtures("servers")
def test_a_refused_log_in_is_one_line_and_is_not_tried_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SOP_CLICKHOUSE__PASSWORD", "wrong")
    result = CliRunner().invoke(app, ["deploy"])
    assert result.exit_code == 1
    about = [line for line in result.output.splitlines() if "ClickHouse" in line]
    assert len(about) == 1, result.output
    assert re.fullmatch(r"error: ClickHouse at \S+ refuses user 'sop'", about[0]), result.output


@pytest.mark.usefixtures("servers")
def test_deploying_says_what_it_did_and_the_second_time_that_nothing_was_left_to_do(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SOP_S3__BUCKET", "tests-sop-new")
    first = CliRunner().invoke(app, ["deploy"])
    assert (first.exit_code, "tests-sop-new created" in first.output) == (0, True)
    second = CliRunner().invoke(app, ["deploy"])
    assert second.exit_code == 0
    for words in ("topics created │ none", "tests-sop-new was there", "migrations     │ none", "materializer: 0"):
        assert words in second.output, second.output


@pytest.mark.usefixtures("servers")
def test_a_query_prints_a_table_and_a_wrong_one_its_error() -> None:
    deploy(load_settings())
    good = CliRunner().invoke(app, ["query", "SELECT 6 * 7 AS answer"])
    assert (good.exit_code, "answer" in good.output, "42" in good.output) == (0, True, True)
    for sql, error in (
        ("SELECT nonsense", "Unknown expression identifier"),
        ("SELCT 1", "no statement begins with 'selct'; did you mean SELECT?"),
        ("nonsense", "a query begins with SELECT"),
        ("DROP TABLE raw_episodes", "readonly mode"),
    ):
        bad = CliRunner().invoke(app, ["query", sql])
        assert bad.exit_code == 1
        assert bad.output.startswith("error: ")
        assert error in bad.output
        assert ("readonly" in bad.output) is ("readonly" in error)
        assert "Traceback" not in bad.output


@pytest.mark.parametrize(
    ("command", "number"),
    [("materialize", signal.SIGTERM), ("index", signal.SIGTERM), ("index", signal.SIGINT)],
)
@pytest.mark.usefixtures("servers")
def test_a_process_at_work_stops_cleanly_on_a_signal(command: str, number: signal.Signals) -> None:
    settings = load_settings()
    deploy(settings)
    start_at_the_ends(settings)
    with running(command) as process:
        assert log_until(process, AT_WORK[command])[-1] == AT_WORK[command]
        process.send_signal(number)
        seen = log_until(process, "never logged")
        assert process.wait() == 0, seen
    assert seen[-1].endswith("_stopped")


@pytest.mark.usefixtures("servers")
def test_a_process_on_a_cluster_that_was_never_deployed_to_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    deploy(load_settings())
    monkeypatch.setenv("SOP_MATERIALIZER__GROUP", "tests-sop-unknown")
    with running("materialize") as process:
        seen = log_until(process, "never logged")
        assert process.wait() == 1
    assert "Run `sop deploy`" in seen[-1]
    assert not [line for line in seen if "Traceback" in line]


@pytest.mark.parametrize("command", ["materialize", "index"])
@pytest.mark.usefixtures("servers")
def test_a_process_that_the_brokers_let_into_no_group_ends_and_says_what_they_need(
    command: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    deploy(load_settings())
    monkeypatch.setattr("infra.kafka.consumer.ASSIGNOR", "no-such-assignor")
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 1
    last = result.output.splitlines()[-1]
    assert re.match(f"error: {command}: .* into the group tests-sop-{command}.*Kafka >= 4.0", last), result.output


def start_at_the_ends(settings: Settings) -> None:
    """Let our groups begin behind whatever others wrote: these processes must not work on it."""
    client = AdminClient({"bootstrap.servers": settings.kafka.bootstrap_servers})
    reader = LogReader(settings.kafka, "tests-sop")
    for group, topics in ((settings.materializer.group, EPISODE_TOPICS), (settings.index.group, INDEX_TOPICS)):
        ends = [TopicPartition(*place, reader.bounds(place)[1]) for place in all_partitions(reader, topics)]
        answer = client.alter_consumer_group_offsets([ConsumerGroupTopicPartitions(group, ends)])
        for future in answer.values():
            future.result(30)
    reader.close()


@pytest.mark.usefixtures("servers")
@pytest.mark.parametrize("command", ["learn", "guard"])
def test_who_signs_and_has_no_key_is_told_how_to_make_one(command: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SOP_POLICIES__ALLOW_UNSIGNED")
    result = CliRunner().invoke(app, [command])
    assert result.exit_code == 2
    assert f"error: {command}: nothing to sign with: make a key (`sop keys new NAME`)" in result.output
