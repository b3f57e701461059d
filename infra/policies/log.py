"""Reading and writing the rollout states of policy lines. Of two writers at once, one does its work again.

A change is read, decided and written under a fence: the transactional id `rollout-<policy>`. Whoever takes it
ends what an earlier writer had under way, so what is read afterwards is all there is. If somebody else takes it
before the commit, the commit fails and the change is made anew, from the state that the other one wrote.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import structlog

from infra.errors import InfraError, KafkaUnavailable, ProducerFenced, TransactionAborted
from infra.kafka import OutRecord, TransactionalProducer
from infra.policies.announced import Undecodable, key_of, read_announcements
from infra.policies.belief import States, generation_over, newest_unknown, states_in
from infra.policies.errors import KeyUnusable, RolloutNotBelieved, SignatureRefused
from infra.policies.keys import learner_keyring, operator_keyring, signing_key
from infra.policies.rollout import Change, Transition, going_on_from, require_sound
from infra.registry import Registry
from infra.settings import Settings
from infra.telemetry import new_traceparent
from schemas import codec
from schemas.events import PolicyRollout, PolicyVersion
from schemas.topics import POLICY_ROLLOUTS, POLICY_VERSIONS

_TRANSACTION_SECONDS = 10.0
_ATTEMPTS = 5

_log = structlog.get_logger(__name__)


@dataclass
class Control:
    """What the control topics say, believed only: versions by line and number, newest rollout by line.

    unbelieved: by line, why its newest rollout may be another one, which is not believed, and what to do.
    refused: what was not believed, by record key or place, in words.
    """

    versions: dict[str, dict[int, PolicyVersion]] = field(default_factory=dict)
    rollouts: dict[str, PolicyRollout] = field(default_factory=dict)
    unbelieved: dict[str, str] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


class RolloutLog:
    """The control topics, to an operator, the guard, or the learner.

    Raises (all methods):
        KafkaUnavailable, RegistryUnavailable: no answer in time.
        KeyUnusable: a key of the settings cannot be used.
    """

    def __init__(self, settings: Settings, client_id: str = "rollouts") -> None:
        self._settings = settings
        self._client_id = client_id
        self._registry = Registry(settings.registry)
        self._believed = operator_keyring(settings.policies)

    def read(self) -> Control:
        """Everything that the control topics hold now."""
        control = Control()
        keyring = learner_keyring(self._settings.policies)
        for announced in read_announcements(
            self._settings, self._registry, POLICY_VERSIONS, PolicyVersion, self._client_id
        ):
            if isinstance(announced, Undecodable):
                control.refused[announced.place] = announced.told
                continue
            try:
                announced.require(keyring)
            except SignatureRefused as error:
                control.refused[announced.key] = str(error)
            else:
                event = announced.event
                control.versions.setdefault(event.policy, {})[event.version] = event
        states = self._states()
        control.rollouts = {policy: announced.event for policy, announced in states.newest.items()}
        control.unbelieved = {policy: newest_unknown(policy, states) for policy in states.unbelieved}
        control.refused |= {f"rollout {key}": why for key, why in states.refused.items()}
        return control

    def newest(self, policy: str) -> PolicyRollout | None:
        """The newest believed state of a line; None: there is none."""
        return self._newest(policy, self._states())

    def change(
        self, policy: str, transition: Transition, by: Change, *, over_unbelieved: bool = False
    ) -> PolicyRollout:
        """Write the state that follows from the newest one.

        Args:
            policy: the line.
            transition: the change.
            by: who makes it.
            over_unbelieved: what is not believed is forged: go on from what is, above all that robots may know.

        Raises:
            RolloutNotBelieved: the newest state may be one that is not believed; nothing was written.
            RolloutRefused: the change makes no sense; nothing was written.
            SettingMissing: there is no key to sign with.
            UnknownSchema: the topic's schema was never registered.
        """
        key = signing_key(self._settings.policies)
        if key is not None and key.public not in self._settings.policies.operator_keys:
            raise KeyUnusable(
                f"robots would not believe key {key.key_id}: its public half is not in SOP_POLICIES__OPERATOR_KEYS"
            )
        schema_id = self._registry.id_of(POLICY_ROLLOUTS, codec.latest(PolicyRollout.record))
        failure: InfraError | None = None
        body = b""
        for _ in range(_ATTEMPTS):
            producer = self._producer(policy)
            if isinstance(failure, KafkaUnavailable):
                written = self._states().newest.get(policy)  # the new producer has settled what was unknown
                if written is not None and written.body == body:
                    return written.event
            states = self._states()
            newest, step = self._newest(policy, states), transition
            if unknown := newest_unknown(policy, states):
                if not over_unbelieved:
                    raise RolloutNotBelieved(f"nothing was written: {unknown}")
                _log.warning("rollout_over_unbelieved", policy=policy, states=len(states.unbelieved[policy]))
                above = generation_over(states.unbelieved[policy], newest, by.at)
                step = going_on_from(above, transition, policy)
            state = step(newest, by)
            require_sound(state)
            state = key.sign(state) if key else state
            body = codec.encode(state)
            record = OutRecord(
                POLICY_ROLLOUTS,
                key_of(state).encode(),
                codec.frame(schema_id, body),
                headers=[("traceparent", new_traceparent())],
            )
            try:
                producer.commit([record])
            except (TransactionAborted, ProducerFenced, KafkaUnavailable) as error:
                _log.warning("rollout_not_written", policy=policy, error=str(error))
                failure = error
            else:
                _log.info("rollout_written", policy=policy, generation=state.generation, reason=state.reason)
                return state
        raise KafkaUnavailable(
            f"the rollout of {policy} could not be written ({failure}); see `sop policies show`, then try again"
        )

    def _producer(self, policy: str) -> TransactionalProducer:
        return TransactionalProducer(self._settings.kafka, f"rollout-{policy}", timeout=_TRANSACTION_SECONDS)

    def _newest(self, policy: str, states: States) -> PolicyRollout | None:
        for key, why in states.refused.items():
            _log.warning("rollout_not_believed", key=key, error=why)
        return states.newest[policy].event if policy in states.newest else None

    def _states(self) -> States:
        records = read_announcements(
            self._settings, self._registry, POLICY_ROLLOUTS, PolicyRollout, self._client_id
        )
        return states_in(records, self._believed)
