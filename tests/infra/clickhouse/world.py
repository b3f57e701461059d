"""A small fleet's history as events, made so that every number of the views can be worked out by hand.

Two tasks, two robots, four policy versions, an episode every ten minutes from 08:00 on.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from consumers.rows import TableRow, columns_of, rows_of
from infra.clickhouse.client import Client
from schemas.events import (
    Admission,
    ClosedBy,
    EpisodeDraws,
    EpisodeEnd,
    EpisodeMaterialized,
    EpisodeSource,
    Event,
    Heartbeat,
    InterventionSpan,
    Label,
    PolicyActivated,
    PolicyRollout,
    PolicyVersion,
    Range,
    TrainingLineage,
    TrainingProgress,
    Verdict,
)
from tests.schemas.golden import EXAMPLES

BEGIN = datetime.now(UTC).replace(hour=8, minute=0, second=0, microsecond=0) - timedelta(days=1)
POLICY = "world"


def at(minutes: float, milliseconds: float = 0) -> datetime:
    """A time of this history."""
    return BEGIN + timedelta(minutes=minutes, milliseconds=milliseconds)


def episode_id(number: int) -> str:
    """A UUIDv7 of the time at which episode `number` began."""
    return str(UUID(int=(int(at(10 * number).timestamp() * 1000) << 80) | 7 << 76 | 0b10 << 62 | number))


def golden(kind: type[Event]) -> Any:
    """An event of that type, to be changed."""
    return next(stored.event for stored in EXAMPLES if isinstance(stored.event, kind))


def episode(number: int, **changes: object) -> EpisodeMaterialized:
    """Episode `number`: 100 steps at 10 Hz, online, successful, without help, by version number // 4."""
    changed = {
        "episode_id": episode_id(number),
        "revision": 1,
        "robot_id": f"robot-{number % 2}",
        "task": "push" if number < 8 else "lift",
        "source": EpisodeSource.ONLINE,
        "policy": POLICY,
        "fps": 10.0,
        "end": EpisodeEnd.TERMINATED,
        "closed_by": ClosedBy.COMPLETE,
        "success": True,
        "step_count": 100,
        "human_step_count": 0,
        "missing_count": 0,
        "frames_dropped": 0,
        "rejected": (),
        "interventions": (),
        "human_ranges": (),
        "policy_versions": (number // 4,) if number >= 4 else (),
        "started_at": at(10 * number),
        "ended_at": at(10 * number + 5),
        "appended_at": at(10 * number + 5, 100),
        "materialized_at": at(10 * number + 5, 300),
        "simulated_ended_at": 60.0 * number,
        **changes,
    }
    return EpisodeMaterialized.model_validate({**golden(EpisodeMaterialized).model_dump(), **changed})


def helped(number: int, *, steps: int, **changes: object) -> EpisodeMaterialized:
    """An episode in which a human took `steps` steps."""
    span = InterventionSpan(
        intervention_id=episode_id(number),
        operator="ada",
        reason="slips",
        first_step=10,
        last_step=9 + steps,
        began_at=at(10 * number + 1),
        ended_at=at(10 * number + 2),
    )
    ranges = (Range(first=10, last=9 + steps),)
    return episode(number, human_step_count=steps, interventions=(span,), human_ranges=ranges, **changes)


def labelled(number: int, *labels: Label, **changes: object) -> EpisodeMaterialized:
    """An episode that somebody labelled, in its second revision; with five human steps."""
    return helped(number, steps=5, revision=2, recorded_success=True, labels=labels, **changes)


def episodes() -> list[EpisodeMaterialized]:
    """0 to 3 without a policy, 4 to 7 by version 1, 8 to 11 by version 2; one demonstration, one evaluation.

    14 is labelled a failure and then excluded. Nobody judged 15, the only one by version 3; 18 is by version 4.
    """
    return [
        *(episode(number, success=number == 3) for number in range(4)),
        helped(4, steps=20),
        helped(5, steps=30, success=False),
        episode(6),
        episode(7, success=None, end="TRUNCATED", closed_by="TIMEOUT", missing_count=3),
        *(episode(number) for number in (8, 9)),
        episode(10, revision=2, rejected=(Range(first=5, last=6),), frames_dropped=7),
        episode(11, success=False),
        episode(12, source=EpisodeSource.DEMONSTRATION, policy_versions=()),
        episode(13, source=EpisodeSource.EVALUATION, policy_versions=(2,), success=False),
        labelled(
            14,
            label(1, "ann", "the lid was open", verdict=Verdict.FAILED),
            label(2, "bob", "camera was covered", excluded=True),
            success=False,
            excluded=True,
        ),
        helped(15, steps=40, policy_versions=(3,), success=None, end="TRUNCATED"),
        episode(18, policy_versions=(4,)),
    ]


def label(number: int, author: str, reason: str, **said: object) -> Label:
    """Label `number`, given a day after the history begins."""
    at_ = at(1440 + number)
    fields = {"label_id": episode_id(200 + number), "author": author, "reason": reason, "labelled_at": at_, **said}
    return Label.model_validate(fields)


def versions() -> list[Event]:
    """Version N a minute before 40 N, active on both robots at once; made from the episodes before.

    Version 4 goes on from version 2: the third was rolled back.
    """
    found: list[Event] = []
    for version in (1, 2, 3, 4):
        minute = 40 * version - 1
        found.append(
            golden(PolicyVersion).model_copy(
                update={
                    "policy": POLICY,
                    "version": version,
                    "parent_version": {1: None, 2: 1, 3: 2, 4: 2}[version],
                    "published_at": at(minute),
                }
            )
        )
        for robot in (0, 1):
            active = {"robot_id": f"robot-{robot}", "policy": POLICY, "version": version}
            found.append(golden(PolicyActivated).model_copy(update={**active, "activated_at": at(minute, 500)}))
        drawn = tuple(
            EpisodeDraws(episode_id=episode_id(n), revision=1, draws=n + version) for n in range(4 * version)
        )
        found.append(
            TrainingLineage(
                policy=POLICY, version=version, part=1, parts=1, reported_at=at(minute), episodes=drawn
            )
        )
    return found


def everything() -> list[Event]:
    """The whole history, but for dead letters."""
    admitted = tuple(
        Admission(episode_id=e.episode_id, revision=e.revision, seen_at=e.materialized_at + timedelta(seconds=1))
        for e in episodes()
        if e.source is not EpisodeSource.EVALUATION
    )
    progress = golden(TrainingProgress).model_copy(
        update={"policy": POLICY, "admitted": admitted, "reported_at": at(200)}
    )
    beats = [
        golden(Heartbeat).model_copy(
            update={
                "robot_id": f"robot-{robot}",
                "reported_at": at(30 * n + 1),
                "spool_depth": n,
                "frames_dropped": 10 * n,
            }
        )
        for robot in (0, 1)
        for n in range(4)
    ]
    rollout = golden(PolicyRollout).model_copy(update={"policy": POLICY})
    return [*episodes(), *versions(), progress, *beats, rollout]


def older() -> list[Event]:
    """Revision 1 of an episode that has a second."""
    return [episode(10, success=False, step_count=50)]


def dead_letters() -> list[TableRow]:
    """Three of one reason, one of another."""
    return [
        TableRow(
            "raw_dead_letters",
            {
                "topic": "robot-steps",
                "partition": 0,
                "offset": offset,
                "robot_id": f"robot-{offset % 2}",
                "reason": "undecodable" if offset < 3 else "bad_id",
                "error": f"not a step v1 at {offset}",
                "value": b"\xff",
                "appended_at": at(offset),
            },
        )
        for offset in range(4)
    ]


def received_at(event: Event) -> datetime | None:
    """When the broker had a heartbeat: the robot's clock, put right by what it knows of the broker's."""
    if not isinstance(event, Heartbeat):
        return None
    return event.reported_at + timedelta(seconds=event.clock_offset_seconds or 0.0)


def insert(
    client: Client, events: Iterable[Event], letters: Sequence[TableRow] = (), *, known: bool = False
) -> None:
    """One insert for each table, as the index makes them; `known`: only the columns that the table has."""
    by_table: dict[str, list[TableRow]] = defaultdict(list)
    for row in (*(row for event in events for row in rows_of(event, 0, 0, received_at(event))), *letters):
        by_table[row.table].append(row)
    for table, rows in by_table.items():
        names = columns_of(rows)
        if known:
            there = {str(row[0]) for row in client.query(f"DESCRIBE TABLE {table}").result_rows}
            names = [name for name in names if name in there]
        client.insert(table, [[row.values[name] for name in names] for row in rows], column_names=names)
