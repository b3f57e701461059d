"""Reading and writing the rollout states of policy lines. Of two writers at once, one does its work again.

A change is read, decided and written under a fence: the transactional id `rollout-<policy>`. Whoever takes it
ends what an earlier writer had under way, so what is read afterwards is all there is. If somebody else takes it
before the commit, the commit fails and the change is made anew, from the state that the other one wrote.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import structlog

from infra.errors import InfraError, KafkaUnavailable, ProducerFenced, TransactionAborted
from infra.kafka import OutRecord, TransactionalProducer
from infra.policies.announced import Announced, key_of, read_announcements
from infra.policies.errors import KeyUnusable, RolloutRefused, SignatureRefused
from infra.policies.keys import learner_keyring, operator_keyring, signing_key
from infra.policies.rollout import Change, Transition, require_sound
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

    refused: what was not believed, by record key or place, in words.
    """

    versions: dict[str, dict[int, PolicyVersion]] = field(default_factory=dict)
    rollouts: dict[str, PolicyRollout] = field(default_factory=dict)
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
        found, problems = read_announcements(
            self._settings, self._registry, POLICY_VERSIONS, PolicyVersion, self._client_id
        )
        keyring = learner_keyring(self._settings.policies)
        for announced in found:
            try:
                announced.require(keyring)
            except SignatureRefused as error:
                control.refused[announced.key] = str(error)
            else:
                event = announced.event
                control.versions.setdefault(event.policy, {})[event.version] = event
        states, more = self._states()
        control.rollouts = {policy: announced.event for policy, announced in states.items()}
        control.refused |= {f"rollout {key}": why for key, why in more.items()}
        control.refused |= {problem.split(":", 1)[0]: problem for problem in problems}
        return control

    def newest(self, policy: str) -> PolicyRollout | None:
        """The newest believed state of a line; None: there is none."""
        states, refused = self._states()
        for key, why in refused.items():
            _log.warning("rollout_not_believed", key=key, error=why)
        return states[policy].event if policy in states else None

    def change(self, policy: str, transition: Transition, by: Change) -> PolicyRollout:
        """Write the state that follows from the newest one.

        Raises:
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
                written = self._states()[0].get(policy)  # the new producer has settled what was unknown
                if written is not None and written.body == body:
                    return written.event
            state = transition(self.newest(policy), by)
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

    def _states(self) -> tuple[dict[str, Announced[PolicyRollout]], Mapping[str, str]]:
        found, problems = read_announcements(
            self._settings, self._registry, POLICY_ROLLOUTS, PolicyRollout, self._client_id
        )
        newest: dict[str, Announced[PolicyRollout]] = {}
        refused = {problem.split(":", 1)[0]: problem for problem in problems}
        for announced in found:
            try:
                announced.require(self._believed)
            except (SignatureRefused, RolloutRefused) as error:
                refused[announced.key] = str(error)
                continue
            known = newest.get(announced.event.policy)
            if known is None or known.event.generation < announced.event.generation:
                newest[announced.event.policy] = announced
        return newest, refused
