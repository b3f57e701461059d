"""Answers in the form that was asked for: a table to look at, or what another program reads."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from infra.clickhouse.client import Client


class Format(StrEnum):
    """Forms of an answer."""

    TABLE = "table"
    CSV = "csv"
    TSV = "tsv"
    JSON = "json"
    JSONL = "jsonl"
    MARKDOWN = "markdown"


FormatOption = Annotated[
    Format | None, typer.Option("--format", help="Form of the answer; a table, or tsv if it goes into a pipe.")
]

# ClickHouse writes all but tables itself, so that every type looks as its users know it.
_ENGINE = {
    Format.CSV: "CSVWithNames",
    Format.TSV: "TabSeparatedWithNames",
    Format.JSON: "JSONLines",
    Format.JSONL: "JSONLines",
    Format.MARKDOWN: "Markdown",
}


def show(
    client: Client, sql: str, parameters: Mapping[str, object] | None = None, form: Format | None = None
) -> None:
    """Run a query and print its answer on standard output.

    Raises:
        ClickHouseError: it fails; nothing is printed then.
        ClickHouseUnavailable: ClickHouse does not answer.
    """
    form = form or (Format.TABLE if sys.stdout.isatty() else Format.TSV)
    if form is Format.TABLE:
        _show_table(client, sql, parameters)
        return
    # The answer begins only once it is whole: half of one, with an error at its end, would pass for all of it.
    whole = client.raw_query(
        sql, parameters=dict(parameters or {}), fmt=_ENGINE[form], settings={"wait_end_of_query": 1}
    )
    text = whole.decode(errors="replace")
    typer.echo(as_array(text) if form is Format.JSON else text.rstrip("\n"))


def show_record(client: Client, sql: str, parameters: Mapping[str, object]) -> None:
    """Print the first row of an answer as a table of two columns.

    Raises:
        ClickHouseError, ClickHouseUnavailable: as `show`.
    """
    result = client.query(sql, parameters=dict(parameters))
    table = Table("column", "value", show_header=False)
    table.columns[1].overflow = "fold"
    for name, value in zip(result.column_names, result.result_rows[0], strict=True):
        table.add_row(Text(name), Text(cell(value)))
    Console().print(table)


def as_array(lines: str) -> str:
    """JSON objects, one a line, as one JSON array."""
    # ClickHouse escapes line feeds alone; splitlines() would also cut at U+0085 and U+2028.
    objects = [line for line in lines.split("\n") if line]
    return "[" + ",".join(f"\n{line}" for line in objects) + "\n]" if objects else "[]"


def cell(value: object) -> str:
    """A value in a table."""
    if value is None:
        return "NULL"
    return value.decode(errors="replace") if isinstance(value, bytes) else str(value)


def _show_table(client: Client, sql: str, parameters: Mapping[str, object] | None) -> None:
    result = client.query(sql, parameters=dict(parameters or {}))
    if not result.result_rows:  # then the driver knows no names
        typer.echo("0 rows")
        return
    table = Table(caption=f"{len(result.result_rows)} rows")
    for name, value in zip(result.column_names, result.result_rows[0], strict=True):
        # An id is there to be copied: whatever else gets narrow, it stays in one piece.
        table.add_column(Text(name), overflow="fold", no_wrap=isinstance(value, UUID))
    for row in result.result_rows:
        table.add_row(*(Text(cell(value)) for value in row))
    Console().print(table)
