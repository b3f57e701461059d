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
from infra.policies.announced import Announced, read_announcements
from infra.policies.errors import KeyUnusable, RolloutNotBelieved, RolloutRefused
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
    found = read_announcements(settings, registry, POLICY_ROLLOUTS, PolicyRollout, "test")
    return [each.event for each in found if isinstance(each, Announced) and each.event.policy == policy]


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


def send(settings: Settings, name: str, value: bytes) -> None:
    producer = EventProducer(settings.kafka, "forger")
    producer.send(OutRecord(POLICY_ROLLOUTS, name.encode(), value))
    assert producer.flush(30.0) == 0


def send_state(settings: Settings, state: PolicyRollout, key: SigningKey) -> None:
    schema_id = Registry(settings.registry).id_of(POLICY_ROLLOUTS, latest(PolicyRollout.record))
    send(settings, state.policy, frame(schema_id, encode(key.sign(state))))


def test_a_state_that_nobody_believed_signed_is_not_built_on(control: Settings, name: str) -> None:
    log, forger = RolloutLog(control), SigningKey.generate()
    held = log.change(name, rollout.hold(name, 3), BY)
    send_state(control, held.model_copy(update={"generation": 99, "current": 1}), forger)
    assert log.newest(name) == held
    assert f"rollout {name}" in log.read().refused
    with pytest.raises(RolloutNotBelieved, match=f"generation 99 .*{forger.key_id}.*--over-unbelieved"):
        log.change(name, rollout.pin(name, "arm-1", 2), BY)
    assert [state.generation for state in states(control, name)] == [1, 99]
    over = log.change(name, rollout.pin(name, "arm-1", 2), BY, over_unbelieved=True)
    assert (over.current, over.pins[0].version) == (3, 2)
    assert over.generation > 99
    assert log.change(name, rollout.unpin(name, "arm-1"), BY).generation == over.generation + 1


def test_after_the_old_key_is_given_up_what_it_signed_is_not_forgotten(control: Settings, name: str) -> None:
    RolloutLog(control).change(name, rollout.hold(name, 5), BY)
    new = SigningKey.generate()
    alone = RolloutLog(control.model_copy(update={"policies": signing(new, new)}))
    with pytest.raises(
        RolloutNotBelieved, match=f"generation 1 .*{KEY.key_id}, which SOP_POLICIES__OPERATOR_KEYS"
    ):
        alone.change(name, rollout.pin(name, "arm-1", 4), BY)
    assert name in alone.read().unbelieved
    both = RolloutLog(control.model_copy(update={"policies": signing(new, new, KEY)}))
    again = both.change(name, rollout.hold(name, 5), BY)
    assert (again.generation, again.current, again.key_id) == (2, 5, new.key_id)
    pinned = alone.change(name, rollout.pin(name, "arm-1", 4), BY)
    assert (pinned.generation, pinned.current) == (3, 5)


@pytest.mark.parametrize("generation", [2**62, 2**63 - 1])
def test_a_forger_who_leaves_no_generation_above_his_own_locks_nobody_out(
    control: Settings, name: str, generation: int
) -> None:
    log = RolloutLog(control)
    held = log.change(name, rollout.hold(name, 3), BY)
    for _ in range(2):
        send_state(control, held.model_copy(update={"generation": generation}), SigningKey.generate())
        with pytest.raises(RolloutNotBelieved):
            log.change(name, rollout.hold(name, 2), BY)
        over = log.change(name, rollout.hold(name, 2), BY, over_unbelieved=True)
        assert held.generation < over.generation < 2**40
        assert log.newest(name) == over
        held = over


def test_what_cannot_be_decoded_may_have_been_a_state_too(control: Settings, name: str) -> None:
    log = RolloutLog(control)
    send(control, name, b"garbage")
    with pytest.raises(RolloutNotBelieved, match=f"'{name}' at .*--over-unbelieved"):
        log.change(name, rollout.hold(name, 3), BY)
    assert log.change(name, rollout.hold(name, 3), BY, over_unbelieved=True).current == 3
    assert log.change(name, rollout.hold(name, 2), BY).previous == 3


def test_who_cannot_sign_or_would_not_be_believed_writes_nothing(control: Settings, name: str) -> None:
    stranger = control.model_copy(update={"policies": signing(SigningKey.generate(), KEY)})
    with pytest.raises(KeyUnusable, match="SOP_POLICIES__OPERATOR_KEYS"):
        RolloutLog(stranger).change(name, rollout.hold(name, 3), BY)
    with pytest.raises(SettingMissing, match="sop keys new"):
        RolloutLog(control.model_copy(update={"policies": PolicySettings()})).change(
            name, rollout.hold(name, 3), BY
        )
    assert states(control, name) == []
