"""The command line: one sub-command for each process, and nothing else.

Exit codes: 0 good, 1 failed (a server is away, data would be lost, ...), 2 wrong use (an option, a setting).
"""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import structlog
import typer
from pydantic import ValidationError
from rich.console import Console
from rich.table import Table

from consumers.analytics import episodes, fleet, policies, query
from consumers.console.command import console
from infra.clock import SystemClock
from infra.command import settings_or_fail as _settings
from infra.command import wait_or_fail as _ready
from infra.errors import InfraError, SettingInvalid
from infra.health import Health, HealthServer
from infra.lifecycle import stop_on_signals
from infra.local.cli import app as stack_app
from infra.policies.cli import keys_app, policies_app
from infra.policies.errors import KeyUnusable
from infra.settings import LearnerSettings, Settings
from infra.telemetry import configure_logging
from infra.terminal import fail
from learner.errors import OtherAlgorithm
from producers.emulator.cli import fleet_emulator
from schemas.errors import SchemaError

if TYPE_CHECKING:
    from learner.choice import Choice  # loads what few commands need

app = typer.Typer(
    name="sop",
    help="Scalable online post-training: robots, Kafka, episodes, learner, new policies.\n\n"
    "Settings are variables (SOP_KAFKA__BOOTSTRAP_SERVERS, ...), or lines of the file that SOP_ENV_FILE names. "
    "Without one it is stack.env of the stack in SOP_DATA_DIR, by default .sop. What the environment says wins.",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
)
app.add_typer(stack_app, name="stack")
app.command()(query.query)
app.command()(console)
app.add_typer(episodes.app, name="episodes")
app.add_typer(keys_app, name="keys")
app.command()(fleet.fleet)
app.command()(fleet_emulator)
policies_app.command()(policies.lineage)
app.add_typer(policies_app, name="policies")

Run = Callable[[Settings, threading.Event, Health], None]
ALL_SERVERS = ["Kafka", "schema registry", "object store", "ClickHouse"]


@app.command()
def deploy() -> None:
    """Make the servers agree with this repository: topics, schemas, first offsets, bucket, tables. Idempotent."""
    from infra.deploy import deploy as apply  # noqa: PLC0415 - each command loads what it needs, no more

    settings = _settings()
    _ready(settings, ALL_SERVERS, threading.Event())
    try:
        done = apply(settings)
    except (InfraError, SchemaError) as error:
        fail(str(error))
    table = Table(title="deployed", show_header=False)
    table.add_row("topics created", ", ".join(done.topics_created) or "none")
    table.add_row("schemas", ", ".join(f"{subject}={number}" for subject, number in done.schema_ids.items()))
    table.add_row("first offsets", ", ".join(f"{group}: {count}" for group, count in done.first_offsets.items()))
    table.add_row("bucket", f"{settings.s3.bucket} {'created' if done.bucket_created else 'was there'}")
    table.add_row("migrations", ", ".join(done.migrations) or "none")
    Console().print(table)


@app.command()
def materialize() -> None:
    """Turn robot events into episodes: payloads on S3, announcements on training-episodes, exactly once."""
    from infra.heap import keep_memory  # noqa: PLC0415

    keep_memory()
    from consumers.materializer import run  # noqa: PLC0415

    _serve("materialize", run, ["Kafka", "schema registry", "object store"])


@app.command()
def index() -> None:
    """Keep ClickHouse up to date with the committed topics."""
    from consumers.index import run  # noqa: PLC0415

    _serve("index", run, ["Kafka", "schema registry", "ClickHouse"])


@app.command()
def learn(
    *,
    without_lost: Annotated[
        bool, typer.Option("--without-lost", help="Go on, and forget for good what can no longer be read.")
    ] = False,
) -> None:
    """Train on the stream of episodes, and publish policy versions."""
    from learner.train import run  # noqa: PLC0415

    _serve("learn", partial(run, without_lost=without_lost), ["Kafka", "schema registry", "object store"])


@app.command()
def backfill(
    *,
    policy: Annotated[str, typer.Option(help="Name of the new line.")],
    algorithm: Annotated[
        Literal["hg-dagger", "recap", "bc"], typer.Option(help="What trains it, whatever the settings say.")
    ] = "recap",
    where: Annotated[str | None, typer.Option(help="SQL predicate over the view `episodes`.")] = None,
    since: Annotated[
        str | None,
        typer.Option(
            "--from", help="Arrived since 24h, 7d, or 2026-01-31T08:00 (UTC); or from offsets: 2@1200,5@80."
        ),
    ] = None,
    until: Annotated[
        str | None, typer.Option("--to", help="Before, likewise; @1200 is that offset in every partition.")
    ] = None,
    steps: Annotated[int | None, typer.Option(min=1, help="Gradient steps; by default the settings'.")] = None,
    relabel_threshold: Annotated[
        float | None,
        typer.Option(min=0, max=1, help="RECAP: share of the policy's steps that count as good, for all tasks."),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be trained on, train nothing.")
    ] = False,
) -> None:
    """Train a new policy line on episodes of the past; the live line is not touched."""
    from infra.clickhouse.client import ClickHouseError  # noqa: PLC0415
    from learner import backfill as past  # noqa: PLC0415
    from learner.chosen import find_episodes  # noqa: PLC0415
    from learner.errors import LearnerError, LineExists, OtherChoice  # noqa: PLC0415
    from learner.patience import Patience, Stopped  # noqa: PLC0415
    from learner.present import bar, reading, show_chosen, show_lost  # noqa: PLC0415
    from learner.recovered import read_episodes  # noqa: PLC0415
    from learner.unfinished import Begun  # noqa: PLC0415

    settings = _settings()
    if policy == settings.learner.policy:
        fail(f"{policy} is the live line; a backfill needs a name of its own (--policy)", code=2)
    if (ranks := os.environ.get("WORLD_SIZE", "1")) != "1":
        fail(f"a backfill is one process, and torchrun started {ranks}: run `sop backfill` without it", code=2)
    if relabel_threshold is not None and algorithm != "recap":
        fail(f"--relabel-threshold is of RECAP, and {algorithm} has no threshold", code=2)
    changed: dict[str, object] = {"policy": policy, "algorithm": algorithm, "pretrain_steps": steps}
    try:
        learner = _new_line(settings.learner, changed, relabel_threshold)
        choice, words = _choice(where, since, until)
    except ValidationError as error:
        first = error.errors()[0]
        fail(f"{'.'.join(map(str, first['loc']))}: {first['msg']}", code=2)
    except ValueError as error:
        fail(str(error), code=2)
    settings, stop = settings.model_copy(update={"learner": learner}), stop_on_signals()
    _ready(settings, ["Kafka", "schema registry", "object store"], stop)
    try:
        same = past.same_call(settings, words, Patience(stop))
        choice = same.choice if same else choice
        found = find_episodes(settings, choice, Patience(stop))
        show_chosen(found, Console())
        if not dry_run:
            with reading(Console(stderr=True)) as read:
                chosen = read_episodes(settings, found, Patience(stop), read)
            show_lost(chosen.lost, Console(stderr=True))
            call = Begun.of(words, choice, chosen.episodes, (same or found).ends)
            with bar(Console(stderr=True)) as told:
                done = past.backfill(settings, chosen.episodes, stop, told, call=call)
            typer.echo(f"{policy} version {done.version}: {done.sha256}")
    except Stopped:
        fail("stopped; the same command goes on with the same episodes, half a minute earlier at most")
    except (LineExists, OtherChoice, SettingInvalid) as error:
        fail(str(error), code=2)
    except (InfraError, LearnerError, SchemaError, ClickHouseError, OSError) as error:
        fail(str(error).splitlines()[0])


def _new_line(
    learner: LearnerSettings, changes: dict[str, object], relabel_threshold: float | None
) -> LearnerSettings:
    """The learner's settings for a new line, None: as they are. Raise ValidationError if they are none."""
    changes = {name: value for name, value in changes.items() if value is not None}
    changes |= {"pretrain_episodes": 1, "simulated_interval": None}
    if relabel_threshold is not None:  # settings that would hide it are the live line's
        changes |= {"recap_positive_share": relabel_threshold}
        changes |= {"recap_positive_shares": {}, "recap_threshold_steps": None}
    return LearnerSettings.model_validate(learner.model_dump() | changes)


def _choice(where: str | None, since: str | None, until: str | None) -> tuple[Choice, str]:
    """What --where, --from and --to mean now, and the words themselves. Raise ValueError if they mean nothing."""
    from consumers.audit.present import moment  # noqa: PLC0415
    from learner.choice import Choice, Offsets  # noqa: PLC0415

    places = [Offsets.parse(text) if text else None for text in (since, until)]
    times = [
        moment(text, SystemClock().now()) if text and place is None else None
        for text, place in zip((since, until), places, strict=True)
    ]
    given = ("--where", where), ("--from", since), ("--to", until)
    words = " ".join(f"{name} {text}" for name, text in given if text)
    return Choice(where, times[0], times[1], places[0] or Offsets(), places[1] or Offsets()), words


@app.command()
def replay(
    version: Annotated[int, typer.Option(min=1, help="The version to train again.")],
    policy: Annotated[str | None, typer.Option(help="The policy line; by default the settings'.")] = None,
    from_checkpoint: Annotated[
        bool,
        typer.Option("--from-checkpoint", help="Begin at the nearest checkpoint, not at the line's beginning."),
    ] = False,
) -> None:
    """Train a published version again from the log, and compare; exit code 1 if it differs (docs/training.md)."""
    from learner.errors import LearnerError  # noqa: PLC0415
    from learner.patience import Stopped  # noqa: PLC0415
    from learner.present import show_replayed, watched  # noqa: PLC0415
    from learner.reproduce import replay as train_again  # noqa: PLC0415

    settings = _settings()
    line, stop = policy or settings.learner.policy, stop_on_signals()
    _ready(settings, ["Kafka", "schema registry", "object store"], stop)
    try:
        with watched(Console(stderr=True)) as told:
            done = train_again(settings, line, version, from_checkpoint=from_checkpoint, stop=stop, told=told)
    except Stopped:
        fail("stopped")
    except (InfraError, LearnerError, SchemaError, OSError) as error:
        fail(str(error))
    show_replayed(done, line, Console())
    raise typer.Exit(0 if done.good else 1)


@app.command()
def guard() -> None:
    """Judge canaries by what ClickHouse says of them: promote or roll back, signed. Runs where you start it."""
    from consumers.guard import run  # noqa: PLC0415

    _serve("guard", run, ["Kafka", "schema registry", "ClickHouse"])


@app.command()
def reconcile(
    *,
    repair: Annotated[bool, typer.Option("--repair", help="Mend what can be mended.")] = False,
    delete_unannounced: Annotated[
        bool, typer.Option("--delete-unannounced", help="With --repair: rows from the object store alone go, too.")
    ] = False,
    deep: Annotated[bool, typer.Option("--deep", help="Read every object, and compare its sha256.")] = False,
    since: Annotated[
        str | None, typer.Option(help="Judge what came since: 24h, 7d, or 2026-01-31T08:00 (UTC).")
    ] = None,
    grace: Annotated[
        str, typer.Option(help="Age from which an object that nobody announced is an orphan.")
    ] = "24h",
    json_file: Annotated[Path | None, typer.Option("--json", help="Write the whole report to this file.")] = None,
) -> None:
    """Compare robot topics, training stream, objects and rows; exit code 1 if anything is missing or too much."""
    from consumers.audit.present import duration, moment, show_report  # noqa: PLC0415
    from consumers.audit.progress import Stages  # noqa: PLC0415
    from consumers.audit.reconcile import Options, reconcile  # noqa: PLC0415
    from infra.clickhouse.client import ClickHouseError  # noqa: PLC0415

    settings = _settings()
    try:
        from_when = moment(since, SystemClock().now()) if since else None
        options = Options(
            from_when, duration(grace), deep=deep, repair=repair, delete_unannounced=delete_unannounced
        )
    except ValueError as error:
        fail(str(error), code=2)
    if delete_unannounced and not repair:
        fail("--delete-unannounced says what --repair may delete: give both", code=2)
    _ready(settings, ALL_SERVERS, threading.Event())
    try:
        report = reconcile(settings, options, Stages(Console(stderr=True)))
        show_report(report, Console(), json_file)
    except (InfraError, SchemaError, ClickHouseError, OSError) as error:
        fail(str(error))
    raise typer.Exit(0 if report.clean else 1)


@app.command()
def reindex(
    source: Annotated[
        Literal["stream", "s3"], typer.Option("--from", help="The committed topics, or the object store alone.")
    ] = "stream",
) -> None:
    """Rebuild ClickHouse. Safe to run again, and beside `sop index`."""
    from consumers.audit.present import show_rebuilt  # noqa: PLC0415
    from consumers.audit.progress import Stages  # noqa: PLC0415
    from consumers.audit.reindex import reindex_from_objects, reindex_from_stream  # noqa: PLC0415

    settings = _settings()
    kafka = source == "stream"
    _ready(settings, ["Kafka", "schema registry"] if kafka else ["object store"], threading.Event())
    _ready(settings, ["ClickHouse"], threading.Event())
    try:
        rebuild = reindex_from_stream if kafka else reindex_from_objects
        show_rebuilt(rebuild(settings, Stages(Console(stderr=True))), Console())
    except (InfraError, SchemaError) as error:
        fail(str(error))


@app.command()
def gc(
    grace: Annotated[
        str, typer.Option(help="What was still needed this long ago stays: 90s, 30m, 24h, 7d.")
    ] = "24h",
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Say what would be removed, remove nothing.")] = False,
    adopt: Annotated[
        bool, typer.Option("--adopt", help="From now on the bucket belongs to this Kafka, whichever filled it.")
    ] = False,
) -> None:
    """Remove objects that no newest revision, announced policy or checkpoint names."""
    from consumers.audit.gc import collect  # noqa: PLC0415
    from consumers.audit.present import duration, show_collected  # noqa: PLC0415
    from consumers.audit.progress import Stages  # noqa: PLC0415

    settings = _settings()
    try:
        age = duration(grace)
    except ValueError as error:
        fail(str(error), code=2)
    _ready(settings, ["Kafka", "schema registry", "object store"], threading.Event())
    try:
        done = collect(settings, age, dry_run=dry_run, adopt=adopt, stages=Stages(Console(stderr=True)))
    except (InfraError, SchemaError) as error:
        fail(str(error))
    show_collected(done, Console(), dry_run=dry_run)


def _mount_demo() -> None:
    """The demo needs the simulator's packages; without them the other commands still work."""
    try:
        from examples.metaworld.cli import demo  # noqa: PLC0415
    except ModuleNotFoundError as error:
        missing = error.name

        @app.command(name="demo")
        def without_packages() -> None:
            """See a fleet get better (needs the packages that `make setup` installs)."""
            fail(f"{missing} is not installed; run `make setup`", code=2)
    else:
        app.command(name="demo")(demo)


_mount_demo()


def _serve(process: str, run: Run, servers: list[str]) -> None:
    """Run one process until a signal stops it, once its servers answer."""
    settings = _settings()
    configure_logging(process)
    stop, health = stop_on_signals(), Health()
    try:
        if settings.metrics_port is not None and os.environ.get("RANK", "0") == "0":  # of torchrun
            server = HealthServer(health, settings.metrics_port, settings.metrics_host)
            structlog.get_logger(__name__).info("health_served", host=settings.metrics_host, port=server.port)
        _ready(settings, servers, stop)
        health.set_ready(True)
        if not stop.is_set():
            run(settings, stop, health)
    except (SettingInvalid, KeyUnusable, OtherAlgorithm) as error:
        fail(f"{process}: {error}", code=2)
    except (InfraError, SchemaError, OSError) as error:
        fail(f"{process}: {error}")


def main() -> None:
    """Entry point of the `sop` command."""
    sys.exit(app())


if __name__ == "__main__":
    main()
