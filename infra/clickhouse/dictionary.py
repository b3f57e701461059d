"""The data dictionary `docs/analytics.md`: every view, its columns, and an example with its result.

    python -m infra.clickhouse.dictionary docs/analytics.md

writes it anew from the ClickHouse of the settings: after `sop demo --keep`, with real results. What it says of
views and columns are their COMMENTs, so that it is corrected in a migration and nowhere else.
"""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import yaml

from infra.clickhouse.client import Client, connect
from infra.settings import load_settings

EXAMPLES_FILE = Path(__file__).parent / "examples.yaml"

_DUMMIES = {"UUID": "'00000000-0000-7000-8000-000000000000'", "String": "''"}
"""Arguments for a look at a parameterized view's columns; numbers are 1."""

_INTRO = """# Analytics: the data dictionary

Everything that happened, in SQL. `sop query "…"` asks as the user who may only read; any ClickHouse client can.
Each row shows once and in its newest state, however often it was written: nobody needs FINAL. Tables whose names
begin with `raw_` are the storage beneath, and may hold a row several times.

Times are UTC. A condition on the hour (`WHERE hour >= …`), like one on the task, narrows what is read. Some views
take arguments, which are constants or scalar subqueries: `time_to_success(target = 0.7, window = 20)`.

`make docs-analytics` makes this file from the comments in ClickHouse; results are those of a run of `sop demo`,
after which two of its episodes were labelled. They are as Python writes them; `sop query --format markdown` has
ClickHouse's own: `true` for `True`, `1` for `1.0`.
"""


@dataclass(frozen=True)
class Column:
    """A column of a view."""

    name: str
    type: str
    comment: str


@dataclass(frozen=True)
class View:
    """A view, as ClickHouse describes it. `parameters` are names and types."""

    name: str
    comment: str
    parameters: tuple[tuple[str, str], ...]
    columns: tuple[Column, ...]


@dataclass(frozen=True)
class Result:
    """What an example gave: Markdown table cells."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]


def load_examples(path: Path = EXAMPLES_FILE) -> dict[str, str]:
    """Example queries by view, in the order in which the dictionary has the views."""
    return {view: sql.strip() for view, sql in yaml.safe_load(path.read_text()).items()}


def describe(client: Client) -> dict[str, View]:
    """The views of the current database, by name."""
    columns: dict[str, list[Column]] = {}
    sql = (
        "SELECT table, name, type, comment FROM system.columns "
        "WHERE database = currentDatabase() ORDER BY table, position"
    )
    for table, name, kind, comment in client.query(sql).result_rows:
        columns.setdefault(table, []).append(Column(name, kind, comment))
    sql = (
        "SELECT name, comment, parameterized_view_parameters FROM system.tables "
        "WHERE database = currentDatabase() AND engine = 'View'"
    )
    found = {}
    for name, comment, given in client.query(sql).result_rows:
        parameters = tuple(sorted((p["name"], p["type"]) for p in given))
        text = comment
        if parameters:
            text, columns[name] = _described_in_words(client, name, comment, parameters)
        found[name] = View(name, text, parameters, tuple(columns[name]))
    return found


def ask(client: Client, sql: str) -> Result:
    """Run an example."""
    found = client.query(sql)
    if not found.result_rows:  # then the driver knows no names
        return Result(tuple(row[0] for row in client.query(f"DESCRIBE ({sql})").result_rows), ())
    return Result(
        tuple(found.column_names), tuple(tuple(_cell(value) for value in row) for row in found.result_rows)
    )


def render(views: Mapping[str, View], examples: Mapping[str, str], results: Mapping[str, Result]) -> str:
    """The whole file.

    Raises:
        ValueError: a view has no example, or an example no view.
    """
    if views.keys() != examples.keys():
        raise ValueError(f"views and examples differ: {sorted(views.keys() ^ examples.keys())}")
    parts = [_INTRO, "\n".join(f"- [`{name}`](#{name}): {views[name].comment}" for name in examples) + "\n"]
    for name, sql in examples.items():
        view, result = views[name], results[name]
        call = ", ".join(f"{parameter} {kind}" for parameter, kind in view.parameters)
        parts.append(f"## {name}\n")
        parts.append(f"{f'`{name}({call})`. ' if call else ''}{view.comment}\n")
        parts.append(
            _table(
                ("column", "type", "meaning"), [(f"`{c.name}`", _code(c.type), c.comment) for c in view.columns]
            )
        )
        parts.append(f"```sql\n{sql}\n```\n")
        parts.append(
            _table(result.header, result.rows) if result.rows else f"{_table(result.header, [])}\nNo rows.\n"
        )
    return "\n".join(parts)


def results_in(text: str) -> dict[str, Result]:
    """The results that a rendered file holds."""
    found = {}
    for section in re.split(r"^## ", text, flags=re.M)[1:]:
        name, after = section.split("\n", 1)[0], section.split("```\n", 1)[1]
        lines = [_cells(line) for line in after.splitlines() if line.startswith("|")]
        found[name] = Result(lines[0], tuple(lines[2:]))
    return found


def _described_in_words(
    client: Client, name: str, comment: str, parameters: Sequence[tuple[str, str]]
) -> tuple[str, list[Column]]:
    """ClickHouse keeps no columns of a parameterized view: its comment has a line for each."""
    first, *lines = comment.splitlines()
    meanings = dict(line.split(": ", 1) for line in lines)
    given = ", ".join(f"{parameter} = {_DUMMIES.get(kind, '1')}" for parameter, kind in parameters)
    rows = client.query(f"DESCRIBE (SELECT * FROM {name}({given}))").result_rows  # noqa: S608 - names of ours
    return first, [Column(row[0], row[1], meanings.get(row[0], "")) for row in rows]


def _table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join("| " + " | ".join(line) + " |\n" for line in lines)


def _cells(line: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in re.split(r"(?<!\\)\|", line)[1:-1])


def _code(kind: str) -> str:
    return f"`{kind}`"


def _cell(value: object) -> str:
    if value is None:
        return "NULL"
    if isinstance(value, datetime):
        return value.isoformat(sep=" ", timespec="milliseconds" if value.microsecond else "seconds")
    return str(value).replace("|", "\\|").replace("\n", " ")


def main() -> None:
    """Write the file that the command line names."""
    [target] = sys.argv[1:]
    client = connect(load_settings().clickhouse, analyst=True)
    examples = load_examples()
    results = {name: ask(client, sql) for name, sql in examples.items()}
    Path(target).write_text(render(describe(client), examples, results))


if __name__ == "__main__":
    main()
