"""A training stream that was lost and made anew: it is whole, and yet not all that there is."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka import Message

from consumers.rows import rows_of
from infra.clickhouse.client import connect
from infra.clickhouse.migrate import migrate
from infra.errors import ClickHouseUnavailable, KafkaUnavailable
from infra.kafka import LogReader
from infra.local.stack import Stack
from infra.registry import Registry
from learner.choice import Choice
from learner.chosen import find_episodes
from learner.patience import Patience
from learner.recovered import NOWHERE, choose_episodes
from learner.stream import EventStream, Received
from schemas.events import EpisodeMaterialized
from schemas.topics import TRAINING_EPISODES
from tests.infra.clickhouse.test_views import insert
from tests.learner.integration.site import Site
from tests.learner.integration.test_backfill import ids, with_metadata
from tests.learner.synthetic import make_episode

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

PATIENCE = Patience(threading.Event())
OLD = make_episode(1, steps=10)  # episodes arrive in the order of their numbers
NEW = [make_episode(10 + n, steps=11) for n in range(4)]


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """The index and the bucket have an episode of the topic that was lost."""
    directory: Path = tmp_path_factory.mktemp("anew")
    with Stack.start(directory / "stack", timeout=300) as stack:
        site = Site(stack, directory)
        migrate(site.settings.clickhouse)
        old, *new = [with_metadata(item) for item in (OLD, *NEW)]
        site.put(new)
        site.store.put(site.store.key(old.event.payload_uri), old.payload)
        client = connect(site.settings.clickhouse)
        insert(client, rows_of(old.event, 0, 7))
        client.close()
        yield site


def test_what_only_index_and_bucket_have_of_an_earlier_topic_is_chosen_too(site: Site) -> None:
    found = find_episodes(site.settings, Choice(), PATIENCE)
    known = {item.event.episode_id for item in found.episodes if isinstance(item, Received)}
    assert known == ids(*NEW)
    assert [item.episode_id for item in found.episodes if not isinstance(item, Received)] == [*ids(OLD)]
    chosen = choose_episodes(site.settings, Choice(), PATIENCE)
    assert {item.event.episode_id: item.partition == NOWHERE for item in chosen} == {
        **dict.fromkeys(ids(*NEW), False),
        **dict.fromkeys(ids(OLD), True),
    }


def test_without_an_index_to_ask_the_topic_is_taken_at_its_word(site: Site) -> None:
    nobody = site.settings.clickhouse.model_copy(update={"analyst_username": None})
    settings = site.settings.model_copy(update={"clickhouse": nobody})
    assert len(find_episodes(settings, Choice(), PATIENCE).episodes) == len(NEW)


def test_an_index_that_does_not_answer_is_not_taken_for_one_that_has_nothing(site: Site) -> None:
    away = site.settings.clickhouse.model_copy(update={"port": 1})
    settings = site.settings.model_copy(update={"clickhouse": away})
    with pytest.raises(ClickHouseUnavailable):
        find_episodes(settings, Choice(), PATIENCE)


def test_a_reading_that_breaks_off_goes_on_behind_what_it_gave_away(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Records come one by one, and each third call fails and loses what it had."""
    calls, consume = 0, LogReader.consume

    def failing(self: LogReader, _count: int, timeout: float) -> list[Message]:
        nonlocal calls
        calls += 1
        found = consume(self, 1, timeout)
        if calls % 3 == 0:
            raise KafkaUnavailable("as if a broker went away")
        return found

    monkeypatch.setattr(LogReader, "consume", failing)
    monkeypatch.setattr("learner.stream._BATCH", 1)
    stream = EventStream(
        site.settings.kafka,
        Registry(site.settings.registry),
        TRAINING_EPISODES,
        EpisodeMaterialized,
        PATIENCE,
    )
    try:
        batches = list(stream.batches_to_end())
    finally:
        stream.close()
    assert [len(batch) for batch in batches] == [1] * len(NEW)
    assert [item.event.episode_id for batch in batches for item in batch] == [one.event.episode_id for one in NEW]
    assert calls > len(NEW)
