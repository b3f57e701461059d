"""`sop episodes`: what robots recorded, one by one, and what people say of it."""

from __future__ import annotations

from typing import Annotated, Literal
from uuid import UUID

import typer

from consumers.analytics.labelling import label
from consumers.analytics.output import Format, FormatOption

app = typer.Typer(help="Episodes: list them, look at one and at its steps, label it.", no_args_is_help=True)
app.command()(label)

EpisodeId = Annotated[UUID, typer.Argument(help="The episode's id, a UUIDv7.")]
_KNOWN = "SELECT count() FROM episodes WHERE episode_id = {id:UUID}"
_STEP_COUNT = "SELECT step_count FROM episodes WHERE episode_id = {id:UUID}"
_STORED = "SELECT index FROM episode_steps(episode_id = {id:UUID}) LIMIT 1"


@app.command("list")
def list_episodes(
    *,
    task: Annotated[str | None, typer.Option(help="Of this task.")] = None,
    robot: Annotated[str | None, typer.Option(help="Of this robot.")] = None,
    source: Annotated[
        Literal["ONLINE", "DEMONSTRATION", "EVALUATION"] | None,
        typer.Option(case_sensitive=False, help="Recorded for this."),
    ] = None,
    policy: Annotated[str | None, typer.Option(help="Of robots that followed this policy line.")] = None,
    version: Annotated[int | None, typer.Option(help="In which this policy version was the newest.")] = None,
    success: Annotated[
        bool | None, typer.Option("--success/--failure", help="That succeeded, or did not.")
    ] = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many, the latest first.")] = 20,
    form: FormatOption = None,
) -> None:
    """List episodes, the latest first."""
    from consumers.analytics.asking import analyst  # noqa: PLC0415 - each command loads what it needs, no more
    from consumers.analytics.output import show  # noqa: PLC0415
    from infra.command import settings_or_fail  # noqa: PLC0415

    wanted = {
        "task = {task:String}": ("task", task),
        "robot_id = {robot:String}": ("robot", robot),
        "source = {source:String}": ("source", source),
        "policy = {policy:String}": ("policy", policy),
        "policy_version = {version:Int64}": ("version", version),
        "success = {success:UInt8}": ("success", None if success is None else int(success)),
    }
    given = {condition: bound for condition, bound in wanted.items() if bound[1] is not None}
    columns = (
        "episode_id, started_at, task, robot_id, source, policy, policy_version, end, success, step_count, "
        "human_step_count"
    )
    # What fits into 80 characters beside an id in one piece.
    brief = "episode_id, formatDateTime(started_at, '%m-%d %H:%i') AS started, task, robot_id, success"
    chosen = f"FROM episodes {'WHERE' if given else ''} {' AND '.join(given)} "  # of our own words
    chosen += "ORDER BY started_at DESC LIMIT {limit:UInt32}"
    with analyst(settings_or_fail()) as client:
        bound = {**dict(given.values()), "limit": limit}
        show(client, f"SELECT {columns} {chosen}", bound, form, brief=f"SELECT {brief} {chosen}")


@app.command("show")
def show_episode(episode_id: EpisodeId, form: FormatOption = None) -> None:
    """Show everything that is known about an episode; exit code 1 if there is none of that id."""
    from consumers.analytics.asking import analyst  # noqa: PLC0415
    from consumers.analytics.output import show, show_record  # noqa: PLC0415
    from infra.command import settings_or_fail  # noqa: PLC0415
    from infra.terminal import fail  # noqa: PLC0415

    sql, bound = "SELECT * FROM episodes WHERE episode_id = {id:UUID}", {"id": str(episode_id)}
    with analyst(settings_or_fail()) as client:
        if not client.query(_KNOWN, parameters=bound).result_rows[0][0]:
            fail(f"no episode {episode_id}; `sop episodes list` has the latest")
        if form in (None, Format.TABLE):
            show_record(client, sql, bound)
        else:
            show(client, sql, bound, form)


@app.command("steps")
def show_steps(
    episode_id: EpisodeId,
    first: Annotated[int, typer.Option(min=0, help="From this step on.")] = 0,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 1_000_000,
    form: FormatOption = None,
) -> None:
    """Show an episode's steps, read from its payload; exit code 1 if there is none, or no episode of that id."""
    from consumers.analytics.asking import analyst  # noqa: PLC0415
    from consumers.analytics.output import show  # noqa: PLC0415
    from infra.clickhouse.client import ClickHouseError  # noqa: PLC0415
    from infra.clickhouse.payloads import unreadable  # noqa: PLC0415
    from infra.command import settings_or_fail  # noqa: PLC0415
    from infra.terminal import fail  # noqa: PLC0415

    bound = {"id": str(episode_id), "first": first, "limit": limit}
    sql = (
        "SELECT * FROM episode_steps(episode_id = {id:UUID}) WHERE index >= {first:Int32} "
        "ORDER BY index LIMIT {limit:UInt32}"
    )
    with analyst(settings_or_fail()) as client:
        known = client.query(_STEP_COUNT, parameters=bound).result_rows
        if not known:
            fail(f"no episode {episode_id}; `sop episodes list` has the latest")
        try:
            if known[0][0] and not client.query(_STORED, parameters=bound).result_rows:
                fail(
                    f"the payload is not in the object store ({known[0][0]} steps announced): "
                    "`sop reconcile --repair` makes it anew from Kafka"
                )
            show(client, sql, bound, form)
        except ClickHouseError as error:
            if not unreadable(error):
                raise
            fail("the payload is damaged: `sop reconcile --deep --repair` makes it anew from Kafka")
