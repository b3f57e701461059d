"""What a backfill is made from when topic, index and bucket do not agree, and when it is called again."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient

from consumers.rows import rows_of
from infra.clickhouse.client import connect
from infra.clickhouse.migrate import migrate
from infra.local.stack import Stack
from infra.settings import LearnerSettings, Settings
from learner.backfill import backfill
from learner.choice import Choice
from learner.chosen import find_episodes
from learner.errors import OtherChoice
from learner.patience import Patience, Stopped
from learner.recovered import NOWHERE, choose_episodes, read_episodes
from learner.rerun import readings
from learner.stream import Received
from learner.unfinished import Begun, Unfinished
from schemas.events import EpisodeMaterialized, EpisodeSource
from schemas.topics import TRAINING_EPISODES
from tests.infra.clickhouse.test_views import insert
from tests.learner.integration.site import Site
from tests.learner.integration.test_backfill import command, ids, with_metadata
from tests.learner.synthetic import START, make_episode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

PATIENCE = Patience(threading.Event())
DEMONSTRATIONS = [make_episode(n, source=EpisodeSource.DEMONSTRATION, steps=12) for n in range(2)]
LOST = make_episode(10, human=None, steps=17)
REVISED = make_episode(11, human=None, steps=15)
ONLINE = [make_episode(12 + n, human=None, steps=15, success=n % 2 == 0) for n in range(3)]
REVISION = make_episode(11, human=None, steps=19, revision=2)
UNSEEN = make_episode(20, human=(3, 9), steps=20)
ALL = [*DEMONSTRATIONS, LOST, REVISED, *ONLINE, UNSEEN]
GONE = 3
"""So many of the first announcements are deleted from the topic."""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Retention has taken the first announcements; the index lags, once by a revision; one payload is gone."""
    directory: Path = tmp_path_factory.mktemp("choices")
    with Stack.start(directory / "stack", timeout=300) as stack:
        site = Site(stack, directory)
        migrate(site.settings.clickhouse)
        made = [with_metadata(item) for item in [*ALL[:-1], REVISION, UNSEEN]]
        site.put(made)
        client = connect(site.settings.clickhouse)
        announced = {item.event.episode_id: item for item in choose_episodes(site.settings, Choice(), PATIENCE)}
        for item in made[:-2]:
            place = announced[item.event.episode_id]
            insert(client, rows_of(item.event, place.partition, place.offset))
        client.close()
        partition = announced[UNSEEN.event.episode_id].partition
        admin = AdminClient({"bootstrap.servers": site.settings.kafka.bootstrap_servers})
        beginning = TopicPartition(TRAINING_EPISODES, partition, GONE)
        for future in admin.delete_records([beginning]).values():
            future.result(30.0)
        lost = next(item for item in made if item.event.episode_id == LOST.event.episode_id)
        site.store.delete(site.store.key(lost.event.payload_uri))
        yield site


def settings_of(site: Site, policy: str) -> Settings:
    changes = {"policy": policy, "algorithm": "recap", "hidden": (16,), "batch_size": 16, "recap_value_steps": 20}
    learner = LearnerSettings.model_validate(
        site.settings.learner.model_dump() | changes | {"pretrain_steps": 30, "pretrain_episodes": 1}
    )
    return site.settings.model_copy(update={"learner": learner})


def interrupt(site: Site, policy: str, chosen: list[Received[EpisodeMaterialized]], call: Begun | None) -> None:
    """Train a few updates of this line's first version, and be stopped."""
    stop = threading.Event()

    def told(what: str, done: int, _all: int | None) -> None:
        if what == "training" and done == 5:
            stop.set()

    with pytest.raises(Stopped):
        backfill(settings_of(site, policy), chosen, stop, told, call=call, save_every=0.0)


def test_what_the_topic_holds_is_chosen_though_the_index_lags_in_its_newest_revision(site: Site) -> None:
    found = find_episodes(site.settings, Choice(), PATIENCE)
    assert len(found.episodes) == len(ALL)
    held = {item.event.episode_id: item.event for item in found.episodes if isinstance(item, Received)}
    assert set(held) == ids(*ALL[GONE:])
    assert held[REVISED.event.episode_id].revision == 2
    assert (found.newer, found.unseen) == (0, 0)
    late = Choice(since=START + timedelta(seconds=18))
    assert [item.event.episode_id for item in choose_episodes(site.settings, late, PATIENCE)] == [
        UNSEEN.event.episode_id
    ]


def test_a_predicate_speaks_of_the_index_s_rows_and_it_is_said_what_it_does_not_see(site: Site) -> None:
    found = find_episodes(site.settings, Choice(where="step_count = 15"), PATIENCE)
    taken = [item for item in found.episodes if isinstance(item, Received)]
    assert {item.event.episode_id for item in taken} == ids(REVISED, *ONLINE)
    assert {item.event.step_count for item in taken} == {15, 19}
    assert (found.newer, found.unseen) == (1, 1)
    told = command(site, "--policy", "dry", "--dry-run", "--where", "step_count = 15")
    assert told.returncode == 0, told.stderr
    assert "note: 1 episodes have a newer revision" in told.stdout
    assert "note: 1 episodes are in Kafka and not in ClickHouse yet" in told.stdout


def test_a_dry_run_reads_no_payload_and_a_lost_one_is_counted_and_does_not_end_a_backfill(site: Site) -> None:
    told = command(site, "--policy", "dry", "--dry-run")
    assert told.returncode == 0, told.stderr
    counts = next(line.split() for line in told.stdout.splitlines() if " all " in f" {line} ")
    newest = [with_metadata(item).event for item in [*DEMONSTRATIONS, LOST, *ONLINE, REVISION, UNSEEN]]
    expected = len(ALL), sum(event.step_count for event in newest), sum(event.payload_bytes for event in newest)
    assert [int(word) for word in counts if word.isdigit()] == [*expected]

    found = find_episodes(site.settings, Choice(), PATIENCE)
    read = read_episodes(site.settings, found, PATIENCE)
    assert read.lost == (LOST.event.episode_id,)
    assert {item.event.episode_id for item in read.episodes} == ids(*ALL) - ids(LOST)
    assert {i.event.episode_id for i in read.episodes if i.partition == NOWHERE} == ids(*DEMONSTRATIONS)

    done = command(site, "--policy", "without", "--steps", "20")
    assert done.returncode == 0, done.stderr
    assert "lost: 1 episodes cannot be read" in done.stderr
    assert site.versions("without")[0].episodes_admitted == len(ALL) - 1


def test_an_unfinished_backfill_does_not_go_on_with_another_choice(site: Site) -> None:
    everything = choose_episodes(site.settings, Choice(), PATIENCE)
    interrupt(site, "halted", everything, None)
    with pytest.raises(OtherChoice, match="halted is being trained on another choice"):
        backfill(settings_of(site, "halted"), everything[:-1], threading.Event())
    refused = command(site, "--policy", "halted", "--where", "task = 'push'")
    assert refused.returncode == 2, refused.stderr
    assert "another name (--policy)" in refused.stderr
    stages: list[tuple[str, int, int | None]] = []
    backfill(settings_of(site, "halted"), everything, threading.Event(), lambda *said: stages.append(said))
    assert stages[-1] == ("training", 30, 30)
    assert site.versions("halted")[0].episodes_admitted == len(everything)
    assert site.store.list("halfway/") == []


def test_the_same_command_goes_on_with_what_its_times_meant_at_first(site: Site) -> None:
    first = Choice(since=START)
    everything = choose_episodes(site.settings, first, PATIENCE)
    call = Begun.of("--from 1s", first, everything)
    interrupt(site, "relative", everything, call)
    assert Unfinished(settings_of(site, "relative"), PATIENCE).read() == call
    done = command(site, "--policy", "relative", "--from", "1s")  # of the last second there is none
    assert done.returncode == 0, done.stderr
    assert site.versions("relative")[0].episodes_admitted == len(everything)


def test_what_arrives_later_is_not_chosen_by_a_call_before(site: Site) -> None:
    early = choose_episodes(site.settings, Choice(until=UNSEEN.event.appended_at), PATIENCE)
    call = Begun.of("", Choice(), early)
    again = choose_episodes(site.settings, call.choice, PATIENCE)
    assert {item.event.episode_id for item in again} == {item.event.episode_id for item in early}
    assert UNSEEN.event.episode_id not in {item.event.episode_id for item in again}
    assert Begun.model_validate_json(call.model_dump_json()) == call


def test_it_is_told_how_far_each_stage_is_and_how_far_it_goes(site: Site) -> None:
    everything = choose_episodes(site.settings, Choice(), PATIENCE)
    stages: list[tuple[str, int, int | None]] = []
    backfill(settings_of(site, "told"), everything, threading.Event(), lambda *said: stages.append(said))
    fetched = [said for said in stages if said[0] == "fetching"]
    assert fetched == [("fetching", n, len(everything)) for n in range(1, len(everything) + 1)]
    assert [what for what, _, _ in stages].index("admitting") > stages.index(fetched[-1])
    reads = readings(settings_of(site, "told").learner) * len(everything)
    assert [said for said in stages if said[0] == "admitting"] == [
        ("admitting", n, reads) for n in range(1, reads + 1)
    ]
    assert [said for said in stages if said[0] == "fitting"] == [("fitting", n, 20) for n in range(1, 21)]
    assert [done for what, done, _ in stages if what == "training"] == list(range(1, 31))


def test_a_threshold_is_recap_s_and_hides_behind_no_setting_of_the_live_line(site: Site) -> None:
    refused = command(site, "--policy", "clone", "--algorithm", "bc", "--relabel-threshold", "0.5")
    assert refused.returncode == 2
    assert "--relabel-threshold is of RECAP" in refused.stderr
    hiding = {
        "SOP_LEARNER__RECAP_POSITIVE_SHARES": '{"push": 0.1}',
        "SOP_LEARNER__RECAP_THRESHOLD_STEPS": "3.0",
    }
    plain = command(site, "--policy", "shares", "--steps", "5", "--relabel-threshold", "0.5")
    hidden = command(site, "--policy", "hidden", "--steps", "5", "--relabel-threshold", "0.5", **hiding)
    assert (plain.returncode, hidden.returncode) == (0, 0), plain.stderr + hidden.stderr
    assert site.versions("hidden")[0].sha256 == site.versions("shares")[0].sha256
