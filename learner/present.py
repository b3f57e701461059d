"""What `sop replay` and `sop backfill` show."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from learner.reproduce import TOLERANCE, Replayed
from learner.stream import Received
from schemas.events import EpisodeMaterialized


@contextmanager
def watched(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A line that says how far it is, where there is somebody to look."""
    with console.status("training again …") as status:
        yield lambda version, step: status.update(f"training again … version {version}, {step} updates")


def show_replayed(done: Replayed, policy: str, console: Console) -> None:
    """Both hashes, and what they mean."""
    lines = {
        "version": f"{policy} {done.version}",
        "published": done.published,
        "trained again": done.trained,
        "updates": str(done.updates),
    }
    if done.other_hardware:
        lines |= {"trained on": done.there, "this machine": done.here}
    for name, value in lines.items():
        console.print(f"{name:<13} {value}", soft_wrap=True, highlight=False)  # a hash is copied in one piece
    console.print(verdict(done), soft_wrap=True)


def verdict(done: Replayed) -> str:
    """One line."""
    if done.equal:
        return "equal, bit for bit"
    if done.difference is None:
        return "different, and not to be compared: the published artifact is gone, or of another shape"
    found = f"weights differ by up to {done.difference:.1e} of the largest in their tensor"
    if not done.other_hardware:
        return f"DIFFERENT on the same kind of machine: {found}"
    compared = f"other hardware, where equal bits cannot be expected: {found}"
    if done.good:
        return f"{compared}, within the tolerance of {TOLERANCE}"
    return (
        f"{compared}, MORE than the tolerance of {TOLERANCE}; rounding grows with {done.updates} updates, "
        "and --from-checkpoint makes them few"
    )


@contextmanager
def reading(console: Console) -> Iterator[Callable[[int, int], None]]:
    """Episodes that were looked at, of all, and how long it takes yet; yields what is told both numbers."""
    columns = TextColumn("choosing"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=None)
        yield lambda done, total: progress.update(task, completed=done, total=total)


@contextmanager
def bar(console: Console, updates: int) -> Iterator[Callable[[int], None]]:
    """Updates of all that there will be, and how long it takes yet; yields what is told how many were made."""
    columns = TextColumn("training"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:
        task = progress.add_task("", total=updates)
        yield lambda done: progress.update(task, completed=done)


def show_chosen(chosen: list[Received[EpisodeMaterialized]], console: Console) -> None:
    """How many episodes, steps and bytes, by task."""
    table = Table("task", "episodes", "steps", "bytes", title="chosen")
    for task in sorted({item.event.task for item in chosen}):
        mine = [item.event for item in chosen if item.event.task == task]
        numbers = len(mine), sum(e.step_count for e in mine), sum(e.payload_bytes for e in mine)
        table.add_row(task, *map(str, numbers))
    events = [item.event for item in chosen]
    numbers = len(events), sum(e.step_count for e in events), sum(e.payload_bytes for e in events)
    table.add_row("all", *map(str, numbers))
    console.print(table)
