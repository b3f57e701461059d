"""`sop fleet`: every robot as its last heartbeat says, in the terminal."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table
from rich.text import Text

from consumers.analytics.output import Format, FormatOption

# Robots report once a second, unless they are told otherwise.
_SILENT_SECONDS = 15.0
# Spooled events are older only where the network is away.
_OLD_SECONDS = 60.0
# Heartbeats that a look after the first asks for: those before are known.
_FRESH_SECONDS = 120.0
_DAY = 86_400.0

# No FINAL, as a heartbeat that is there twice changes nothing, and no view over all of them: there are millions.
# Times are the broker's as far as the robot knows it. Two boots whose heartbeats overlap ran at once.
_FLEET = """
WITH boots AS
(
    SELECT
        robot_id,
        boot_epoch,
        toFloat64(min(reported_at)) AS began,
        toFloat64(max(reported_at)) AS ended,
        argMax((policy, policy_version, policy_wanted, spool_depth, spool_age_seconds, frames_dropped,
            clock_offset_seconds, errors), reported_at) AS said
    FROM raw_robot_status
    WHERE reported_at > now64(6, 'UTC') - toIntervalSecond({since:Float64})
    GROUP BY robot_id, boot_epoch
)
SELECT
    toString(robot_id) AS robot,
    argMax(said, boot_epoch) AS newest,
    greatest(0, toFloat64(now64(6, 'UTC')) - argMax(ended, boot_epoch) - ifNull(newest.7, 0)) AS seen_seconds_ago,
    toString(newest.1) AS policy,
    newest.2 AS policy_version,
    newest.3 AS policy_wanted,
    multiIf(policy = '' AND policy_wanted IS NULL, 'none', policy_wanted IS NULL, 'not known',
        policy_wanted = policy_version, 'active', concat('waits for v', toString(policy_wanted))) AS activation,
    newest.4 AS spool_depth,
    newest.5 AS spool_age_seconds,
    newest.6 AS frames_dropped,
    newest.7 * 1000 AS clock_offset_ms,
    arrayReverseSort(groupArray((boot_epoch, began, ended))) AS runs,
    arrayMax(arrayMap(run -> run.3, arraySlice(runs, 2))) AS other_ended,
    other_ended > runs[1].2 + {overlap:Float64} AND other_ended > runs[1].3 - {recent:Float64} AS cloned,
    arrayConcat(newest.8, if(cloned, ['two clients with this robot_id run at once'], [])) AS errors
FROM boots
GROUP BY robot_id
ORDER BY robot_id
"""
_FLAT = f"SELECT * EXCEPT(newest, runs, other_ended, cloned) FROM ({_FLEET})"  # noqa: S608 - two constants
# A client that was stopped may be heard a little after the next one began. What is over for so long is over.
_CLONES = {"overlap": 5.0, "recent": 60.0}

Robot = dict[str, Any]


@dataclass
class Fleet:
    """What is known of every robot, by name; `seen_seconds_ago` is as of the last `update`."""

    robots: dict[str, Robot]

    def update(self, rows: Iterable[Robot], elapsed: float) -> None:
        """Newer rows of the query; those of robots that said nothing meanwhile are `elapsed` seconds older."""
        for robot in self.robots.values():
            robot["seen_seconds_ago"] += elapsed
        self.robots |= {robot["robot"]: robot for robot in rows}

    def ordered(self) -> list[Robot]:
        """Those in trouble first, then those that are silent, then by name."""
        return sorted(
            self.robots.values(),
            key=lambda r: (not r["errors"], r["seen_seconds_ago"] < _SILENT_SECONDS, r["robot"]),
        )

    def summary(self) -> str:
        """In a line."""
        robots = self.robots.values()
        reporting = sum(robot["seen_seconds_ago"] < _SILENT_SECONDS for robot in robots)
        return (
            f"{len(robots)} robots, {reporting} reporting, {sum(bool(robot['errors']) for robot in robots)} with "
            f"errors; {sum(robot['spool_depth'] for robot in robots):,} events in their spools"
        )


def fleet(
    *,
    once: Annotated[bool, typer.Option("--once", help="Print it once, for scripts.")] = False,
    interval: Annotated[float, typer.Option(min=0.2, help="Seconds between two looks.")] = 2.0,
    since: Annotated[
        float, typer.Option(min=1, help="Leave out robots that were not heard of for so many seconds.")
    ] = _DAY,
    limit: Annotated[int, typer.Option(min=1, help="Robots to show, those in trouble first.")] = 100,
    form: FormatOption = None,
) -> None:
    """Show the fleet: last seen, policy and whether it is active, spool, frames, clock, errors. Ctrl-C ends it."""
    import time  # noqa: PLC0415 - each command loads what it needs, no more

    from rich.live import Live  # noqa: PLC0415

    from consumers.analytics.asking import analyst  # noqa: PLC0415
    from consumers.analytics.output import show  # noqa: PLC0415
    from infra.command import settings_or_fail  # noqa: PLC0415
    from infra.lifecycle import stop_on_signals  # noqa: PLC0415

    settings, console = settings_or_fail(), Console()
    with analyst(settings) as client:

        def look(seconds: float) -> list[Robot]:
            result = client.query(_FLEET, parameters={"since": seconds, **_CLONES})
            return [dict(zip(result.column_names, row, strict=True)) for row in result.result_rows]

        if form is not None and form is not Format.TABLE:
            show(client, _FLAT, {"since": since, **_CLONES}, form)
            return
        known, at = Fleet({}), time.monotonic()
        known.update(look(since), 0.0)
        if once or not console.is_terminal:
            console.print(table_of(known, limit))
            return
        stop = stop_on_signals()
        with Live(table_of(known, limit), console=console, auto_refresh=False, screen=True) as live:
            while not stop.wait(interval):
                rows, before, at = look(min(since, _FRESH_SECONDS)), at, time.monotonic()
                known.update(rows, at - before)
                live.update(table_of(known, limit), refresh=True)


def table_of(known: Fleet, limit: int) -> Table:
    """The fleet as it is shown."""
    rows = known.ordered()
    caption = f"{limit} of {len(rows)} shown" if len(rows) > limit else None
    table = Table(title=known.summary(), caption=caption)
    left = {"robot", "policy", "activation"}
    for name in ("robot", "seen", "policy", "activation", "spool", "age", "frames lost", "clock, ms"):
        table.add_column(name, justify="left" if name in left else "right")
    table.add_column("errors", overflow="fold")
    for row in rows[:limit]:
        table.add_row(*_cells(row))
    return table


def _cells(row: Mapping[str, Any]) -> list[Text]:
    dropped, offset = row["frames_dropped"], row["clock_offset_ms"]
    return [
        Text(row["robot"]),
        Text(ago(row["seen_seconds_ago"]), style="red" if row["seen_seconds_ago"] >= _SILENT_SECONDS else ""),
        Text(f"{row['policy']} v{row['policy_version']}" if row["policy"] else "none"),
        Text(row["activation"], style="yellow" if row["activation"].startswith("waits") else ""),
        Text(f"{row['spool_depth']:,}"),
        Text(ago(row["spool_age_seconds"]), style="yellow" if row["spool_age_seconds"] >= _OLD_SECONDS else ""),
        Text("" if dropped is None else str(dropped), style="yellow" if dropped else ""),
        Text("" if offset is None else f"{offset:+.1f}"),
        Text("; ".join(row["errors"]), style="red"),
    ]


def ago(seconds: float) -> str:
    """A span of time, roughly."""
    if seconds < 100:
        return f"{seconds:.0f} s"
    minutes, hours = int(seconds // 60), int(seconds // 3600)
    if minutes < 100:
        return f"{minutes} min"
    return f"{hours} h" if hours < 48 else f"{hours // 24} d"
