"""Rollout states on a real broker: two writers at once, forged states, lost answers."""

from __future__ import annotations

import threading
from datetime import UTC, datetime

import pytest
from pydantic import SecretStr

from infra.errors import KafkaUnavailable, SettingMissing
from infra.kafka import EventProducer, OutRecord, TransactionalProducer
from infra.kafka.admin import ClusterAdmin
from infra.policies import rollout
from infra.policies.announced import read_announcements
from infra.policies.errors import KeyUnusable, RolloutRefused
from infra.policies.keys import SigningKey
from infra.policies.log import RolloutLog
from infra.policies.rollout import Change
from infra.registry import Registry
from infra.settings import PolicySettings, Settings
from schemas.codec import encode, frame, latest
from schemas.events import PolicyRollout
from schemas.topics import POLICY_ROLLOUTS, POLICY_VERSIONS, TOPICS

KEY = SigningKey.generate()
BY = Change("ada", "because", datetime(2026, 3, 1, tzinfo=UTC))


def signing(key: SigningKey, *believed: SigningKey) -> PolicySettings:
    return PolicySettings(
        signing_key_pem=SecretStr(key.pem().decode()), operator_keys=tuple(k.public for k in believed)
    )


@pytest.fixture
def control(settings: Settings) -> Settings:
    topics = [TOPICS[POLICY_ROLLOUTS], TOPICS[POLICY_VERSIONS]]
    ClusterAdmin(settings.kafka).ensure_topics(topics)
    for topic in topics:
        Registry(settings.registry).deploy(topic)
    return settings.model_copy(update={"policies": signing(KEY, KEY)})


def states(settings: Settings, policy: str) -> list[PolicyRollout]:
    registry = Registry(settings.registry)
    found, _ = read_announcements(settings, registry, POLICY_ROLLOUTS, PolicyRollout, "test")
    return [announced.event for announced in found if announced.event.policy == policy]


def test_each_state_is_signed_and_one_generation_further(control: Settings, name: str) -> None:
    log = RolloutLog(control)
    assert log.newest(name) is None
    log.change(name, rollout.hold(name, 3), BY)
    second = log.change(name, rollout.start_canary(name, 4, fraction=0.25), BY)
    assert log.newest(name) == second
    assert [state.generation for state in states(control, name)] == [1, 2]
    assert second.key_id == KEY.key_id


def test_what_makes_no_sense_is_not_written(control: Settings, name: str) -> None:
    with pytest.raises(RolloutRefused):
        RolloutLog(control).change(name, rollout.promote(name), BY)
    assert states(control, name) == []


def test_of_writers_at_the_same_time_none_is_lost_and_no_generation_is_used_twice(
    control: Settings, name: str
) -> None:
    failures: list[Exception] = []

    def pin(robots: list[str]) -> None:
        for robot in robots:
            try:
                RolloutLog(control).change(name, rollout.pin(name, robot, 1), BY)
            except KafkaUnavailable as error:
                failures.append(error)

    writers = [threading.Thread(target=pin, args=([f"arm-{w}-{n}" for n in range(3)],)) for w in range(2)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    written = states(control, name)
    assert [state.generation for state in written] == list(range(1, len(written) + 1))
    assert len(written[-1].pins) == 6 - len(failures) == len(written)


@pytest.mark.parametrize("committed", [True, False])
def test_a_change_whose_commit_was_not_answered_is_written_once(
    control: Settings, name: str, monkeypatch: pytest.MonkeyPatch, committed: bool
) -> None:
    commit = TransactionalProducer.commit

    def lose_answer(producer: TransactionalProducer, *args: object) -> list[int]:
        monkeypatch.setattr(TransactionalProducer, "commit", commit)
        if committed:
            commit(producer, *args)  # type: ignore[arg-type]
        raise KafkaUnavailable("no answer")

    monkeypatch.setattr(TransactionalProducer, "commit", lose_answer)
    state = RolloutLog(control).change(name, rollout.hold(name, 3), BY)
    assert states(control, name) == [state]


def test_a_state_that_nobody_believed_signed_is_not_built_on(control: Settings, name: str) -> None:
    log = RolloutLog(control)
    held = log.change(name, rollout.hold(name, 3), BY)
    forged = SigningKey.generate().sign(held.model_copy(update={"generation": 99, "current": 1}))
    schema_id = Registry(control.registry).id_of(POLICY_ROLLOUTS, latest(PolicyRollout.record))
    producer = EventProducer(control.kafka, "forger")
    producer.send(OutRecord(POLICY_ROLLOUTS, name.encode(), frame(schema_id, encode(forged))))
    assert producer.flush(30.0) == 0
    assert log.newest(name) == held
    assert f"rollout {name}" in log.read().refused
    assert log.change(name, rollout.pin(name, "arm-1", 2), BY).generation == 2


def test_who_cannot_sign_or_would_not_be_believed_writes_nothing(control: Settings, name: str) -> None:
    stranger = control.model_copy(update={"policies": signing(SigningKey.generate(), KEY)})
    with pytest.raises(KeyUnusable, match="SOP_POLICIES__OPERATOR_KEYS"):
        RolloutLog(stranger).change(name, rollout.hold(name, 3), BY)
    with pytest.raises(SettingMissing, match="sop keys new"):
        RolloutLog(control.model_copy(update={"policies": PolicySettings()})).change(
            name, rollout.hold(name, 3), BY
        )
    assert states(control, name) == []
