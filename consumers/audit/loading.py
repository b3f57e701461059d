"""Putting rows into ClickHouse, many at once, as often as it takes: a row may be inserted twice."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable
from types import TracebackType
from typing import Self

import stamina
import structlog

from consumers.rows import TableRow, columns_of
from infra.clickhouse.client import Client, connect
from infra.clickhouse.inserting import insert_rows
from infra.errors import RowsRefused, Unavailable
from infra.settings import ClickHouseSettings

BATCH = 5_000
"""Rows of one insert: ClickHouse likes them large, and they are held in memory until then."""
PATIENCE = 120.0
"""Seconds that an insert is tried again while ClickHouse is away."""

_log = structlog.get_logger(__name__)


class RowLoader:
    """Rows on their way into their tables; `refused` counts those that ClickHouse did not take for their content.

    Raises (all methods):
        ClickHouseUnavailable: no answer, or no insert, for `PATIENCE` seconds.
        DeploymentConflict: tables are missing or not ours to write.
    """

    def __init__(self, settings: ClickHouseSettings) -> None:
        self._settings = settings
        self._waiting: dict[str, list[TableRow]] = defaultdict(list)
        self._client: Client | None = None
        self.inserted: Counter[str] = Counter()
        self.refused = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            if kind is None:
                self.flush()
        finally:
            if self._client is not None:
                self._client.close()

    def add(self, rows: Iterable[TableRow]) -> None:
        """Insert rows, now or together with later ones."""
        for row in rows:
            waiting = self._waiting[row.table]
            waiting.append(row)
            if len(waiting) >= BATCH:
                self.flush()

    def flush(self) -> None:
        """Insert what waits, tables in the order in which rows came: an episode is there before what it names."""
        while self._waiting:
            table = next(iter(self._waiting))
            self._insert(table, self._waiting.pop(table))

    def _insert(self, table: str, rows: list[TableRow]) -> None:
        """Insert rows; if ClickHouse refuses them, all but the ones that it refuses."""
        try:
            for attempt in stamina.retry_context(on=Unavailable, attempts=None, timeout=PATIENCE):
                with attempt:
                    self._insert_once(table, rows)
        except RowsRefused as error:
            if len(rows) == 1:
                self.refused += 1
                _log.warning("row_refused", table=table, error=str(error))
                return
            half = len(rows) // 2
            self._insert(table, rows[:half])
            self._insert(table, rows[half:])

    def _insert_once(self, table: str, rows: list[TableRow]) -> None:
        if self._client is None:
            self._client = connect(self._settings)
        values = [list(row.values.values()) for row in rows]
        insert_rows(self._client, self._settings, table, columns_of(rows), values)
        self.inserted[table] += len(rows)
