"""What the analysts' views say of a history that can be worked out by hand; inserted twice, it is once."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import migrate
from infra.clickhouse.summing import sum_days
from infra.settings import ClickHouseSettings, Settings
from schemas.events import EpisodeDraws, TrainingLineage
from tests.infra.clickhouse import world
from tests.infra.clickhouse.world import POLICY, at, episode_id

CALLS = {
    "time_to_success": "time_to_success(target = 0.5, window = 4)",
    "lineage_of_version": f"lineage_of_version(policy = '{POLICY}', version = 2)",
    "lineage_to_version": f"lineage_to_version(policy = '{POLICY}', version = 4)",
    "lineage_of_episode": f"lineage_of_episode(episode_id = '{episode_id(4)}')",
}


@pytest.fixture(scope="module")
def database(settings: Settings) -> ClickHouseSettings:
    made = settings.clickhouse.model_copy(update={"database": "infra_analytics"})
    migrate(made)
    client = connect(made)
    world.insert(client, world.older())
    world.insert(client, world.everything(), world.dead_letters())
    client.close()
    return made


@pytest.fixture
def analyst(database: ClickHouseSettings) -> Iterator[Client]:
    made = connect(database, analyst=True)
    yield made
    made.close()


def rows(client: Client, sql: str) -> list[tuple[object, ...]]:
    found = client.query(sql, tz_mode="aware").result_rows
    return [tuple(row) for row in found]


def views(client: Client) -> dict[str, list[str]]:
    """Parameters by view."""
    sql = "SELECT name, tupleElement(parameterized_view_parameters, 'name') FROM system.tables"
    found = rows(client, f"{sql} WHERE database = currentDatabase() AND engine = 'View'")
    return {str(name): list(parameters) for name, parameters in found}  # type: ignore[call-overload]


def shown(client: Client) -> dict[str, list[str]]:
    """What every view shows."""
    found = {}
    for view, parameters in views(client).items():
        without = {"episodes": " EXCEPT (indexed_at)", "outcome_days": " EXCEPT (changed_at, summed_at, summed)"}
        source = CALLS[view] if parameters else view
        found[view] = sorted(map(repr, rows(client, f"SELECT *{without.get(view, '')} FROM {source}")))
    return found


def test_everything_inserted_again_in_another_order_and_never_merged_changes_no_view(
    database: ClickHouseSettings, analyst: Client
) -> None:
    once = shown(analyst)
    assert all(once.values()), [view for view, found in once.items() if not found]
    client = connect(database)
    for table in rows(client, "SHOW TABLES LIKE 'raw_%'"):
        client.command(f"SYSTEM STOP MERGES {table[0]}")
    world.insert(client, reversed(world.everything()), world.dead_letters()[::-1])
    world.insert(client, world.older())
    while sum_days(client, quiet=0):
        pass
    [(days, summed)] = rows(analyst, "SELECT count(), countIf(summed) FROM outcome_days")
    assert (days, summed) == (1, 1)
    client.close()
    stored, distinct = rows(analyst, "SELECT count(), uniqExact(episode_id, revision) FROM raw_episodes")[0]
    assert (stored, distinct) == (36, 18), "both inserts are there"
    assert shown(analyst) == once


def test_every_view_and_every_column_is_explained(analyst: Client) -> None:
    sql = "SELECT name, comment FROM system.tables WHERE database = currentDatabase() AND engine = 'View'"
    comments = {str(name): str(comment) for name, comment in rows(analyst, sql)}
    columns = rows(
        analyst,
        "SELECT table, name FROM system.columns WHERE database = currentDatabase() AND comment NOT LIKE '%.' "
        "AND table IN (SELECT name FROM system.tables WHERE database = currentDatabase() AND engine = 'View')",
    )
    assert columns == []
    for view, parameters in views(analyst).items():
        comment = comments[view]
        assert comment.endswith(".")
        if parameters:
            names = analyst.query(f"SELECT * FROM {CALLS[view]} LIMIT 0").column_names
            assert tuple(line.split(":")[0] for line in comment.splitlines()[1:]) == names
            assert all(f"`{parameter}`" in comment.splitlines()[0] for parameter in parameters)


def test_success_is_counted_of_what_was_judged_and_wilson_bounds_it(analyst: Client) -> None:
    sql = (
        "SELECT episodes, judged, successes, autonomous_successes, round(success_rate, 4), round(success_low, 4), "
    )
    sql += "round(success_high, 4) FROM success_by_task WHERE source = 'ONLINE'"
    # 3 of 7: Wilson's interval as R's binom::binom.wilson(3, 7) gives it.
    assert rows(analyst, f"{sql} AND task = 'push'") == [(8, 7, 3, 2, 0.4286, 0.1582, 0.7495)]
    assert rows(analyst, f"{sql} AND task = 'lift'") == [(6, 5, 4, 4, 0.8, 0.3755, 0.9638)]


def test_other_cuts_of_success_add_up_to_the_same_episodes(analyst: Client) -> None:
    totals = "SELECT sum(episodes), sum(judged), sum(successes), sum(autonomous_successes) FROM"
    expected = [(16, 14, 8, 7)]
    for view in ("success_by_task", "success_by_robot", "success_by_policy_version", "success_by_hour"):
        assert rows(analyst, f"{totals} {view}") == expected, view
        assert rows(
            analyst,
            f"SELECT count() FROM {view} WHERE NOT (success_low <= success_rate AND success_rate <= success_high)",
        ) == [(0,)]
    sql = "SELECT policy_version, episodes, successes FROM success_by_policy_version WHERE source = 'ONLINE'"
    assert rows(analyst, f"{sql} ORDER BY policy_version") == [
        (0, 4, 1),
        (1, 4, 2),
        (2, 4, 3),
        (3, 1, 0),
        (4, 1, 1),
    ]


def test_a_rate_of_no_episode_is_unknown(analyst: Client) -> None:
    sql = "SELECT success_rate, success_low, success_high FROM success_by_hour WHERE judged = 0"
    assert rows(analyst, sql) == [(None, None, None)]
    sql = "SELECT taken_over, recovery_rate, recovery_low, recovery_high FROM recoveries WHERE judged = 0"
    assert rows(analyst, sql) == [(1, None, None, None)]


def test_throughput_counts_time_under_control_and_no_resets(analyst: Client) -> None:
    # An hour has six episodes of 100 steps at 10 Hz: one minute under control, fifty-nine of resets.
    sql = "SELECT robots, terminated, successes, round(control_hours * 60, 6), round(terminated_per_hour, 6), "
    sql += "round(successes_per_hour, 6) FROM throughput_by_hour WHERE task = 'push' ORDER BY hour"
    assert rows(analyst, sql) == [
        (2, 6, 2, 1.0, 360.0, 120.0),
        (2, 1, 1, round(20 / 60, 6), 180.0, 180.0),
    ]


def test_human_effort_is_counted_for_each_version(analyst: Client) -> None:
    sql = "SELECT policy_version, episodes, interventions, interventions_per_episode, human_share, "
    sql += "mean_steps_between_interventions FROM human_effort ORDER BY policy_version"
    assert rows(analyst, sql) == [
        (0, 4, 0, 0.0, 0.0, None),
        (1, 4, 2, 0.5, 0.125, 175.0),
        (2, 4, 0, 0.0, 0.0, None),
        (3, 1, 1, 1.0, 0.4, 60.0),
        (4, 1, 0, 0.0, 0.0, None),
    ]
    assert rows(analyst, "SELECT sum(interventions), sum(human_steps) FROM human_effort_by_hour") == [(3, 90)]


def test_the_return_on_human_effort_credits_help_to_later_versions_only(analyst: Client) -> None:
    sql = "SELECT policy_version, judged, round(autonomous_success_rate, 4), human_steps_before, "
    sql += "round(gain_points, 2), round(points_per_1000_human_steps, 2) FROM return_on_human_effort WHERE task = "
    assert rows(analyst, f"{sql}'push' ORDER BY policy_version") == [
        (0, 4, 0.25, 0, 0.0, None),
        (1, 3, 0.3333, 0, 8.33, None),
    ]
    # Help at another task is not counted; that of version 3 is, although nobody judged what came of it.
    assert rows(analyst, f"{sql}'lift' ORDER BY policy_version") == [
        (2, 4, 0.75, 0, 0.0, None),
        (4, 1, 1.0, 40, 25.0, 625.0),
    ]


def test_a_recovery_is_a_success_after_a_takeover(analyst: Client) -> None:
    sql = "SELECT task, policy_version, taken_over, judged, recovered, recovery_rate, human_steps_per_episode"
    assert rows(analyst, f"{sql} FROM recoveries ORDER BY policy_version") == [
        ("push", 1, 2, 2, 1, 0.5, 25.0),
        ("lift", 3, 1, 0, 0, None, 40.0),
    ]


def test_time_to_success_is_the_first_full_window_that_reaches_the_target_without_help(analyst: Client) -> None:
    sql = "SELECT reached_at, seconds, simulated_seconds, episodes, policy_version FROM"
    # push: 0 0 0 1 h 0 1, where h is the success of a human. With it two of four would succeed by the fifth, and
    # three by the seventh.
    where = "WHERE task = 'push'"
    reached = rows(analyst, f"{sql} time_to_success(target = 0.25, window = 4) {where}")
    assert reached == [(at(35), 35 * 60, 180.0, 4, 0)]
    reached = rows(analyst, f"{sql} time_to_success(target = 0.5, window = 4) {where}")
    assert reached == [(at(65), 65 * 60, 360.0, 7, 1)]
    for call in ("target = 0.75, window = 4", "target = 0.9, window = 4", "target = 0.1, window = 8"):
        assert rows(analyst, f"{sql} time_to_success({call}) {where}") == [(None,) * 5], call


def test_latency_is_measured_from_stage_to_stage(analyst: Client) -> None:
    found = rows(
        analyst,
        "SELECT version, published_at, active_at FROM episode_latency "
        f"WHERE episode_id IN ('{episode_id(3)}', '{episode_id(4)}', '{episode_id(13)}') ORDER BY episode_id",
    )
    # Episode 3 ended at minute 35, before version 1 at 39; episode 4 at 45. Evaluations are never seen.
    assert found == [
        (1, at(39), at(39, 500)),
        (2, at(79), at(79, 500)),
        (None, None, None),
    ]
    found = rows(
        analyst,
        "SELECT stage, episodes, p50_ms, p95_ms, p99_ms FROM latency_by_hour "
        f"WHERE hour = '{at(0):%F %T}' AND source = 'ONLINE'",
    )
    stages = {stage: numbers for stage, *numbers in found}
    assert stages["captured_to_kafka"] == [6, 100.0, 100.0, 100.0]
    assert stages["kafka_to_materialized"] == [6, 200.0, 200.0, 200.0]
    assert stages["materialized_to_seen"] == [6, 1000.0, 1000.0, 1000.0]
    assert stages["published_to_active"] == [6, 500.0, 500.0, 500.0]
    # Hour 10 has an evaluation and a demonstration besides an online episode that nobody excluded.
    sql = f"SELECT source, stage, episodes FROM latency_by_hour WHERE hour = '{at(120):%F %T}' AND stage IN "
    assert rows(analyst, f"{sql} ('captured_to_kafka', 'materialized_to_seen') ORDER BY source, stage") == [
        ("ONLINE", "captured_to_kafka", 1),
        ("ONLINE", "materialized_to_seen", 1),
        ("DEMONSTRATION", "captured_to_kafka", 1),
        ("DEMONSTRATION", "materialized_to_seen", 1),
        ("EVALUATION", "captured_to_kafka", 1),
    ]
    # Episodes 0 to 5 waited 34, 24, 14, 4, 34 and 24 minutes, less 1.3 seconds.
    assert stages["seen_to_published"][:2] == [6, 24 * 60_000 - 1300]


def test_a_policy_is_as_stale_as_its_successor_is_old(analyst: Client) -> None:
    sql = "SELECT policy_version, newest_version, versions_behind, seconds_behind FROM policy_staleness"
    assert rows(analyst, f"{sql} WHERE episode_id = '{episode_id(4)}'") == [(1, 1, 0, 0.0)]
    assert rows(analyst, f"{sql} WHERE episode_id = '{episode_id(7)}'") == [(1, 1, 0, 0.0)]
    sql = "SELECT sum(episodes), min(newest_share), max(max_versions_behind) FROM staleness_by_hour"
    assert rows(analyst, sql) == [(10, 1.0, 0)]


def test_an_episode_by_an_old_policy_is_told_how_old(database: ClickHouseSettings, analyst: Client) -> None:
    other = database.model_copy(update={"database": "infra_analytics_stale"})
    migrate(other)
    client = connect(other)
    stale = world.episode(12, policy_versions=(1,))
    world.insert(client, [stale, *world.versions()])
    sql = "SELECT newest_version, versions_behind, seconds_behind FROM policy_staleness"
    assert rows(client, sql) == [(3, 2, 41 * 60.0)]
    assert rows(client, "SELECT newest_share, max_versions_behind FROM staleness_by_hour") == [(0.0, 2)]
    world.insert(client, [world.episode(2, policy_versions=(1,))])  # began before version 1 was there
    assert rows(client, "SELECT count() FROM policy_staleness") == [(1,)]
    of_view = "FROM system.tables WHERE name = 'policy_staleness' AND database = currentDatabase()"
    [(said,)] = rows(client, f"SELECT comment {of_view}")
    assert "but for those that began" in str(said)

    # Versions 1, 2 and 4 drew from 16 episodes, of which two have a row.
    columns = ("task", "robot_id", "source", "success", "excluded", "human_step_count", "started_at")
    nothing = " AND ".join(f"{column} IS NULL" for column in columns)
    for view in ("lineage_of_version", "lineage_to_version"):
        source = f"{view}(policy = '{POLICY}', version = 4)"
        assert rows(client, f"SELECT count(), countIf({nothing}) FROM {source}") == [(16, 14)], view
        sql = f"SELECT task, source, excluded, human_step_count, started_at FROM {source} WHERE episode_id ="
        assert rows(client, f"{sql} '{episode_id(2)}'") == [("push", "ONLINE", False, 0, at(20))]
    client.close()


def test_a_target_that_is_reached_exactly_is_reached(database: ClickHouseSettings) -> None:
    other = database.model_copy(update={"database": "infra_analytics_retold"})
    migrate(other)
    client = connect(other)
    # In floating point 0.55 * 100 is more than 55, and 0.07 * 100 more than 7.
    for task, wins, first in (("wipe", 55, 100), ("stack", 7, 200)):
        changes = {"task": task, "policy_versions": ()}
        world.insert(client, [world.episode(first + n, success=n < wins, **changes) for n in range(100)])
        for more, reached in ((0, 100), (1, None)):
            call = f"time_to_success(target = {(wins + more) / 100}, window = 100)"
            assert rows(client, f"SELECT episodes FROM {call} WHERE task = '{task}'") == [(reached,)]
    client.close()


def test_lineage_is_read_both_ways(analyst: Client) -> None:
    sql = f"FROM {CALLS['lineage_of_version']}"
    assert rows(analyst, f"SELECT count(), sum(draws), round(sum(share), 9) {sql}") == [(8, 44, 1.0)]
    sql = f"SELECT draws, task, success, human_step_count {sql}"
    assert rows(analyst, f"{sql} WHERE episode_id = '{episode_id(5)}'") == [(7, "push", False, 30)]
    found = rows(analyst, f"SELECT version, how, draws FROM {CALLS['lineage_of_episode']} ORDER BY how, version")
    assert found == [(1, "acted", None), (2, "trained", 6), (3, "trained", 7), (4, "trained", 8)]


def test_what_made_a_version_is_what_made_its_ancestors_and_not_what_was_rolled_back(analyst: Client) -> None:
    sql = f"FROM {CALLS['lineage_to_version']}"
    # Versions 1, 2 and 4 drew n + version samples of each of 4, 8 and 16 episodes; version 3 is no ancestor of 4.
    assert rows(analyst, f"SELECT count(), sum(draws), round(sum(share), 9) {sql}") == [(16, 238, 1.0)]
    sql = f"SELECT versions, first_version, last_version, draws, task {sql} WHERE episode_id ="
    assert rows(analyst, f"{sql} '{episode_id(0)}'") == [(3, 1, 4, 7, "push")]
    assert rows(analyst, f"{sql} '{episode_id(11)}'") == [(1, 4, 4, 15, "lift")]
    sql = f"SELECT count() FROM lineage_to_version(policy = '{POLICY}', version = 3)"
    assert rows(analyst, sql) == [(12,)]


def test_a_version_whose_draws_are_told_again_was_made_from_the_last(database: ClickHouseSettings) -> None:
    other = database.model_copy(update={"database": "infra_analytics_retold"})
    migrate(other)
    client = connect(other)
    told = [event for event in world.versions() if isinstance(event, TrainingLineage)][1]
    before = told.model_copy(
        update={
            "reported_at": at(10),
            "episodes": (EpisodeDraws(episode_id=episode_id(11), revision=1, draws=99), *told.episodes),
        }
    )
    for event in (told, before):
        world.insert(client, [event])
    for view in (CALLS["lineage_of_version"], "training_lineage"):
        assert rows(client, f"SELECT count(), sum(draws) FROM {view}") == [(8, 44)]
    # Of the three that were told, version 2 counts as it was told last.
    sql = f"SELECT version, draws FROM lineage_of_episode(episode_id = '{episode_id(11)}')"
    assert rows(client, sql) == []
    sql = f"SELECT version, draws FROM lineage_of_episode(episode_id = '{episode_id(4)}')"
    assert rows(client, sql) == [(2, 6)]
    client.close()


def test_bad_data_is_counted_by_its_kind(analyst: Client) -> None:
    sql = "SELECT robot_id, sum(episodes), sum(truncated), sum(timed_out), sum(unjudged), sum(revised), "
    sql += (
        "sum(with_gaps), sum(missing_events), sum(rejected_events), sum(frames_dropped) FROM data_quality_by_hour "
    )
    sql += "GROUP BY robot_id"
    assert rows(analyst, f"{sql} ORDER BY robot_id") == [
        ("robot-0", 9, 0, 0, 0, 2, 0, 0, 2, 7),
        ("robot-1", 8, 2, 1, 2, 0, 1, 3, 0, 0),
    ]
    sql = "SELECT reason, letters, robots, example FROM dead_letters_by_hour ORDER BY letters"
    assert rows(analyst, sql) == [
        ("bad_id", 1, 1, "not a step v1 at 3"),
        ("undecodable", 3, 2, "not a step v1 at 0"),
    ]
    sql = "SELECT robot_id, sum(heartbeats), max(max_spool_depth), sum(frames_dropped) FROM robot_health_by_hour "
    # Four heartbeats, half an hour apart: the count grew within each of the two hours, and between them.
    assert rows(analyst, f"{sql} GROUP BY robot_id ORDER BY robot_id") == [
        ("robot-0", 4, 3, 20),
        ("robot-1", 4, 3, 20),
    ]
