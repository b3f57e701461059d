"""Answers in the form that was asked for: a table to look at, or what another program reads."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Annotated
from uuid import UUID

import typer
from rich import box
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

_GAP = 2
_READABLE = 10
"""Characters of a cell in a line, at least, if it has so many."""
_NULL = "format_tsv_null_representation"  # Markdown's, too


def show(
    client: Client,
    sql: str,
    parameters: Mapping[str, object] | None = None,
    form: Format | None = None,
    *,
    brief: str | None = None,
) -> None:
    """Run a query and print its answer on standard output.

    Args:
        client: asks. sql: the query. parameters: bound to it. form: of the answer.
        brief: the query in its place for a table: with fewer columns, so that they have room.

    Raises:
        ClickHouseError: it fails; nothing is printed then.
        ClickHouseUnavailable: ClickHouse does not answer.
    """
    form = form or (Format.TABLE if sys.stdout.isatty() else Format.TSV)
    if form is Format.TABLE:
        _show_table(client, brief or sql, parameters, more=brief is not None)
        return
    # The answer begins only once it is whole: half of one, with an error at its end, would pass for all of it.
    settings: dict[str, object] = {"wait_end_of_query": 1}
    known = client.server_settings.get(_NULL)
    if form is Format.MARKDOWN and known is not None and known.readonly != 1:  # else it says \N
        settings[_NULL] = "NULL"
    whole = client.raw_query(sql, parameters=dict(parameters or {}), fmt=_ENGINE[form], settings=settings)
    text = whole.decode(errors="replace")
    typer.echo(as_array(text) if form is Format.JSON else text.rstrip("\n"))


def show_record(client: Client, sql: str, parameters: Mapping[str, object]) -> None:
    """Print the first row of an answer as a table of two columns.

    Raises:
        ClickHouseError, ClickHouseUnavailable: as `show`.
    """
    result = client.query(sql, parameters=dict(parameters))
    Console().print(_record(result.column_names, result.result_rows[0]))


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


def _show_table(client: Client, sql: str, parameters: Mapping[str, object] | None, *, more: bool) -> None:
    result = client.query(sql, parameters=dict(parameters or {}))
    if not result.result_rows:  # then the driver knows no names
        typer.echo("0 rows")
        return
    console = Console()
    if _fits(result.column_names, result.result_rows, console.width):
        console.print(_table(result.column_names, result.result_rows))
    else:
        for row in result.result_rows:
            console.print(_record(result.column_names, row))
    count = len(result.result_rows)
    typer.echo(f"{count} row{'' if count == 1 else 's'}{'; all columns: --format json' if more else ''}")


def _table(names: Sequence[str], rows: Sequence[Sequence[object]]) -> Table:
    table = Table(box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False, padding=(0, 1, 0, 0))
    for name, value in zip(names, rows[0], strict=True):
        # An id is there to be copied: whatever else gets narrow, it stays in one piece.
        table.add_column(Text(name), overflow="fold", no_wrap=isinstance(value, UUID))
    for row in rows:
        table.add_row(*(Text(cell(value)) for value in row))
    return table


def _fits(names: Sequence[str], rows: Sequence[Sequence[object]], width: int) -> bool:
    """Whether each column gets enough of the width that its values can be read: rich would go down to a letter."""
    needed = _GAP * (len(names) - 1)
    for name, column in zip(names, zip(*rows, strict=True), strict=True):
        longest = max(len(name), *(len(cell(value)) for value in column))
        needed += longest if isinstance(column[0], UUID) else min(longest, _READABLE)
    return needed <= width


def _record(names: Sequence[str], row: Sequence[object]) -> Table:
    """A row as a table of two columns."""
    table = Table("column", "value", show_header=False)
    table.columns[1].overflow = "fold"
    for name, value in zip(names, row, strict=True):
        table.add_row(Text(name), Text(cell(value)))
    return table
