"""How far a long command has come, on the terminal: one bar for each stage, with the time that is left."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn, TimeRemainingColumn

Advance = Callable[[int], None]


class Stages:
    """Stages of a command, one after the other. Without a console nothing is shown."""

    def __init__(self, console: Console | None = None) -> None:
        self._console = console

    @contextmanager
    def stage(self, name: str, total: int | None) -> Iterator[Advance]:
        """Show a stage of `total` things (None: not known); call what is yielded with how many more are done."""
        if self._console is None:
            yield lambda _count: None
            return
        columns = (
            TextColumn("{task.description:<28}"),
            BarColumn(30),
            TextColumn("{task.completed:,.0f} of {task.total:,.0f}" if total else "{task.completed:,.0f}"),
            TimeElapsedColumn(),
            TextColumn("left"),
            TimeRemainingColumn(),
        )
        with Progress(*columns, console=self._console) as progress:
            task = progress.add_task(name, total=total or None)
            yield lambda count: progress.advance(task, count)
