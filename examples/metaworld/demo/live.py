"""The live view: tables on a terminal, a line now and then elsewhere."""

from __future__ import annotations

from collections.abc import Mapping
from types import TracebackType
from typing import Self

from rich import box
from rich.console import Console, Group
from rich.live import Live
from rich.table import Table

from examples.metaworld.demo.accounts import Account
from examples.metaworld.demo.watch import Pipeline
from examples.metaworld.phases import WAITING
from infra.clock import Clock
from schemas.events import EpisodeSource

# Wall seconds between two lines where nobody can see a table move.
_LINE_SECONDS = 10.0
# Success is shown over so many of a robot's last online episodes.
_RECENT = 10


class View:
    """Shows progress; a context manager."""

    def __init__(self, console: Console, clock: Clock, minutes: float) -> None:
        self._console = console
        self._clock = clock
        self._minutes = minutes
        self._began = clock.monotonic()
        self._line_at: float | None = None
        # Not on a thread of its own: what it shows changes only when `show` is called.
        self._live = Live(console=console, auto_refresh=False, transient=True) if console.is_terminal else None

    def show(self, doing: str, accounts: Mapping[str, Account], pipeline: Pipeline) -> None:
        """Show how things stand; `doing` says what the demo does now.

        Until the first version is there, nobody can play: then it says that the base policy is being trained.
        """
        if pipeline.versions == 0 and all(account.phase == WAITING for account in accounts.values()):
            doing = "training the base policy"
        seconds = self._clock.monotonic() - self._began
        if self._live is not None:
            title = f"{doing} · {seconds:.0f} s"
            self._live.update(Group(_fleet(title, accounts, self._minutes), _pipeline(pipeline)), refresh=True)
        elif self._line_at is None or seconds - self._line_at >= _LINE_SECONDS:
            self._line_at = seconds
            self._console.print(_line(seconds, doing, accounts, pipeline), highlight=False, soft_wrap=True)

    def say(self, text: str) -> None:
        """A line that stays."""
        self._console.print(text, highlight=False, markup=False, soft_wrap=True)

    def __enter__(self) -> Self:
        if self._live is not None:
            self._live.start()
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        if self._live is not None:
            self._live.stop()


def _fleet(title: str, accounts: Mapping[str, Account], minutes: float) -> Table:
    # Fits 80 columns. alone: of the last online episodes, those that succeeded without help.
    table = Table(title=title, title_justify="left", expand=False, box=box.SIMPLE_HEAD)
    for column in ("robot", "doing", "minute", "episodes", "alone", "takeovers", "policy"):
        table.add_column(column, no_wrap=True, justify="left" if column in ("robot", "doing") else "right")
    for robot_id, account in accounts.items():
        online = account.of_source(EpisodeSource.ONLINE)
        recent = online[-_RECENT:]
        alone = sum(ended.success and not ended.interventions for ended in recent)
        table.add_row(
            robot_id,
            account.phase,
            f"{(account.simulated_seconds or 0.0) / 60:.0f}/{minutes:.0f}",
            str(len(account.ended)),
            f"{alone}/{len(recent)}" if recent else "-",
            str(account.interventions),
            f"v{account.policy_version}" if account.policy_version else "-",
        )
    return table


def _pipeline(pipeline: Pipeline) -> Table:
    table = Table(show_header=False, expand=False, box=box.SIMPLE)
    table.add_column(no_wrap=True)
    table.add_column()
    waiting = pipeline.sent - pipeline.materialized
    table.add_row(
        "episodes",
        f"{pipeline.sent} sent → {pipeline.materialized} materialized (lag {max(waiting, 0)}) → "
        f"{pipeline.indexed} in ClickHouse · {pipeline.admitted} admitted by the learner · "
        f"{pipeline.dead_letters} dead letters",
    )
    table.add_row(
        "learner",
        f"v{pipeline.versions} published · gradient step {pipeline.learner_step} · loss {pipeline.loss:.4f}",
    )
    for name, (p50, p99) in pipeline.latencies.items():
        measured = "-" if p50 is None or p99 is None else f"P50 {p50:.2f} s, P99 {p99:.2f} s"
        table.add_row(name.replace("_", " "), measured)
    if pipeline.trouble:
        table.add_row("trouble", pipeline.trouble)
    return table


def _line(seconds: float, doing: str, accounts: Mapping[str, Account], pipeline: Pipeline) -> str:
    least = min(((a.simulated_seconds or 0.0) / 60 for a in accounts.values()), default=0.0)
    phases = ", ".join(sorted({account.phase for account in accounts.values()}))
    interventions = sum(account.interventions for account in accounts.values())
    trouble = f" · {pipeline.trouble}" if pipeline.trouble else ""
    return (
        f"{seconds:5.0f} s  {doing} ({phases}) · simulated minute {least:.0f} · {pipeline.sent} episodes sent, "
        f"{pipeline.materialized} materialized, {pipeline.indexed} in ClickHouse · {interventions} interventions "
        f"· policy v{pipeline.versions}{trouble}"
    )
