"""Asking ClickHouse for a page: as the user who may only read, within a time, and not twice at once."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import structlog

from infra.clickhouse.client import ClickHouseError, Client, connect, unavailable_as_ours
from infra.clock import Clock
from infra.errors import AccessRefused, DeploymentConflict, SettingMissing, Unavailable
from infra.settings import ClickHouseSettings

Row = dict[str, Any]
"""One row of an answer, by column."""

_ANSWERS_KEPT = 256
"""At most; and none for longer than whoever asked wants it remembered."""
_AT_ONCE = 3
"""Queries of one console that run at the same time: a page has more panels than a server has idle cores."""

_TOOK_TOO_LONG = {159, 160}
_NOT_DEPLOYED = {60, 81}
_log = structlog.get_logger(__name__)


class Trouble(Exception):
    """What the reader of a page is told instead of an answer: what is wrong, and what to do.

    status: of the HTTP answer.
    """

    def __init__(self, what: str, advice: str, status: int = 503) -> None:
        super().__init__(what)
        self.what, self.advice, self.status = what, advice, status


@dataclass
class _Answer:
    """What was answered last, and until when it is kept; `asking` is held while it is asked for."""

    rows: list[Row] | None = None
    at: float = 0.0
    until: float = 0.0
    asking: threading.Lock = field(default_factory=threading.Lock)


class Warehouse:
    """The views. Threads may share it; equal questions at the same time are one query.

    Args:
        settings: where ClickHouse is, and the log-in of the analyst.
        clock: measures how old an answer is.
        seconds: what a query may take; ClickHouse gives it up after that.
        remembered: seconds for which an answer is given again without asking.
        at_once: queries that run at the same time; others wait for one of them.
    """

    def __init__(
        self,
        settings: ClickHouseSettings,
        clock: Clock,
        *,
        seconds: float = 5.0,
        remembered: float = 2.0,
        at_once: int = _AT_ONCE,
    ) -> None:
        # ClickHouse looks at the time between blocks, so its own bound may come a little late.
        self._settings = settings.model_copy(update={"timeout": min(settings.timeout, 2 * seconds + 2)})
        self._clock = clock
        self._seconds = seconds
        self._remembered = remembered
        self._client: Client | None = None
        self._refused: tuple[float, Exception] | None = None
        self._connecting = threading.Lock()
        self._guard = threading.Lock()  # held for a moment, never while the network is waited for
        self._running = threading.Semaphore(at_once)
        self._answers: OrderedDict[str, _Answer] = OrderedDict()

    def ask(
        self, sql: str, bound: Mapping[str, object] | None = None, *, remembered: float | None = None
    ) -> list[Row]:
        """Rows of a query; what comes from users is in `bound`, never in `sql`.

        Args:
            sql: a query.
            bound: its parameters.
            remembered: seconds, in place of the console's own. 0 is for what is large: its answer is not kept, and
                only those share it who ask at the same time.

        Raises:
            Trouble: there is no answer.
        """
        keep = self._remembered if remembered is None else remembered
        asked, question = self._clock.monotonic(), f"{sql}\0{sorted((bound or {}).items())!r}"
        answer = self._place(question, asked)
        if not answer.asking.acquire(timeout=2 * self._seconds):
            raise _too_busy()
        try:
            if answer.rows is None or (answer.at < asked and self._clock.monotonic() - answer.at > keep):
                answer.rows = self._query(sql, bound or {})
                answer.at = self._clock.monotonic()
            answer.until = max(answer.until, answer.at + keep)
            return answer.rows
        finally:
            if keep <= 0:
                self._drop(question, answer)
            answer.asking.release()

    def forget(self) -> None:
        """Ask anew, whatever was answered."""
        with self._guard:
            self._answers.clear()

    def close(self) -> None:
        """Let the connections go."""
        with self._guard:
            client, self._client = self._client, None
        if client is not None:
            client.close()

    def _place(self, question: str, now: float) -> _Answer:
        with self._guard:
            # What nobody asked for again in time is dropped by whoever asks next.
            gone = [q for q, a in self._answers.items() if a.rows is not None and a.until < now]
            for old in gone:
                if old != question and not self._answers[old].asking.locked():
                    del self._answers[old]
            answer = self._answers.setdefault(question, _Answer())
            self._answers.move_to_end(question)
            while len(self._answers) > _ANSWERS_KEPT:
                self._answers.popitem(last=False)
            return answer

    def _drop(self, question: str, answer: _Answer) -> None:
        with self._guard:
            if self._answers.get(question) is answer:
                del self._answers[question]

    def _query(self, sql: str, bound: Mapping[str, object]) -> list[Row]:
        if not self._running.acquire(timeout=2 * self._seconds):
            raise _too_busy()
        try:
            with unavailable_as_ours(self._settings):
                client = self._connected()
                result = client.query(sql, parameters=dict(bound), settings=self._limits(client))
            return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]
        except (Unavailable, AccessRefused, DeploymentConflict, SettingMissing, ClickHouseError) as error:
            raise trouble_of(error, self._settings, self._seconds) from error
        finally:
            self._running.release()

    def _connected(self) -> Client:
        """The client that all threads share. One connects; those that wait for it meanwhile fail if it does."""
        client = self._client
        if client is not None:
            return client
        asked = self._clock.monotonic()
        if not self._connecting.acquire(timeout=2 * self._seconds):
            raise _too_busy()
        try:
            client = self._client
            if client is None:
                if self._refused is not None and self._refused[0] > asked:
                    raise self._refused[1]
                client = self._connect()
            return client
        finally:
            self._connecting.release()

    def _connect(self) -> Client:
        try:
            client = connect(self._settings, analyst=True)
        except Exception as error:
            self._refused = (self._clock.monotonic(), error)
            raise
        with self._guard:
            self._client, self._refused = client, None
        return client

    def _limits(self, client: Client) -> dict[str, Any]:
        """Settings of each query; a server whose analyst may change none keeps to the client's timeout."""
        known = client.server_settings.get("max_execution_time")
        return {} if known is None or known.readonly == 1 else {"max_execution_time": self._seconds}


def trouble_of(error: Exception, settings: ClickHouseSettings, seconds: float) -> Trouble:
    """What a reader is told of an error; the log has all of it."""
    code = getattr(error, "code", None)
    _log.warning("query_failed", code=code, error=str(error)[:2000])
    if isinstance(error, SettingMissing):
        return Trouble(str(error), "Set it where the console runs, and start the console again.")
    if isinstance(error, AccessRefused):
        return Trouble(str(error), "Set SOP_CLICKHOUSE__ANALYST_PASSWORD, and start the console again.")
    if isinstance(error, Unavailable):
        return Trouble(
            f"ClickHouse does not answer at {settings.host}:{settings.port}.",
            "Start the servers (sop stack up), or set SOP_CLICKHOUSE__HOST and SOP_CLICKHOUSE__PORT. "
            "Then load the page again.",
        )
    if code in _TOOK_TOO_LONG:
        return Trouble(
            f"This took longer than {seconds:g} s, and was given up.",
            "Choose a shorter time range, or one task.",
            504,
        )
    if isinstance(error, DeploymentConflict) or code in _NOT_DEPLOYED:
        return Trouble(
            f"The database {settings.database} lacks a table that this page reads.",
            "Run sop deploy with this version of the software.",
        )
    return Trouble(
        f"ClickHouse refuses the query (code {code}).", "The console's log says why; sop deploy may mend it.", 500
    )


def _too_busy() -> Trouble:
    return Trouble("ClickHouse is busy with earlier questions.", "Wait a few seconds, and load the page again.")
