"""New lines from the past: by time, by SQL, and from S3 once the topic's records are deleted."""

from __future__ import annotations

import io
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from consumers.facts import EpisodeFacts
from consumers.payload import METADATA_KEY
from consumers.rows import rows_of
from infra.clickhouse.client import connect
from infra.clickhouse.migrate import migrate
from infra.local.stack import Stack
from infra.object_store import sha256_hex
from infra.settings import LearnerSettings, Settings
from learner.backfill import backfill
from learner.choice import Choice, Offsets
from learner.chosen import find_episodes
from learner.errors import LineExists, OtherChoice
from learner.patience import Patience, Stopped
from learner.recovered import NOWHERE, choose_episodes
from learner.reproduce import replay
from schemas.events import EpisodeSource
from schemas.topics import TOPICS, TRAINING_EPISODES
from tests import preloaded
from tests.infra.clickhouse.test_views import insert
from tests.learner.integration.site import Site, steps_told, terminate
from tests.learner.synthetic import Synthetic, make_episode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

EPISODES = [
    *(make_episode(n, source=EpisodeSource.DEMONSTRATION, steps=12) for n in range(2)),
    *(make_episode(10 + n, human=None, steps=15, success=n % 2 == 0) for n in range(6)),
    make_episode(30, task="lift", steps=20, human=(3, 9)),
    make_episode(40, source=EpisodeSource.EVALUATION, steps=9),
]
PATIENCE = Patience(threading.Event())
CRASH = "tests.learner.integration.crash"
REVISED = make_episode(10, human=None, steps=18, revision=2)


def with_metadata(made: Synthetic) -> Synthetic:
    """As the materializer stores it: the file's own metadata repeat the announcement."""
    fields = {name: value for name, value in made.event if name in EpisodeFacts.model_fields}
    table = pq.read_table(io.BytesIO(made.payload))
    metadata = {METADATA_KEY: EpisodeFacts(**fields, events=()).model_dump_json().encode()}
    out = io.BytesIO()
    pq.write_table(table.replace_schema_metadata(metadata), out)
    data = out.getvalue()
    digest = sha256_hex(data)
    uri = f"s3://sop/episodes/{made.event.episode_id}/{made.event.revision}-{digest}.parquet"
    update = {"payload_sha256": digest, "payload_bytes": len(data), "payload_uri": uri}
    return Synthetic(made.event.model_copy(update=update), data)


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Site, list[Synthetic]]]:
    directory: Path = tmp_path_factory.mktemp("backfill")
    with Stack.start(directory / "stack", timeout=300) as stack:
        site = Site(stack, directory)
        migrate(site.settings.clickhouse)
        made = [with_metadata(item) for item in (*EPISODES, REVISED)]
        site.put(made)
        client = connect(site.settings.clickhouse)
        places = {item.event.payload_sha256: item for item in choose_episodes(site.settings, Choice(), PATIENCE)}
        for item in made:
            place = places.get(item.event.payload_sha256)
            insert(client, rows_of(item.event, place.partition if place else 0, place.offset if place else 0))
        yield site, made


def command(site: Site, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return program(site, ("sop",), *arguments, **environment)


def program(
    site: Site, name: tuple[str, ...], *arguments: str, **environment: str
) -> subprocess.CompletedProcess[str]:
    settings = {"HIDDEN": "[16]", "BATCH_SIZE": "16", "RECAP_VALUE_STEPS": "20"}
    given = {f"SOP_LEARNER__{name}": value for name, value in settings.items()} | environment
    return preloaded.run((*name, "backfill", *arguments), site.environment | given)


def trained_as(site: Site, policy: str, steps: int = 30) -> Settings:
    """What `command` trains a line with."""
    changes = {"policy": policy, "algorithm": "recap", "hidden": (16,), "batch_size": 16, "recap_value_steps": 20}
    learner = LearnerSettings.model_validate(
        site.settings.learner.model_dump() | changes | {"pretrain_steps": steps, "pretrain_episodes": 1}
    )
    return site.settings.model_copy(update={"learner": learner})


def chosen(site: Site, choice: Choice) -> dict[str, tuple[int, int]]:
    found = choose_episodes(site.settings, choice, Patience(threading.Event()))
    return {item.event.episode_id: (item.event.revision, item.partition) for item in found}


def ids(*made: Synthetic) -> set[str]:
    return {item.event.episode_id for item in made}


def test_newest_revisions_are_chosen_by_time_and_by_sql_and_never_an_evaluation(
    past: tuple[Site, list[Synthetic]],
) -> None:
    site, made = past
    everything = chosen(site, Choice())
    assert set(everything) == ids(*EPISODES[:-1])
    assert everything[REVISED.event.episode_id][0] == 2
    assert chosen(site, Choice(where="true")).keys() == everything.keys()
    lifts = chosen(site, Choice(where="task = 'lift' -- a remark"))
    assert set(lifts) == ids(EPISODES[8])
    early = Choice(until=made[4].event.appended_at)
    assert set(chosen(site, early)) == ids(*EPISODES[:2], *EPISODES[3:4]) | ids(*EPISODES[2:3])
    late = Choice(since=made[8].event.appended_at, where="success")
    assert set(chosen(site, late)) == ids(EPISODES[8])


def test_offsets_choose_the_same_from_the_topic_and_from_the_rows(past: tuple[Site, list[Synthetic]]) -> None:
    site, _ = past
    everything = choose_episodes(site.settings, Choice(), PATIENCE)
    partition = everything[0].partition
    assert {item.partition for item in everything} == {partition}, "one robot, one partition"
    offsets = sorted(item.offset for item in everything)
    middle, end = offsets[3], offsets[6]
    wanted = {item.event.episode_id for item in everything if middle <= item.offset < end}
    assert len(wanted) == 3
    for where in (None, "true"):
        for first, past_it in (
            (Offsets.parse(f"@{middle}"), Offsets.parse(f"{partition}@{end}")),
            (Offsets.parse(f"{partition}@{middle},{partition + 1}@0"), Offsets.parse(f"@{end}")),
        ):
            assert first is not None
            assert past_it is not None
            assert set(chosen(site, Choice(where, first=first, past=past_it))) == wanted
    told = command(site, "--policy", "dry", "--dry-run", "--from", f"@{middle}", "--to", f"{partition}@{end}")
    assert told.returncode == 0, told.stderr
    counts = [line.split() for line in told.stdout.splitlines() if " all " in f" {line} "]
    assert "3" in counts[0], told.stdout
    twice = command(site, "--policy", "dry", "--dry-run", "--from", "1@2,1@3")
    assert twice.returncode == 2
    assert "twice" in twice.stderr


def test_what_a_label_excludes_is_not_chosen_until_it_is_included_again(
    past: tuple[Site, list[Synthetic]],
) -> None:
    site, made = past
    before = chosen(site, Choice())
    for revision, excluded in ((2, True), (3, False)):
        event = made[5].event.model_copy(update={"revision": revision, "excluded": excluded})
        site.put([Synthetic(event, made[5].payload)], payload=False)
        client = connect(site.settings.clickhouse)
        insert(client, rows_of(event, 0, 0))
        client.close()
        left_out = {event.episode_id} if excluded else set()
        for choice in (Choice(), Choice(where="true"), Choice(where="not excluded")):
            assert chosen(site, choice).keys() == before.keys() - left_out


def test_a_dry_run_counts_and_trains_nothing_and_wrong_use_is_said_in_one_line(
    past: tuple[Site, list[Synthetic]],
) -> None:
    site, _ = past
    told = command(site, "--policy", "dry", "--dry-run", "--where", "task = 'lift'")
    assert told.returncode == 0, told.stderr
    assert " 20 " in told.stdout
    assert site.versions("dry") == []
    assert site.store.list("journals/dry/") == []
    for code, arguments in (
        (2, ("--policy", "default")),
        (2, ("--policy", "x y")),
        (2, ("--policy", "new", "--from", "yesterday")),
        (1, ("--policy", "new", "--where", "no_such_column = 1")),
        (1, ("--policy", "new", "--where", "false")),
    ):
        failed = command(site, *arguments)
        assert failed.returncode == code, (arguments, failed.stderr)
        assert failed.stderr.strip().splitlines()[-1].startswith("error: "), failed.stderr
        assert "Traceback" not in failed.stderr


def test_a_backfill_that_is_interrupted_goes_on_from_where_it_was_with_the_same_bits(
    past: tuple[Site, list[Synthetic]],
) -> None:
    site, _ = past
    found = choose_episodes(site.settings, Choice(), PATIENCE)
    straight = backfill(trained_as(site, "straight"), found, threading.Event())
    for _ in range(2):
        stop, steps = threading.Event(), list[int]()

        def told(
            what: str, step: int, _all: int | None, stop: threading.Event = stop, steps: list[int] = steps
        ) -> None:
            if what == "training":
                steps.append(step)
            if len(steps) == 12:
                stop.set()

        with pytest.raises(Stopped):
            backfill(trained_as(site, "broken"), found, stop, told, save_every=0.0)
    assert steps[0] == 12, "the update after the last snapshot, which was not whole when the stop came"
    rest: list[int] = []

    def heard(what: str, step: int, _all: int | None) -> None:
        if what == "training":
            rest.append(step)

    done = backfill(trained_as(site, "broken"), found, threading.Event(), heard)
    assert rest[-1] == 30
    assert len(rest) < 12
    assert done.sha256 == straight.sha256
    drawn = [
        {e.episode_id: e.draws for e in site.lineage(policy)[-1].episodes} for policy in ("straight", "broken")
    ]
    assert drawn[0] == drawn[1]
    assert sum(drawn[0].values()) == 30 * 16
    assert site.store.list("halfway/") == []
    assert replay(site.settings, "broken", 1).equal
    assert steps_told(site.progress("broken")) == set(range(1, 31)), "a snapshot is not ahead of what was told"


def test_a_backfill_killed_around_its_announcement_publishes_one_version_and_leaves_nothing_behind(
    past: tuple[Site, list[Synthetic]],
) -> None:
    site, _ = past
    found = choose_episodes(site.settings, Choice(), PATIENCE)
    killed = program(site, (CRASH, "announcement", "1"), "--policy", "last", "--steps", "30")
    assert killed.returncode == -9, killed.stderr
    assert site.store.list("halfway/") == ["halfway/last.json"]
    with pytest.raises(OtherChoice, match=r"other settings \(pretrain_steps\)"):
        backfill(trained_as(site, "last", steps=31), found, threading.Event())
    assert site.versions("last") == []
    done = backfill(trained_as(site, "last"), found, threading.Event())
    (only,) = site.versions("last")
    assert (done.version, done.sha256, done.learner_step) == (1, only.sha256, 30)
    assert site.store.list("halfway/") == []

    for name in ("json", "safetensors"):  # killed later, once its version was announced
        site.store.put(f"halfway/last.{name}", b"")
    with pytest.raises(LineExists):
        backfill(trained_as(site, "last"), found, threading.Event())
    assert site.store.list("halfway/") == []


def test_a_backfill_leaves_a_live_line_and_all_that_is_its_as_they_were(
    past: tuple[Site, list[Synthetic]],
) -> None:
    site, _ = past
    with site.learner("beside", {"PRETRAIN_EPISODES": "2"}) as process:
        site.wait_for_version("beside", 2)
        assert terminate(process, within=120.0) == 0
    admin = AdminClient({"bootstrap.servers": site.settings.kafka.bootstrap_servers})

    def groups() -> set[str]:
        return {group.group_id for group in admin.list_consumer_groups(request_timeout=30.0).result().valid}

    def objects() -> dict[str, str]:
        folders = [f"{kind}/beside/" for kind in ("policies", "checkpoints", "journals")]
        kept = {folder: site.store.list(folder) for folder in folders}
        assert all(kept.values())
        return {key: sha256_hex(site.store.get(key)) for keys in kept.values() for key in keys}

    before = site.versions("beside"), objects(), groups()
    done = command(site, "--policy", "apart", "--steps", "20", SOP_LEARNER__POLICY="beside")
    assert done.returncode == 0, done.stderr
    assert [version.policy for version in site.versions("apart")] == ["apart"]
    assert (site.versions("beside"), objects(), groups()) == before


def test_a_line_from_sql_is_the_same_from_s3_once_the_topics_records_are_deleted(
    past: tuple[Site, list[Synthetic]],
) -> None:
    site, _ = past
    arguments = ("--where", "task = 'push'", "--steps", "30")
    first = command(site, "--policy", "kept", *arguments)
    assert first.returncode == 0, first.stderr
    (kept,) = site.versions("kept")
    assert kept.algorithm == "recap"
    ends = find_episodes(site.settings, Choice(), PATIENCE).ends
    assert {position.partition: position.offset for position in kept.offsets} == ends
    assert sum(ends.values()) > len(EPISODES), "a learner goes on behind what was not chosen"
    assert kept.episodes_admitted == 8
    assert replay(site.settings, "kept", 1).equal
    again = command(site, "--policy", "kept", *arguments)
    assert again.returncode == 2, "a backfill never adds to a line"
    other = command(site, "--policy", "relabelled", *arguments, "--relabel-threshold", "0.9")
    assert other.returncode == 0, other.stderr

    admin = AdminClient({"bootstrap.servers": site.settings.kafka.bootstrap_servers})
    partitions = [TopicPartition(TRAINING_EPISODES, n, -1) for n in range(TOPICS[TRAINING_EPISODES].partitions)]
    for future in admin.delete_records(partitions).values():
        future.result(30.0)
    found = choose_episodes(site.settings, Choice(), Patience(threading.Event()))
    assert {item.partition for item in found} == {NOWHERE}
    assert ids(*EPISODES[:-1]) == {item.event.episode_id for item in found}
    gone = command(site, "--policy", "from-s3", *arguments)
    assert gone.returncode == 0, gone.stderr
    (from_s3,) = site.versions("from-s3")
    (relabelled,) = site.versions("relabelled")
    assert from_s3.sha256 == kept.sha256
    assert relabelled.sha256 != kept.sha256
    assert json.loads(relabelled.config)["recap_positive_share"] == 0.9
