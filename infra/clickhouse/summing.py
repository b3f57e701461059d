"""Sums of days that nothing is inserted into any more, worked out anew from their episodes.

The views use a day's sums only while they are newer than its last insert (migration 0021): that this runs late,
twice at once, or never, changes how long an answer takes and nothing that it says.
"""

from __future__ import annotations

from infra.clickhouse.client import Client

QUIET_SECONDS = 600.0
"""An insert is noted when it begins, and its rows are there when it ends: far sooner than this."""
_DAYS_AT_ONCE = 31

_DUE = """
SELECT toString(now64(6, 'UTC')), groupArray(toString(day)) FROM
(
    SELECT day FROM outcome_days
    WHERE NOT summed AND changed_at < now64(6, 'UTC') - toIntervalSecond({quiet:Float64})
    ORDER BY day LIMIT {most:UInt32}
)
"""
# Tasks whose episodes are all excluded, or gone, have a row too. It replaces the one from before, which somebody
# may have worked out before the sums were forgotten, and inserted after that.
_SUMS = """
INSERT INTO raw_outcome_sums (task, day, summed_at, sums)
SELECT task, day, {at:DateTime64(6, 'UTC')},
    groupArrayIf((policy, policy_version, source, episodes, judged, successes, autonomous, interventions, steps,
        human_steps, taken_over, taken_over_judged, recovered, taken_over_human_steps), episodes > 0)
FROM
(
    SELECT task, toDate(start_hour) AS day, policy, policy_version, source, countIf(NOT excluded) AS episodes,
        countIf(NOT excluded AND success IS NOT NULL) AS judged, countIf(NOT excluded AND won) AS successes,
        countIf(NOT excluded AND won AND human_step_count = 0) AS autonomous,
        sumIf(intervention_count, NOT excluded) AS interventions, sumIf(step_count, NOT excluded) AS steps,
        sumIf(human_step_count, NOT excluded) AS human_steps,
        countIf(NOT excluded AND intervention_count > 0) AS taken_over,
        countIf(NOT excluded AND intervention_count > 0 AND success IS NOT NULL) AS taken_over_judged,
        countIf(NOT excluded AND intervention_count > 0 AND won) AS recovered,
        sumIf(human_step_count, NOT excluded AND intervention_count > 0) AS taken_over_human_steps
    FROM (SELECT *, ifNull(success, false) AS won FROM episodes)
    WHERE toDate(start_hour) IN {days:Array(Date)}
    GROUP BY task, day, policy, policy_version, source
)
GROUP BY task, day
UNION ALL
SELECT DISTINCT task, day, {at:DateTime64(6, 'UTC')}, []
FROM raw_outcome_sums
WHERE day IN {days:Array(Date)} AND (task, day) NOT IN
(
    SELECT task, toDate(start_hour) FROM episodes WHERE toDate(start_hour) IN {days:Array(Date)}
)
"""
_DONE = """
INSERT INTO raw_outcome_days (day, changed_at, summed_at)
SELECT arrayJoin({days:Array(Date)}), toDateTime64(0, 6, 'UTC'), {at:DateTime64(6, 'UTC')}
"""
_CHANGED = """
INSERT INTO raw_outcome_days (day, changed_at, summed_at)
SELECT day, now64(6, 'UTC'), toDateTime64(0, 6, 'UTC') FROM outcome_days
"""


def sum_days(client: Client, *, quiet: float = QUIET_SECONDS) -> int:
    """Work out the sums of some days that changed, and not within `quiet` seconds; how many days, 0 for none left.

    Raises:
        ClickHouseError: ClickHouse refuses; what was summed by then counts.
    """
    [(at, days)] = client.query(_DUE, parameters={"quiet": quiet, "most": _DAYS_AT_ONCE}).result_rows
    if days:
        client.command(_SUMS, parameters={"at": at, "days": days})
        client.command(_DONE, parameters={"at": at, "days": days})
    return len(days)


def forget_sums(client: Client) -> None:
    """After rows were deleted, which no insert tells of: every day is read as it is until it is summed again.

    Raises:
        ClickHouseError: ClickHouse refuses.
    """
    client.command(_CHANGED)
    client.command("TRUNCATE TABLE raw_outcome_sums")
