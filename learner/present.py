"""What `sop replay` and `sop backfill` show."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from learner.choice import Found
from learner.reproduce import TOLERANCE, Replayed


@contextmanager
def watched(console: Console) -> Iterator[Callable[[int, int], None]]:
    """A line that says how far it is, where there is somebody to look."""
    with console.status("training again …") as status:
        yield lambda version, step: status.update(f"training again … version {version}, {step} updates")


def show_replayed(done: Replayed, policy: str, console: Console) -> None:
    """Both hashes, and what they mean."""
    lines = [
        ("version", f"{policy} {done.version}"),
        ("published", done.published),
        ("trained again", done.trained),
        ("updates", str(done.updates)),
    ]
    if done.other_hardware:
        lines += [*(("trained on", kind) for kind in done.others), ("this machine", done.here)]
    for name, value in lines:
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
def bar(console: Console) -> Iterator[Callable[[str, int, int | None], None]]:
    """What is done, how far it is, how long it takes yet; yields what is told of it (`learner.backfill.Told`)."""
    columns = TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, console=console) as progress:

        def told(what: str, done: int, total: int | None) -> None:
            if not progress.tasks or progress.tasks[-1].description != what:
                for earlier in progress.tasks:
                    progress.update(earlier.id, visible=False)
                progress.add_task(what, total=total)
            progress.update(progress.tasks[-1].id, completed=done, total=total)

        yield told


def show_chosen(found: Found, console: Console) -> None:
    """How many episodes, steps and bytes, by task; and what topic and index do not agree on."""
    table, sizes = Table("task", "episodes", "steps", "bytes", title="chosen"), found.sizes()
    for name in [*sorted({task for task, _, _ in sizes}), None]:
        mine = [size for size in sizes if name in {None, size[0]}]
        numbers = len(mine), sum(steps for _, steps, _ in mine), sum(size for _, _, size in mine)
        table.add_row(name or "all", *map(str, numbers))
    console.print(table)
    for count, what in (
        (found.newer, "have a newer revision than ClickHouse knows: it is taken, whatever --where says of it"),
        (found.unseen, "are in Kafka and not in ClickHouse yet: --where says nothing of them"),
    ):
        if count:
            console.print(f"note: {count} episodes {what}", highlight=False, soft_wrap=True)


def show_lost(lost: Sequence[str], console: Console) -> None:
    """How many episodes cannot be read, and one of them."""
    if lost:
        text = f"lost: {len(lost)} episodes cannot be read from the object store as ClickHouse has them"
        console.print(f"{text}, one is {lost[0]}; the log says why", highlight=False, soft_wrap=True)
