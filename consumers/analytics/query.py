"""`sop query`: any question in SQL."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from consumers.analytics.output import FormatOption

if TYPE_CHECKING:
    from infra.clickhouse.client import ClickHouseError, Client

_SYNTAX_ERROR, _NO_COLUMNS, _NO_ARGUMENT = 62, 51, 456
_VIEWS = """
SELECT name, parameterized_view_parameters FROM system.tables
WHERE database = currentDatabase() AND notEmpty(parameterized_view_parameters) ORDER BY name
"""
_EXAMPLES = {"Float64": "0.7", "String": "'…'", "UUID": "'…'"}
"""Arguments to begin with; whole numbers are 20."""


def query(
    sql: Annotated[str, typer.Argument(help="A query; it runs as the user who may only read.")],
    form: FormatOption = None,
) -> None:
    """Ask ClickHouse, and print the answer. docs/analytics.md says what there is to ask."""
    from consumers.analytics.asking import analyst  # noqa: PLC0415 - each command loads what it needs, no more
    from consumers.analytics.output import show  # noqa: PLC0415
    from infra.clickhouse.client import ClickHouseError  # noqa: PLC0415
    from infra.command import settings_or_fail  # noqa: PLC0415
    from infra.terminal import fail  # noqa: PLC0415

    if not sql.strip(" \t\r\n;"):
        fail("the query is empty", code=2)
    with analyst(settings_or_fail()) as client:
        try:
            show(client, sql, form=form)
        except ClickHouseError as error:
            told = _told(client, sql, error)
            if told is None:
                raise
            fail(told, code=2)


def _told(client: Client, sql: str, error: ClickHouseError) -> str | None:
    """What is wrong with a query and how to mend it, where ClickHouse's own words do not say so."""
    code = getattr(error, "code", None)
    if code == _SYNTAX_ERROR and re.search(r"\bFORMAT\s+\w+[\s;]*$", sql, re.IGNORECASE):
        return "the query ends in a FORMAT: leave it out, and use --format json (or another of `sop query --help`)"
    if code not in (_NO_COLUMNS, _NO_ARGUMENT):
        return None
    for name, parameters in client.query(_VIEWS).result_rows:
        if re.search(rf"\b{re.escape(name)}\b", sql):
            kinds = sorted((each["name"], each["type"]) for each in parameters)
            arguments = ", ".join(f"{one} = {_EXAMPLES.get(kind, '20')}" for one, kind in kinds)
            return f"the view {name} takes parameters, as in: SELECT * FROM {name}({arguments})"  # noqa: S608
    return None
