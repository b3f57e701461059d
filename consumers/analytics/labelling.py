"""`sop episodes label`: say afterwards how an episode went, or that it shall not count."""

from __future__ import annotations

import getpass
from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Annotated
from uuid import UUID

import typer

if TYPE_CHECKING:
    from infra.settings import Settings
    from schemas.events import EpisodeLabelled, Verdict

EpisodeId = Annotated[UUID, typer.Argument(help="The episode's id, a UUIDv7.")]
_KNOWN = (
    "SELECT robot_id, toUnixTimestamp64Micro(arrayMax(arrayPushBack(labels.labelled_at, "
    "toDateTime64(0, 6, 'UTC')))) FROM episodes WHERE episode_id = {id:UUID}"
)


class Success(StrEnum):
    """What may be said of success."""

    TRUE = "true"
    FALSE = "false"
    UNKNOWN = "unknown"


def label(
    episode_id: EpisodeId,
    *,
    reason: Annotated[str, typer.Option(help="Why, in words; it is kept with the episode.")],
    success: Annotated[Success | None, typer.Option(help="Whether the task was done.")] = None,
    exclude: Annotated[
        bool | None,
        typer.Option("--exclude/--include", help="Leave it out of training and of success rates, or take it in."),
    ] = None,
    author: Annotated[str | None, typer.Option(help="Who; by default the user's name.")] = None,
    robot: Annotated[str | None, typer.Option(help="Its robot, if ClickHouse does not know the episode.")] = None,
) -> None:
    """Label an episode. The materializer makes a new revision of it, which learner and views go by."""
    import uuid_utils  # noqa: PLC0415 - each command loads what it needs, no more

    from infra.command import ask_or_fail, settings_or_fail  # noqa: PLC0415
    from infra.errors import InfraError  # noqa: PLC0415
    from infra.terminal import fail  # noqa: PLC0415
    from schemas.errors import SchemaError  # noqa: PLC0415
    from schemas.events import EpisodeLabelled, Label  # noqa: PLC0415

    if success is None and exclude is None:
        fail("nothing to say: give --success true|false|unknown, --exclude or --include", code=2)
    if not reason.strip():
        fail("a label needs a --reason", code=2)
    settings = settings_or_fail()
    ask_or_fail(settings, ["Kafka", "schema registry"])
    robot_id, newest = (robot, None) if robot else _look_up(settings, episode_id)
    said = Label(
        label_id=str(uuid_utils.uuid7()),
        author=author or getpass.getuser(),
        reason=reason,
        labelled_at=_now(newest),
        verdict=_verdict(success),
        excluded=exclude,
    )
    event = EpisodeLabelled(episode_id=str(episode_id), robot_id=robot_id, label=said)
    try:
        send(settings, event)
    except (InfraError, SchemaError) as error:
        fail(str(error))
    typer.echo(
        f"label {event.label.label_id} is on its way to episode {episode_id} of {robot_id}; "
        f"`sop episodes show {episode_id}` has it once `sop materialize` and `sop index` have seen it"
    )


def send(settings: Settings, event: EpisodeLabelled) -> None:
    """Put a label on its topic; when this returns it is stored.

    Raises:
        KafkaUnavailable: it may not be; send the same again, it counts once.
        RegistryUnavailable, SchemaError: it was not sent.
    """
    from infra.errors import KafkaUnavailable  # noqa: PLC0415
    from infra.kafka import EventProducer, OutRecord  # noqa: PLC0415
    from infra.registry import Registry  # noqa: PLC0415
    from schemas import codec  # noqa: PLC0415
    from schemas.topics import EPISODE_LABELS  # noqa: PLC0415

    schema_id = Registry(settings.registry).id_of(EPISODE_LABELS, codec.latest(event.record))
    value = codec.frame(schema_id, codec.encode(event))
    outcome: list[str | None] = []
    timeout = settings.kafka.request_timeout
    producer = EventProducer(settings.kafka, "labels", delivery_timeout=timeout)
    producer.send(
        OutRecord(EPISODE_LABELS, event.robot_id.encode(), value), lambda error, _offset: outcome.append(error)
    )
    producer.flush(timeout + 5.0)
    if outcome != [None]:
        raise KafkaUnavailable(f"the label was not acknowledged: {outcome[0] if outcome else 'no answer'}")


def _look_up(settings: Settings, episode_id: UUID) -> tuple[str, datetime | None]:
    """The episode's robot, and the time of its newest label."""
    from consumers.analytics.asking import analyst  # noqa: PLC0415
    from infra.terminal import fail  # noqa: PLC0415

    with analyst(settings) as client:
        rows = client.query(_KNOWN, parameters={"id": str(episode_id)}).result_rows
    if not rows:
        fail(
            f"no episode {episode_id} in ClickHouse; `sop episodes list` has the latest. "
            "If it was recorded and is not indexed, name its robot (--robot)"
        )
    return str(rows[0][0]), datetime.fromtimestamp(0, UTC) + timedelta(microseconds=int(rows[0][1]))


def _verdict(success: Success | None) -> Verdict | None:
    from schemas.events import Verdict  # noqa: PLC0415

    verdicts = {Success.TRUE: Verdict.SUCCEEDED, Success.FALSE: Verdict.FAILED, Success.UNKNOWN: Verdict.UNKNOWN}
    return verdicts[success] if success else None


def _now(newest: datetime | None) -> datetime:
    """The later label counts. Where somebody's clock was ahead, ours is still the one that is given later."""
    from infra.clock import SystemClock  # noqa: PLC0415

    now = SystemClock().now()
    return now if newest is None else max(now, newest + timedelta(microseconds=1))
