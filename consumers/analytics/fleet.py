"""`sop fleet`: every robot as its last heartbeat says, in the terminal."""

from __future__ import annotations

import math
from collections.abc import Mapping
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
_DAY = 86_400.0

# Two boots that are heard at once are two clients.
_FLEET = """
SELECT
    toString(robot_id) AS robot,
    greatest(0, toFloat64(now64(3, 'UTC')) - toFloat64(received_at)) AS seen_seconds_ago,
    toString(status.policy) AS policy,
    status.policy_version AS policy_version,
    status.policy_wanted AS policy_wanted,
    multiIf(policy = '' AND policy_wanted IS NULL, 'none', policy_wanted IS NULL, 'not known',
        policy_wanted = policy_version, 'active', concat('waits for v', toString(policy_wanted))) AS activation,
    spool_depth,
    spool_age_seconds,
    frames_dropped,
    clock_offset_seconds * 1000 AS clock_offset_ms,
    arrayConcat(status.errors, if(robot_id IN
    (
        SELECT robot_id FROM robot_boots AS other INNER JOIN robot_status AS newest USING (robot_id)
        WHERE other.boot_epoch < newest.boot_epoch
            AND other.received_at > newest.first_received_at + toIntervalSecond({overlap:Float64})
            AND other.received_at > newest.received_at - toIntervalSecond({recent:Float64})
    ), ['two clients with this robot_id run at once'], [])) AS errors
FROM robot_status AS status
WHERE received_at > now64(3, 'UTC') - toIntervalSecond({since:Float64})
ORDER BY robot
"""
# A client that was stopped may be heard a little after the next one began. What is over for so long is over.
_CLONES = {"overlap": 5.0, "recent": 60.0}

Robot = dict[str, Any]


@dataclass(frozen=True)
class Fleet:
    """Every robot, as one look found it."""

    robots: list[Robot]

    def ordered(self) -> list[Robot]:
        """Those in trouble first, then those that are silent, then by name."""
        return sorted(
            self.robots,
            key=lambda r: (not r["errors"], r["seen_seconds_ago"] < _SILENT_SECONDS, r["robot"]),
        )

    @property
    def newest(self) -> float:
        """Seconds since anybody was heard of; infinite if nobody ever was."""
        return float(min((robot["seen_seconds_ago"] for robot in self.robots), default=math.inf))

    @property
    def all_silent(self) -> bool:
        """Whether nobody reports, so that all that is known is of the past."""
        return bool(self.robots) and self.newest >= _SILENT_SECONDS

    def summary(self) -> str:
        """In a line."""
        if not self.robots:
            return "no robot was heard of"
        count = len(self.robots)
        newest = ago(self.newest)
        silent = sum(robot["seen_seconds_ago"] >= _SILENT_SECONDS for robot in self.robots)
        troubled = sum(bool(robot["errors"]) for robot in self.robots)
        spooled = f"{sum(robot['spool_depth'] for robot in self.robots):,} events in their spools"
        if self.all_silent:
            return (
                f"{count} robots, all silent: the newest heartbeat is {newest} old. Are Kafka, `sop index` and "
                f"the robots' network up? What they said then: {troubled} with errors; {spooled}"
            )
        return (
            f"{count} robots, {count - silent} reporting, {silent} silent, {troubled} with errors; {spooled}; "
            f"newest heartbeat {newest} ago"
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
    from rich.live import Live  # noqa: PLC0415 - each command loads what it needs, no more

    from consumers.analytics.asking import analyst  # noqa: PLC0415
    from consumers.analytics.output import show  # noqa: PLC0415
    from infra.command import settings_or_fail  # noqa: PLC0415
    from infra.lifecycle import stop_on_signals  # noqa: PLC0415

    settings, console = settings_or_fail(), Console()
    with analyst(settings) as client:
        bound = {"since": since, **_CLONES}

        def look() -> Fleet:
            result = client.query(_FLEET, parameters=bound)
            return Fleet([dict(zip(result.column_names, row, strict=True)) for row in result.result_rows])

        if form is not None and form is not Format.TABLE:
            show(client, _FLEET, bound, form)
            return
        if once or not console.is_terminal:
            console.print(table_of(look(), limit))
            return
        stop = stop_on_signals()
        with Live(table_of(look(), limit), console=console, auto_refresh=False, screen=True) as live:
            while not stop.wait(interval):
                live.update(table_of(look(), limit), refresh=True)


def table_of(known: Fleet, limit: int) -> Table:
    """The fleet as it is shown."""
    rows = known.ordered()
    caption = f"{limit} of {len(rows)} shown" if len(rows) > limit else None
    table = Table(title=known.summary(), caption=caption, title_style="bold red" if known.all_silent else None)
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
