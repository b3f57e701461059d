"""What labels say shows in every view that speaks of success, and who said it shows in one."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime

import pytest

from infra.clickhouse.client import Client, connect
from infra.clickhouse.migrate import migrate
from infra.clickhouse.summing import forget_sums, sum_days
from infra.settings import ClickHouseSettings, Settings
from schemas.events import Admission, EpisodeMaterialized, TrainingProgress, Verdict
from tests.infra.clickhouse import world
from tests.infra.clickhouse.world import at, episode, helped, label, labelled

COUNTED = {
    "success_by_task": "sum(episodes)",
    "success_by_robot": "sum(episodes)",
    "success_by_policy_version": "sum(episodes)",
    "success_by_hour": "sum(episodes)",
    "throughput_by_hour": "sum(terminated)",
    "human_effort": "sum(episodes)",
    "human_effort_by_hour": "sum(episodes)",
    "return_on_human_effort": "sum(judged)",
    "recoveries": "sum(taken_over)",
    "interventions": "countIf(NOT excluded)",
    "episode_latency": "count()",
    "latency_by_hour": "max(episodes)",
    "episode_outcomes": "count()",
}
FAILED = label(1, "ann", "the lid was open", verdict=Verdict.FAILED)
OUT = label(2, "bob", "camera was covered", excluded=True)
IN = label(3, "ann", "it was not", excluded=False)


@pytest.fixture
def database(settings: Settings) -> ClickHouseSettings:
    made = settings.clickhouse.model_copy(update={"database": "infra_labels"})
    migrate(made)
    return made


@pytest.fixture
def client(database: ClickHouseSettings) -> Iterator[Client]:
    """The writer, with two episodes of one task in which a human took over."""
    made = connect(database)
    world.insert(made, [helped(8, steps=5), helped(9, steps=5)])
    yield made
    for (table,) in made.query("SHOW TABLES LIKE 'raw_%'").result_rows:
        made.command(f"TRUNCATE TABLE {table}")
    made.close()


def admitted(of: list[EpisodeMaterialized], seen_at: datetime) -> TrainingProgress:
    """The learner's word that it read these announcements."""
    seen = tuple(Admission(episode_id=e.episode_id, revision=e.revision, seen_at=seen_at) for e in of)
    progress: TrainingProgress = world.golden(TrainingProgress)
    return progress.model_copy(update={"policy": world.POLICY, "admitted": seen, "reported_at": seen_at})


def tell(client: Client, *events: EpisodeMaterialized) -> None:
    for event in events:
        world.insert(client, [event])


def counts(client: Client) -> dict[str, int]:
    return {view: client.query(f"SELECT {what} FROM {view}").result_rows[0][0] for view, what in COUNTED.items()}


def test_sums_of_a_day_are_right_before_and_after_a_label_and_when_they_are_made_again(client: Client) -> None:
    """Counted by task, version and help; a group that is no more, and a task, go with their last episode."""
    other = helped(10, steps=7, task="wipe", policy_versions=(3,))
    tell(client, other)
    views = (
        "success_by_task",
        "success_by_policy_version",
        "human_effort",
        "return_on_human_effort",
        "recoveries",
    )

    def shown() -> list[object]:
        return [client.query(f"SELECT * FROM {view} ORDER BY ALL").result_rows for view in views]

    plain = shown()
    assert sum_days(client, quiet=3600) == 0, "a day that changes is left alone"
    assert sum_days(client, quiet=0) == 1
    assert client.query("SELECT countIf(NOT summed) FROM outcome_days").result_rows == [(0,)]
    assert shown() == plain
    assert client.query("SELECT sum(length(sums)) FROM raw_outcome_sums FINAL").result_rows == [(2,)]
    tell(client, labelled(9, FAILED, success=False))
    tell(client, labelled(10, OUT, task="wipe", policy_versions=(3,), excluded=True))
    changed = shown()
    assert changed != plain
    assert [row[0] for row in client.query("SELECT task FROM success_by_task").result_rows] == ["lift"]
    assert sum_days(client, quiet=0) == 1
    assert shown() == changed
    for event in (helped(8, steps=5), other):  # what is older and comes again changes nothing
        tell(client, event)
    assert shown() == changed
    assert sum_days(client, quiet=0) == 1
    assert shown() == changed


def test_after_a_deletion_nothing_of_what_was_summed_counts(client: Client) -> None:
    """Nor of what somebody summed meanwhile, and stores after the sums were forgotten."""
    tell(client, helped(10, steps=7, task="wipe"))
    assert sum_days(client, quiet=0) == 1
    client.command("CREATE TABLE late ENGINE = Memory AS SELECT * FROM raw_outcome_sums FINAL")
    client.command("ALTER TABLE raw_episodes DELETE WHERE task = 'wipe'", settings={"mutations_sync": 1})
    forget_sums(client)
    client.command("INSERT INTO raw_outcome_sums SELECT * FROM late")
    client.command("DROP TABLE late")
    sums = "SELECT task, sum(s.episodes) FROM outcome_sums AS s GROUP BY task"
    for _ in range(2):
        assert client.query(sums).result_rows == [("lift", 2)]
        sum_days(client, quiet=0)
    assert client.query("SELECT countIf(NOT summed) FROM outcome_days").result_rows == [(0,)]


@pytest.mark.parametrize("newest_first", [True, False])
def test_an_excluded_episode_counts_in_no_rate_and_is_there_as_excluded(
    client: Client, *, newest_first: bool
) -> None:
    revisions = [helped(10, steps=5), labelled(10, OUT, excluded=True)]
    tell(client, *(revisions[::-1] if newest_first else revisions))
    assert counts(client) == dict.fromkeys(COUNTED, 2)
    shown = "SELECT success, recorded_success, excluded FROM episodes WHERE excluded"
    assert client.query(shown).result_rows == [(True, True, True)]
    quality = "SELECT sum(episodes), sum(labelled), sum(overruled), sum(excluded) FROM data_quality_by_hour"
    assert client.query(quality).result_rows == [(3, 1, 0, 1)]
    tell(client, labelled(10, OUT, IN).model_copy(update={"revision": 3}))
    assert counts(client) == dict.fromkeys(COUNTED, 3)


def test_a_label_s_verdict_is_the_success_of_every_view(client: Client) -> None:
    rate = "SELECT successes, judged FROM success_by_task"
    assert client.query(rate).result_rows == [(2, 2)]
    tell(client, labelled(9, FAILED, success=False))
    assert client.query(rate).result_rows == [(1, 2)]
    assert client.query("SELECT recorded_success FROM episodes WHERE NOT success").result_rows == [(True,)]
    assert client.query("SELECT sum(overruled) FROM data_quality_by_hour").result_rows == [(1,)]


def test_who_said_what_when_and_why_is_one_row_for_each_label(client: Client) -> None:
    for _ in range(2):
        tell(client, labelled(9, FAILED, OUT, IN, success=False))
    sql = "SELECT author, reason, verdict, excludes, counts, labelled_at FROM episode_labels ORDER BY labelled_at"
    assert client.query(sql, tz_mode="aware").result_rows == [
        ("ann", "the lid was open", "FAILED", None, True, at(1441)),
        ("bob", "camera was covered", None, True, False, at(1442)),
        ("ann", "it was not", None, False, True, at(1443)),
    ]


def test_labelling_everything_changes_no_latency(client: Client) -> None:
    """A label comes in a revision that is announced, and read by the learner, long after the recording."""
    recorded = [episode(8), episode(9)]
    world.insert(client, [admitted(recorded, at(100)), *world.versions()])

    def latency() -> list[Sequence[Sequence[object]]]:
        sql = "SELECT * FROM (SELECT * FROM {view} ORDER BY ALL)"
        return [client.query(sql.format(view=v)).result_rows for v in ("episode_latency", "latency_by_hour")]

    before = latency()
    assert [len(found) for found in before] == [2, 6]
    labels = [labelled(n, FAILED, success=False, materialized_at=at(1441)) for n in (8, 9)]
    tell(client, *labels)
    world.insert(client, [admitted(labels, at(1442))])
    assert latency() == before
    client.command("OPTIMIZE TABLE raw_episodes FINAL")
    tell(client, *labels, *recorded)
    assert latency() == before


def test_announcements_that_know_no_labels_recorded_what_they_say(client: Client) -> None:
    tell(client, episode(11, success=False))
    found = client.query("SELECT success, recorded_success FROM episodes ORDER BY episode_id").result_rows
    assert found == [(True, True), (True, True), (False, False)]
