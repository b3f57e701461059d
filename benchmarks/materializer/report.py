"""Results as tables: on the terminal, and as Markdown for `docs/benchmarks.md`."""

from __future__ import annotations

import os
import platform
import statistics
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console
from rich.table import Table


class Report:
    """Prints sections as they come, and keeps them as Markdown."""

    def __init__(self) -> None:
        self._console = Console()
        self._parts: list[str] = []

    def say(self, text: str) -> None:
        """A line of progress, or a remark under a table; only the terminal sees it."""
        self._console.print(text, highlight=False)

    def section(self, title: str, header: Sequence[str], rows: Sequence[Sequence[str]], note: str = "") -> None:
        """One table, with a note about how it was obtained."""
        table = Table(*header, title=title)
        for row in rows:
            table.add_row(*row)
        self._console.print(table)
        lines = [f"## {title}", "", *([note, ""] if note else [])]
        lines += [_line(header), _line(["---"] * len(header)), *(_line(row) for row in rows)]
        self._parts.append("\n".join(lines) + "\n")
        if note:
            self.say(note)

    def write(self, path: Path, command: str, *, append: bool = False) -> None:
        """Write, or append, what was kept, with the command and the machine that it came from."""
        head = "" if append else "# Benchmarks\n\n"
        where = f"`{command}`, {datetime.now(UTC):%Y-%m-%d}, {os.cpu_count()} cores, {_processor()}, Python "
        where += f"{platform.python_version()}.\n\n"
        with path.open("a" if append else "w") as file:
            file.write(("\n" if append else "") + head + where + "\n".join(self._parts))


def median_and_interval(values: Sequence[float]) -> list[str]:
    """Median, least and most. Of five values they hold the true median in 94 % of all cases."""
    return [f"{statistics.median(values):.2f}", f"{min(values):.2f} to {max(values):.2f}"]


def _line(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next(
        (line.split(":")[1].strip() for line in lines if line.startswith("model name")), platform.machine()
    )
