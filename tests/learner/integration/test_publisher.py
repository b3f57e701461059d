"""Two learners of one line, one of which was held up: the younger announces, whoever connects last."""

from __future__ import annotations

import threading
from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient
from confluent_kafka.admin._config import AlterConfigOpType, ConfigEntry, ConfigResource

from infra.errors import KafkaUnavailable, ProducerFenced
from infra.health import Health
from infra.kafka import TransactionalProducer
from infra.policies.announced import Announced, read_announcements
from infra.policies.errors import SignatureRefused
from infra.policies.keys import Keyring, SigningKey
from infra.registry import Registry
from infra.telemetry import UNAVAILABLE
from learner.backfill import backfill
from learner.patience import Patience
from learner.publisher import Publisher
from learner.stream import Received
from schemas.events import EpisodeSource, PolicyVersion
from schemas.topics import POLICY_VERSIONS
from tests.learner.integration.site import Site, wait_for
from tests.learner.synthetic import START, make_episode
from tests.producers.fakes import announcement

pytestmark = pytest.mark.slow


def publisher(site: Site, policy: str, health: Health | None = None) -> Publisher:
    registry = Registry(site.settings.registry)
    return Publisher(site.settings.kafka, registry, site.store, policy, Patience(threading.Event(), health))


def version(policy: str, number: int, weights: bytes) -> PolicyVersion:
    return announcement(number, weights, policy=policy)


def unanswered(monkeypatch: pytest.MonkeyPatch, *, committed: bool, meanwhile: Callable[[], object]) -> None:
    """Kafka's answer to the next commit is lost, and `meanwhile` happens before that is noticed."""
    commit = TransactionalProducer.commit

    def lose_answer(producer: TransactionalProducer, *args: object) -> list[int]:
        monkeypatch.setattr(TransactionalProducer, "commit", commit)
        if committed:
            commit(producer, *args)  # type: ignore[arg-type]
        meanwhile()
        raise KafkaUnavailable("no answer")

    monkeypatch.setattr(TransactionalProducer, "commit", lose_answer)


@pytest.mark.parametrize("committed", [True, False])
def test_a_version_whose_commit_was_not_answered_is_announced_once(
    site: Site, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    line = f"alone-{committed}"
    only = publisher(site, line)
    only.take_over()
    unanswered(monkeypatch, committed=committed, meanwhile=lambda: None)
    only.announce(version(line, 1, b"one"))
    only.announce(version(line, 2, b"two"))
    assert [found.version for found in site.versions(line)] == [1, 2]


@pytest.mark.parametrize("committed", [True, False])
def test_an_older_learner_that_wakes_gives_up_and_does_not_fence_the_younger(
    site: Site, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    line = f"woken-{committed}"
    older, younger = publisher(site, line), publisher(site, line)
    older.take_over()
    unanswered(monkeypatch, committed=committed, meanwhile=younger.take_over)
    with pytest.raises(ProducerFenced, match="younger learner"):
        older.announce(version(line, 1, b"older"))
    connections: list[object] = []
    monkeypatch.setattr(younger, "_connect", lambda: connections.append("again"))
    number = max((found.version for found in site.versions(line)), default=0) + 1
    younger.announce(version(line, number, b"younger"))
    assert [found.version for found in site.versions(line)] == list(range(1, number + 1))
    assert connections == [], "nobody has fenced it"


def test_a_learner_fenced_by_an_older_one_that_was_about_to_connect_goes_on(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    older, younger = publisher(site, "crossed"), publisher(site, "crossed")
    older.take_over()
    connect = older._connect

    def connect_late() -> TransactionalProducer:
        younger.take_over()
        return connect()

    monkeypatch.setattr(older, "_connect", connect_late)
    unanswered(monkeypatch, committed=False, meanwhile=lambda: None)
    with pytest.raises(ProducerFenced, match="younger learner"):
        older.announce(version("crossed", 1, b"older"))
    younger.announce(version("crossed", 1, b"younger"))
    younger.announce(version("crossed", 2, b"younger still"))
    (first, second) = site.versions("crossed")
    assert first == version("crossed", 1, b"younger")
    assert second.version == 2


def set_limit(site: Site, size: int) -> int:
    """Set `max.message.bytes` of policy-versions; what it was."""
    admin = AdminClient({"bootstrap.servers": site.settings.kafka.bootstrap_servers, "log_level": 2})
    topic = ConfigResource(ConfigResource.Type.TOPIC, POLICY_VERSIONS)
    (found,) = admin.describe_configs([topic]).values()
    before = int(found.result(30)["max.message.bytes"].value)
    entry = ConfigEntry("max.message.bytes", str(size), incremental_operation=AlterConfigOpType.SET)
    change = ConfigResource(ConfigResource.Type.TOPIC, POLICY_VERSIONS, incremental_configs=[entry])
    (done,) = admin.incremental_alter_configs([change]).values()
    done.result(30)
    return before


def unavailable() -> float:
    """How often Kafka did not do what was asked, as the metrics count it."""
    (metric,) = UNAVAILABLE.collect()
    counted = [one for one in metric.samples if one.name.endswith("_total")]
    return sum(one.value for one in counted if one.labels == {"server": "Kafka"})


def test_a_learner_that_cannot_announce_is_not_ready_says_why_and_is_again_once_it_can(site: Site) -> None:
    health = Health()
    refused = publisher(site, "refused", health)
    refused.take_over()
    assert health.readiness()[0]
    before, counted = set_limit(site, 200), unavailable()  # a transaction's marks take 80
    announcing = threading.Thread(target=refused.announce, args=(version("refused", 1, b"one"),), daemon=True)
    try:
        announcing.start()
        wait_for(lambda: not health.readiness()[0], timeout=60.0)
        assert health.readiness()[1].startswith("announcement: policy-versions takes no record of")
        assert unavailable() > counted
        assert site.versions("refused") == []
    finally:
        set_limit(site, before)
    announcing.join(60.0)
    assert health.readiness()[0]
    assert [found.version for found in site.versions("refused")] == [1]


def test_an_older_learner_is_fenced_at_its_next_announcement_and_only_the_newest_claim_is_kept(site: Site) -> None:
    older, younger = publisher(site, "plain"), publisher(site, "plain")
    older.take_over()
    older.announce(version("plain", 1, b"one"))
    assert list(younger.take_over()) == [1]
    with pytest.raises(ProducerFenced, match="younger learner"):
        older.announce(version("plain", 2, b"older"))
    younger.announce(version("plain", 2, b"younger"))
    assert site.versions("plain")[-1] == version("plain", 2, b"younger")
    (claim,) = site.store.list("learners/plain/")
    assert claim.startswith("learners/plain/00000002-")


def test_a_learner_that_was_taken_over_while_it_trained_tells_nobody_what_it_trained_on(site: Site) -> None:
    made = make_episode(1, source=EpisodeSource.DEMONSTRATION)
    site.put([made])
    changes = {"policy": "hung", "hidden": (4,), "batch_size": 4, "pretrain_steps": 3, "publish_every": 1000}
    settings = site.settings.model_copy(update={"learner": site.settings.learner.model_copy(update=changes)})

    def told(what: str, done: int, _all: int | None) -> None:
        if (what, done) == ("training", 3):
            publisher(site, "hung").take_over()

    with pytest.raises(ProducerFenced, match="younger learner"):
        backfill(settings, [Received(made.event, 0, 0, START)], threading.Event(), told)
    assert (site.versions("hung"), site.lineage("hung"), site.progress("hung")) == ([], [], [])


def test_versions_are_signed_as_they_are_sent_and_a_forger_s_are_not_believed(site: Site) -> None:
    key = SigningKey.generate()
    registry = Registry(site.settings.registry)
    signer = Publisher(site.settings.kafka, registry, site.store, "signed", Patience(threading.Event()), key=key)
    signer.take_over()
    signer.announce(version("signed", 1, b"one"))
    found = read_announcements(site.settings, registry, POLICY_VERSIONS, PolicyVersion, "test")
    read = [item for item in found if isinstance(item, Announced)]
    assert len(read) == len(found)
    (announced,) = [item for item in read if item.event.policy == "signed"]
    announced.require(Keyring([key.public]))
    with pytest.raises(SignatureRefused):
        announced.require(Keyring([SigningKey.generate().public]))
