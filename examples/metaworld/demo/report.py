"""The outcome as JSON, and the equalities that must hold in it."""

from __future__ import annotations

from collections.abc import Iterator

from pydantic import BaseModel, ConfigDict

from examples.metaworld.settings import FLEET, FleetSettings


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Episodes(_Part):
    """How many episodes each place knows of."""

    sent: int
    materialized: int
    in_clickhouse: int
    in_training_stream: int


class Steps(_Part):
    """Steps that robots recorded, and rows in the payloads."""

    sent: int
    materialized: int


class Interventions(_Part):
    """Interventions that robots recorded, and rows in ClickHouse."""

    sent: int
    in_clickhouse: int


class PolicyVersions(_Part):
    """Published versions, and those at or below a version that every robot activated."""

    published: int
    activated_by_every_robot: int


class Success(_Part):
    """Shares of the fixed set that the base and the last policy solved alone, and the size of that set.

    The base plays it as soon as it is trained, before the fleet goes online; the last policy at the end.
    """

    base: float
    final: float
    evaluation_episodes: int


class Quantiles(_Part):
    """Seconds; None where nothing was measured."""

    p50: float | None
    p99: float | None


class Latencies(_Part):
    """From the wall clocks of one machine."""

    episode_end_to_clickhouse: Quantiles
    episode_end_to_learner: Quantiles
    publish_to_active: Quantiles


class Report(_Part):
    """What `sop demo --report` writes.

    "sent" comes from the robots' ledgers, "materialized" from the Parquet objects, "in_clickhouse" from SQL,
    "in_training_stream" from a consumer of the topic. duplicates: records or rows beyond one for each
    (episode, revision).
    """

    episodes: Episodes
    steps: Steps
    interventions: Interventions
    duplicates: int
    dead_letters: int
    policy_versions: PolicyVersions
    success: Success
    latency_seconds: Latencies
    seed: int
    wall_seconds: float


def broken_equalities(report: Report) -> Iterator[str]:
    """What does not add up, in words; nothing when all is well."""
    for what, part in (
        ("episodes", report.episodes),
        ("steps", report.steps),
        ("interventions", report.interventions),
    ):
        counts: dict[str, int] = part.model_dump()
        sent = counts.pop("sent")
        for place, found in counts.items():
            if found != sent:
                yield f"{what}: {sent} sent, {found} {place.replace('_', ' ')}"
    if report.duplicates:
        yield f"{report.duplicates} duplicates"
    if report.dead_letters:
        yield f"{report.dead_letters} dead letters"


def learned_nothing(fleet: FleetSettings, base: float, final: float) -> Iterator[str]:
    """That success did not rise, in words. A fleet of the demo's length gets better; a shorter one need not."""
    if fleet.minutes >= FLEET.minutes and final <= base:
        yield f"success: {final:.1%} at the end is not above the base policy's {base:.1%}; does the learner learn?"
