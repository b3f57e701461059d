"""`sop query`, `sop episodes` and `sop policies lineage` on a fleet's history."""

from __future__ import annotations

import csv
import io
import json
import re
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from consumers.analytics.output import as_array, cell
from infra.clickhouse.client import connect
from infra.clickhouse.migrate import migrate
from infra.clickhouse.payloads import ensure_episode_steps
from infra.local.stack import Stack
from infra.object_store import ObjectStore
from infra.settings import load_settings
from sop import app
from tests.infra.clickhouse import world
from tests.infra.clickhouse.world import POLICY, episode_id

NOBODY = "00000000-0000-7000-8000-000000000000"


@pytest.fixture(autouse=True)
def _servers(stack: Stack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    own = {"SOP_CLICKHOUSE__DATABASE": "tests_commands", "SOP_S3__BUCKET": "tests-commands"}
    for name, value in {**stack.environment(), **own}.items():
        monkeypatch.setenv(name, value)
    settings = load_settings()
    if not migrate(settings.clickhouse):
        return
    ObjectStore(settings.s3).ensure_bucket()
    ensure_episode_steps(settings.clickhouse, settings.s3)
    client = connect(settings.clickhouse)
    world.insert(client, world.everything(), world.dead_letters())
    client.close()


def run(*arguments: str) -> Result:
    return CliRunner().invoke(app, arguments)


def test_an_answer_comes_in_the_form_that_is_asked_for() -> None:
    sql = "SELECT number AS n, if(number = 1, NULL, concat('a,\"', toString(number))) AS text FROM numbers(2)"
    found = json.loads(run("query", sql, "--format", "json").output)
    assert found == [{"n": 0, "text": 'a,"0'}, {"n": 1, "text": None}]
    lines = run("query", sql, "--format", "jsonl").output.splitlines()
    assert [json.loads(line) for line in lines] == found
    rows = list(csv.reader(io.StringIO(run("query", sql, "--format", "csv").output)))
    assert rows[:2] == [["n", "text"], ["0", 'a,"0']]
    assert run("query", sql).output == run("query", sql, "--format", "tsv").output == 'n\ttext\n0\ta,"0\n1\t\\N\n'
    markdown = run("query", sql, "--format", "markdown").output
    assert "| n | text |" in markdown
    assert "| 1 | NULL |" in markdown
    table = run("query", sql, "--format", "table").output
    assert all(part in table for part in ("n", "text", 'a,"0', "NULL", "2 rows"))


def test_an_answer_without_rows_is_an_answer() -> None:
    for form, expected in (("json", "[]\n"), ("jsonl", "\n"), ("csv", '"n"\n')):
        result = run("query", "SELECT number AS n FROM numbers(0)", "--format", form)
        assert (result.exit_code, result.output) == (0, expected)
    assert "0 rows" in run("query", "SELECT 1 WHERE 0", "--format", "table").output


def test_a_form_that_does_not_exist_is_wrong_use_and_a_query_that_fails_prints_no_answer() -> None:
    assert run("query", "SELECT 1", "--format", "stone").exit_code == 2
    failed = run("query", "SELECT throwIf(number = 90000) FROM numbers(100000)", "--format", "csv")
    assert failed.exit_code == 1
    assert failed.output.startswith("error: ")


@pytest.mark.parametrize(
    ("sql", "code", "told"),
    [
        (" ;\n", 2, "the query is empty"),
        ("SELECT 1 AS a FORMAT JSON", 2, "--format json"),
        ("SELECT * FROM time_to_success", 2, "SELECT * FROM time_to_success(target = 0.7, window = 20)"),
        ("SELECT * FROM lineage_of_version(policy = 'x')", 2, "lineage_of_version(policy = '…', version = 20)"),
        ("SELECT 1 FRM x", 1, "Syntax error: failed at position 14"),
    ],
)
def test_a_query_that_cannot_run_says_what_to_write_and_nothing_of_how_it_is_run(
    sql: str, code: int, told: str
) -> None:
    for form in ("json", "table"):
        result = run("query", sql, "--format", form)
        assert (result.exit_code, told in result.output) == (code, True), result.output
        assert "OUTFILE '" not in result.output


@pytest.mark.parametrize("width", [80, 160])
def test_a_table_can_be_read_at_the_width_that_there_is(width: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COLUMNS", str(width))
    listed = run("episodes", "list", "--format", "table", "--limit", "3").output.splitlines()
    assert max(map(len, listed)) <= width
    assert all(name in listed[0] for name in ("episode_id", "started", "task", "robot_id", "success"))
    rows = [line for line in listed if re.match(r"[0-9a-f-]{36} ", line)]
    assert [line[:36] for line in rows] == [episode_id(number) for number in (18, 15, 14)]
    assert all(re.search(r" \d\d-\d\d \d\d:\d\d ", line) for line in rows)
    assert listed[-1] == "3 rows; all columns: --format json"
    wide = run("query", "SELECT * FROM episodes LIMIT 2", "--format", "table").output
    assert len(re.findall(r"^│ episode_id +│ [0-9a-f-]{36} ", wide, re.MULTILINE)) == 2


def test_episodes_are_listed_the_latest_first_and_as_asked() -> None:
    def ids(*arguments: str) -> list[str]:
        return [
            row["episode_id"] for row in json.loads(run("episodes", "list", "--format", "json", *arguments).output)
        ]

    assert ids() == [episode_id(number) for number in (18, *reversed(range(16)))]
    assert ids("--limit", "1") == [episode_id(18)]
    assert ids("--task", "push", "--success") == [episode_id(number) for number in (6, 4, 3)]
    assert ids("--robot", "robot-1", "--failure", "--source", "evaluation") == [episode_id(13)]
    assert ids("--version", "1") == [episode_id(number) for number in (7, 6, 5, 4)]
    assert ids("--version", "1", "--policy", POLICY) == [episode_id(number) for number in (7, 6, 5, 4)]
    assert ids("--version", "1", "--policy", "another") == []
    listed = run("episodes", "list", "--format", "csv", "--limit", "1").output.splitlines()
    assert POLICY in dict(zip(*csv.reader(listed), strict=True))["policy"]
    assert ids("--task", "' OR 1 --") == []


def test_an_episode_is_shown_and_one_that_nobody_knows_is_a_failure() -> None:
    shown = run("episodes", "show", episode_id(5)).output
    assert all(part in shown for part in (episode_id(5), "human_step_count", "30", "payload_uri"))
    [found] = json.loads(run("episodes", "show", episode_id(10), "--format", "json").output)
    assert (found["revision"], found["rejected_count"]) == (2, 2)
    for command in ("show", "steps"):
        unknown = run("episodes", command, NOBODY)
        assert unknown.exit_code == 1
        assert unknown.output.startswith(f"error: no episode {NOBODY}; ")
        assert run("episodes", command, "nonsense").exit_code == 2


def test_a_payload_that_is_lost_or_damaged_is_a_failure_that_says_how_to_mend_it() -> None:
    lost = run("episodes", "steps", episode_id(5))
    assert lost.exit_code == 1
    assert re.fullmatch(
        r"error: the payload is not in the object store \(\d+ steps announced\): `sop reconcile --repair` .*\n",
        lost.output,
    ), lost.output
    settings = load_settings()
    client = connect(settings.clickhouse)
    [[uri]] = client.query(f"SELECT payload_uri FROM episodes WHERE episode_id = '{episode_id(6)}'").result_rows
    client.close()
    ObjectStore(settings.s3).put(f"episodes/{episode_id(6)}/{uri.rsplit('/', 1)[-1]}", b"PAR1" + bytes(996))
    damaged = run("episodes", "steps", episode_id(6))
    assert damaged.exit_code == 1
    assert damaged.output.startswith("error: the payload is damaged: `sop reconcile --deep --repair` ")


def test_a_version_s_lineage_is_told_by_task_and_by_episode() -> None:
    summary = json.loads(run("policies", "lineage", "2", "--policy", POLICY, "--format", "json").output)
    assert [(row["task"], row["episodes"], row["samples"]) for row in summary] == [("push", 8, 44)]
    rows = json.loads(run("policies", "lineage", "2", "--policy", POLICY, "--episodes", "--format", "json").output)
    assert [(row["episode_id"], row["draws"]) for row in rows] == [
        (episode_id(number), number + 2) for number in reversed(range(8))
    ]
    summary = json.loads(run("policies", "lineage", "4", "--policy", POLICY, "--all", "--format", "json").output)
    assert sum(int(row["samples"]) for row in summary) == 238
    rows = json.loads(
        run("policies", "lineage", "4", "--policy", POLICY, "--all", "--episodes", "--format", "json").output
    )
    assert (rows[0]["episode_id"], rows[0]["draws"], rows[0]["versions"]) == (episode_id(7), 9 + 11, 2)
    assert len(rows) == 16
    unknown = run("policies", "lineage", "77")
    assert unknown.exit_code == 1
    assert unknown.output == (
        f"error: nothing is known of what made version 77 of 'default'; known lines: '{POLICY}'\n"
    )


def test_cells_and_arrays_are_what_they_hold() -> None:
    assert [cell(value) for value in (None, b"ab", 1.5, [1])] == ["NULL", "ab", "1.5", "[1]"]
    assert json.loads(as_array('{"a":1}\n{"a":2}\n')) == [{"a": 1}, {"a": 2}]
    assert as_array("") == "[]"
    odd = {"a": "one\x85two\u2028three\u2029four\x0bfive\r"}
    assert json.loads(as_array(json.dumps(odd, ensure_ascii=False) + "\n")) == [odd]
