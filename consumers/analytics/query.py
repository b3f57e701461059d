"""`sop query`: any question in SQL."""

from __future__ import annotations

from typing import Annotated

import typer

from consumers.analytics.output import FormatOption


def query(
    sql: Annotated[str, typer.Argument(help="A query; it runs as the user who may only read.")],
    form: FormatOption = None,
) -> None:
    """Ask ClickHouse, and print the answer. docs/analytics.md says what there is to ask."""
    from consumers.analytics.asking import analyst  # noqa: PLC0415 - each command loads what it needs, no more
    from consumers.analytics.output import show  # noqa: PLC0415
    from infra.command import settings_or_fail  # noqa: PLC0415

    with analyst(settings_or_fail()) as client:
        show(client, sql, form=form)
