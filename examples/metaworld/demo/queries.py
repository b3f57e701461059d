"""The questions that the demo asks ClickHouse; each is a line that an analyst could type."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from infra.clickhouse.client import Client

LATENCIES = {
    # Clocks of one machine. Only first revisions: a later one waited for late events, not for us.
    "episode_end_to_clickhouse": """
        SELECT dateDiff('microsecond', ended_at, indexed_at) / 1e6 AS seconds FROM episodes WHERE revision <= 1""",
    # Of demonstrations, too: they follow no policy line, and the view episode_latency knows no learner of theirs.
    "episode_end_to_learner": """
        SELECT dateDiff('microsecond', e.ended_at, a.seen_at) / 1e6 AS seconds
        FROM (SELECT episode_id, min(seen_at) AS seen_at FROM training_admissions GROUP BY episode_id) AS a
        INNER JOIN episodes AS e ON e.episode_id = a.episode_id""",
    "publish_to_active": """
        SELECT dateDiff('microsecond', v.published_at, a.activated_at) / 1e6 AS seconds
        FROM (SELECT policy, version, robot_id, min(activated_at) AS activated_at
              FROM policy_activations GROUP BY policy, version, robot_id) AS a
        INNER JOIN policy_versions AS v ON v.policy = a.policy AND v.version = a.version""",
}
"""Queries that give a column `seconds`, by the name of the latency in the report."""


@dataclass(frozen=True, slots=True)
class Result:
    """Rows with their columns' names."""

    columns: tuple[str, ...]
    rows: list[tuple[Any, ...]]


def ask(clickhouse: Client, query: str) -> Result:
    """Run a query."""
    found = clickhouse.query(query)
    return Result(tuple(found.column_names), [tuple(row) for row in found.result_rows])


def latency(clickhouse: Client, name: str) -> tuple[float | None, float | None]:
    """P50 and P99 of a latency in seconds, None when nothing was measured."""
    query = f"SELECT count(), quantileExact(0.5)(seconds), quantileExact(0.99)(seconds) FROM ({LATENCIES[name]})"  # noqa: S608
    count, p50, p99 = ask(clickhouse, query).rows[0]
    return (float(p50), float(p99)) if count else (None, None)


def evaluated(clickhouse: Client) -> dict[int, tuple[int, int]]:
    """Evaluation episodes and successes by policy version."""
    query = """
        SELECT policy_version, count(), countIf(success = 1) FROM episode_outcomes
        WHERE source = 'EVALUATION' GROUP BY policy_version ORDER BY policy_version"""
    return {int(version): (int(count), int(good)) for version, count, good in ask(clickhouse, query).rows}


def versions(clickhouse: Client, robots: int) -> tuple[int, int]:
    """Published versions, and those v for which every one of `robots` robots activated some version >= v."""
    query = f"""
        WITH (SELECT if(count() = {robots:d}, min(newest), 0) FROM
              (SELECT max(version) AS newest FROM policy_activations GROUP BY robot_id)) AS reached
        SELECT count(), countIf(version <= reached) FROM policy_versions"""  # noqa: S608
    published, activated = ask(clickhouse, query).rows[0]
    return int(published), int(activated)


def unlearned(clickhouse: Client, until: float) -> int:
    """Episodes that the learner should have admitted by simulated second `until`, and has not reported."""
    query = f"""
        SELECT count() FROM episodes
        WHERE source != 'EVALUATION' AND ifNull(simulated_ended_at, 0) <= {until:f}
          AND episode_id NOT IN (SELECT episode_id FROM training_admissions)"""  # noqa: S608
    return int(ask(clickhouse, query).rows[0][0])


def evaluation_by_task(clickhouse: Client) -> Result:
    """Success on the fixed set by task, base and last."""
    return ask(
        clickhouse,
        """
        WITH (SELECT min(policy_version) FROM episode_outcomes WHERE source = 'EVALUATION') AS first,
             (SELECT max(policy_version) FROM episode_outcomes WHERE source = 'EVALUATION') AS last
        SELECT task, countIf(policy_version = last) AS episodes,
               round(100 * avgIf(success, policy_version = first), 1) AS base_success_percent,
               round(100 * avgIf(success, policy_version = last), 1) AS last_success_percent
        FROM episode_outcomes WHERE source = 'EVALUATION' GROUP BY task ORDER BY task""",
    )


def online_by_version(clickhouse: Client) -> Result:
    """How the fleet did while it ran, by policy version."""
    return ask(
        clickhouse,
        """
        SELECT policy_version, count() AS episodes,
               round(100 * avg(success = 1 AND autonomous), 1) AS solved_alone_percent,
               round(100 * avg(success), 1) AS solved_with_help_percent,
               round(100 * sum(human_step_count) / sum(step_count), 1) AS human_steps_percent,
               sum(intervention_count) AS interventions
        FROM episode_outcomes WHERE source = 'ONLINE' GROUP BY policy_version ORDER BY policy_version""",
    )


def interventions_by_reason(clickhouse: Client) -> Result:
    """Why humans took over, by task."""
    return ask(
        clickhouse,
        """
        SELECT task, reason, count() AS interventions, round(avg(last_step - first_step + 1), 1) AS mean_steps
        FROM interventions GROUP BY task, reason ORDER BY task, interventions DESC""",
    )


def success_over_time(
    clickhouse: Client, interval_seconds: float, intervals: int
) -> list[tuple[float, float, float]]:
    """By interval of simulated time: its middle in minutes, share solved alone, share of human steps.

    The last interval holds the episodes that were under way at its end.
    """
    query = f"""
        SELECT (least(floor(simulated_ended_at / {interval_seconds:f}), {intervals - 1:d}) + 0.5)
               * {interval_seconds / 60:f} AS minute,
               avg(success = 1 AND autonomous), sum(human_step_count) / sum(step_count)
        FROM episode_outcomes WHERE source = 'ONLINE' AND simulated_ended_at IS NOT NULL
        GROUP BY minute ORDER BY minute"""  # noqa: S608
    return [(float(minute), float(alone), float(human)) for minute, alone, human in ask(clickhouse, query).rows]


def progress(clickhouse: Client) -> dict[str, float]:
    """A few numbers for the live view."""
    query = """
        SELECT (SELECT count() FROM episodes) AS indexed,
               (SELECT max(version) FROM policy_versions) AS version,
               (SELECT argMax(learner_step, reported_at) FROM training_progress) AS learner_step,
               (SELECT argMax(loss, reported_at) FROM training_progress) AS loss,
               (SELECT argMax(episodes_admitted, reported_at) FROM training_progress) AS admitted,
               (SELECT count() FROM dead_letters) AS dead_letters"""
    result = ask(clickhouse, query)
    return {name: float(value or 0) for name, value in zip(result.columns, result.rows[0], strict=True)}
