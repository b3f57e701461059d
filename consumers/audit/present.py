"""What the commands print for an operator."""

from __future__ import annotations

import json
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from consumers.audit.findings import Report
from consumers.audit.gc import Collected
from consumers.audit.reindex import Rebuilt

SHOWN = 50
"""Findings that are printed one by one; --json writes all that were kept."""

_UNITS = {"s": "seconds", "m": "minutes", "h": "hours", "d": "days"}


def show_report(report: Report, console: Console, json_file: Path | None) -> None:
    """Print findings, then what was compared; write all of it to `json_file` if there is one."""
    for finding in report.findings[:SHOWN]:
        mended = f" [green]mended: {escape(finding.mended)}[/]" if finding.mended else ""
        head = f"[red]{finding.kind.value}[/] ({finding.where.value}) {escape(finding.name)}"
        console.print(f"{head}: {escape(finding.text)}{mended}", highlight=False, soft_wrap=True)
    hidden = sum(report.counts.values()) - min(SHOWN, len(report.findings))
    if hidden:
        console.print(f"... and {hidden} more; --json FILE lists them", highlight=False)
    for episode_id, text in list(report.open.items())[:SHOWN]:
        console.print(f"open: episode {episode_id} ({escape(text)})", highlight=False)
    if len(report.open) > SHOWN:
        console.print(f"... and {len(report.open) - SHOWN} more open episodes", highlight=False)
    for note in report.notes:
        console.print(f"note: {escape(note)}", highlight=False, soft_wrap=True)
    compared = ", ".join(f"{count:,} {name}" for name, count in report.checked.items())
    console.print(f"compared: {compared}", highlight=False, soft_wrap=True)
    if report.clean:
        console.print("clean: nothing missing, doubled or orphaned", highlight=False)
    else:
        console.print(f"{report.left} things are not as they should be", highlight=False)
    if json_file is not None:
        json_file.write_text(json.dumps(report.as_json(), indent=1))


def show_rebuilt(done: Rebuilt, console: Console) -> None:
    """Print rows by table, and what could not become a row."""
    table = Table("table", "rows", title="inserted")
    for name, count in sorted(done.rows.items()):
        table.add_row(name, f"{count:,}")
    console.print(table)
    for reason, count in sorted(done.skipped.items()):
        console.print(f"passed over: {count:,} ({escape(reason)})", highlight=False)


def show_collected(done: Collected, console: Console, *, dry_run: bool) -> None:
    """Print objects and bytes by why they went, or would go."""
    table = Table("why", "objects", "bytes", title="would be removed" if dry_run else "removed")
    for reason in sorted(done.objects):
        table.add_row(reason, f"{done.objects[reason]:,}", f"{done.bytes[reason]:,}")
    table.add_row("all", f"{done.objects.total():,}", f"{done.bytes.total():,}")
    console.print(table)
    console.print(f"{done.kept:,} objects stay", highlight=False)


def duration(text: str) -> timedelta:
    """`90s`, `30m`, `24h` or `7d`.

    Raises:
        ValueError: it is none of these.
    """
    match = re.fullmatch(r"(\d{1,9})([smhd])", text.strip())
    if match is None:
        raise ValueError(f"{text!r} is no duration; write 90s, 30m, 24h or 7d")
    return timedelta(**{_UNITS[match[2]]: int(match[1])})


def moment(text: str, now: datetime) -> datetime:
    """A duration before `now`, or a date and time as ISO 8601 writes them (UTC if no zone is given).

    Raises:
        ValueError: it is neither.
    """
    try:
        return now - duration(text)
    except ValueError:
        pass
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is neither a duration (24h) nor a time (2026-01-31T08:00)") from None
    return found if found.tzinfo else found.replace(tzinfo=UTC)
