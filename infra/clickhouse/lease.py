"""One deployment at a time: a lease that ClickHouse itself keeps, as the comment of an empty table.

Whoever makes the table `schema_lease_N` holds lease N: ClickHouse makes a table of a name only once. The newest
lease counts; it ends at the time in its comment, which its holder puts off for as long as it lives. So a
deployment that was killed is followed by another after `term` seconds, without help. All times are the server's.
"""

from __future__ import annotations

import threading
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import structlog

from infra.clickhouse.client import ClickHouseError, Client, connect
from infra.errors import DeploymentConflict, InfraError, Unavailable
from infra.settings import ClickHouseSettings

_log = structlog.get_logger(__name__)
_PREFIX = "schema_lease_"
LEASE_SECONDS = 30.0
_WAIT = 3600.0
"""As long as a migration may take."""
_TABLE_ALREADY_EXISTS = 57
_ENDED = 0


@dataclass(frozen=True, slots=True)
class _Lease:
    """One that was found; `ends` in milliseconds since 1970."""

    number: int
    ends: int
    now: int

    @property
    def is_held(self) -> bool:
        return self.ends > self.now


@contextmanager
def deployment_lease(
    settings: ClickHouseSettings, *, term: float = LEASE_SECONDS, wait: float = _WAIT
) -> Iterator[Callable[[], None]]:
    """Hold the lease of the settings' database within the block, which begins once nobody else does.

    Args:
        settings: where the database, which exists, is.
        term: seconds after which the lease of a holder that was killed ends.
        wait: seconds to wait for another deployment.

    Yields:
        A function to call before each step; it raises DeploymentConflict once the lease is lost.

    Raises:
        DeploymentConflict: another deployment did not end in time.
        ClickHouseUnavailable: no answer in time.
    """
    client = connect(settings)
    try:
        holding = _Holding(client, settings.database, term)
        number = holding.take(wait)
        done = threading.Event()
        # A client of its own: the other one is busy for as long as a step takes.
        keeper = threading.Thread(target=_keep, args=(settings, holding, number, done), name="lease", daemon=True)
        keeper.start()
        try:
            yield holding.check
        finally:
            done.set()
            keeper.join()
            holding.release(number)
    finally:
        client.close()


def _keep(settings: ClickHouseSettings, holding: _Holding, number: int, done: threading.Event) -> None:
    while not done.wait(holding.term / 4):
        try:
            client = connect(settings)
            try:
                holding.renew(client, number)
            finally:
                client.close()
        except (ClickHouseError, InfraError, OSError):
            continue  # `check` tells once it is too late


class _Holding:
    """What one deployment does about leases."""

    def __init__(self, client: Client, database: str, term: float) -> None:
        self.term = term
        self._client, self._database = client, database
        self._holder = uuid.uuid4().hex
        self._safe_until = 0.0

    def take(self, wait: float) -> int:
        """Wait for the newest lease to end, and make the next; return its number."""
        give_up = time.monotonic() + wait
        told = False
        while True:
            asked = time.monotonic()
            newest = self._newest()
            if newest is None or not newest.is_held:
                number = (newest.number if newest else 0) + 1
                if self._make(number, self._now(self._client)) and self._is_alone(number):
                    self._safe_until = asked + self.term
                    self._forget_before(number)
                    return number
            elif not told:
                told = True
                _log.warning("another_deployment_goes_on", database=self._database, waiting_at_most_s=wait)
            if asked > give_up:
                raise DeploymentConflict(
                    f"another deployment of database {self._database} goes on since {wait:g} s; "
                    "wait until it is done, or stop it"
                )
            time.sleep(min(0.2, self.term / 4))

    def check(self) -> None:
        """Say so once the lease may be another's."""
        if time.monotonic() > self._safe_until:
            raise DeploymentConflict(
                "ClickHouse was away for so long that another deployment may have begun; run this one again"
            )

    def renew(self, client: Client, number: int) -> None:
        """Put the end off, unless it has come; then look whether another made the next one just before."""
        asked = time.monotonic()
        if asked < self._safe_until:
            ends = self._ends(self._now(client))
            client.command(f"ALTER TABLE {self._name(number)} MODIFY COMMENT '{self._holder} {ends}'")
            if max(lease.number for lease in self._all(client)) == number:
                self._safe_until = asked + self.term

    def release(self, number: int) -> None:
        """End it; a server that is away ends it by itself."""
        try:
            self._client.command(f"ALTER TABLE {self._name(number)} MODIFY COMMENT '{self._holder} {_ENDED}'")
        except (ClickHouseError, Unavailable, OSError):
            return

    def _make(self, number: int, now: int) -> bool:
        comment = f"{self._holder} {self._ends(now)}"
        table = f"{self._name(number)} (nothing UInt8) ENGINE = MergeTree ORDER BY nothing"
        try:
            self._client.command(f"CREATE TABLE {table} COMMENT '{comment}'")
        except ClickHouseError as error:
            if getattr(error, "code", None) == _TABLE_ALREADY_EXISTS:
                return False
            raise
        return True

    def _is_alone(self, number: int) -> bool:
        """Whether no lease came in between, or was renewed just then; else this one is taken back."""
        leases = self._all(self._client)
        others = [lease for lease in leases if lease.number != number]
        if not any(lease.number > number or lease.is_held for lease in others):
            return True
        self._client.command(f"DROP TABLE IF EXISTS {self._name(number)}")
        return False

    def _forget_before(self, number: int) -> None:
        for lease in self._all(self._client):
            if lease.number < number:
                self._client.command(f"DROP TABLE IF EXISTS {self._name(lease.number)}")

    def _newest(self) -> _Lease | None:
        return max(self._all(self._client), key=lambda lease: lease.number, default=None)

    def _all(self, client: Client) -> list[_Lease]:
        rows = client.query(
            "SELECT name, comment, toUnixTimestamp64Milli(now64(3)) FROM system.tables "
            "WHERE database = {database:String} AND startsWith(name, {prefix:String})",
            parameters={"database": self._database, "prefix": _PREFIX},
        ).result_rows
        found = []
        for name, comment, now in rows:
            ends = str(comment).rpartition(" ")[2]
            found.append(_Lease(int(str(name).removeprefix(_PREFIX)), int(ends or 0), int(now)))
        return found

    def _now(self, client: Client) -> int:
        rows = client.query("SELECT toUnixTimestamp64Milli(now64(3))").result_rows
        return int(rows[0][0])

    def _ends(self, now: int) -> int:
        return now + int(self.term * 1000)

    def _name(self, number: int) -> str:
        return f"{self._database}.{_PREFIX}{number}"
