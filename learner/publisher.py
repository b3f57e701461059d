"""Announcing policy versions on the control topic. Of two learners of one line only the younger can."""

from __future__ import annotations

from functools import partial

import structlog

from infra.backoff import Backoff
from infra.errors import KafkaUnavailable, ProducerFenced, TransactionAborted
from infra.kafka import OutRecord, TransactionalProducer
from infra.object_store import ObjectStore
from infra.policies.keys import SigningKey
from infra.registry import Registry
from infra.settings import KafkaSettings
from infra.telemetry import LEARNER_VERSION, UNAVAILABLE, new_traceparent
from learner.claim import Claim
from learner.patience import Patience
from learner.stream import EventStream
from learner.wire import Encoder
from schemas.events import PolicyVersion
from schemas.topics import POLICY_VERSIONS

# A killed learner's open transaction holds readers of the control topic no longer than this, seconds.
_TRANSACTION_SECONDS = 10.0

_log = structlog.get_logger(__name__)


class Publisher:
    """Writes PolicyVersion events under the transactional id `learner-<policy>`.

    Raises (all methods):
        ProducerFenced: another learner took the line over; this one is finished.
        Stopped: a stop was asked for.
    """

    def __init__(
        self,
        kafka: KafkaSettings,
        registry: Registry,
        store: ObjectStore,
        policy: str,
        patience: Patience,
        *,
        key: SigningKey | None = None,
    ) -> None:
        """Sign with `key`; None: announcements are not signed."""
        self._key = key
        self._kafka = kafka
        self._registry = registry
        self._policy = policy
        self._claim = Claim(store, policy)
        self._patience = patience
        self._encoder: Encoder | None = None
        self._producer: TransactionalProducer | None = None

    @property
    def claim(self) -> str:
        """This learner's name among those of the line; the youngest one's sorts last."""
        return self._claim.name

    def take_over(self) -> dict[int, PolicyVersion]:
        """Fence any older learner of the line, then read its versions: no older one can add to them any more."""
        self._encoder = Encoder(self._registry, POLICY_VERSIONS, PolicyVersion, self._patience)
        self._patience.call("object store", self._claim.lay)
        self._renew()
        versions = self._versions()
        LEARNER_VERSION.set(max(versions, default=0))
        return versions

    def require_youngest(self) -> None:
        """Go on only while no younger learner has taken the line over.

        To be asked before anything is told that fences nobody: of two that tell, the later one is believed.
        """
        self._patience.call("object store", self._claim.require_youngest)

    def announce(self, version: PolicyVersion) -> None:
        """Announce a version once, whatever Kafka does meanwhile. `take_over` must have been called."""
        if self._encoder is None or self._producer is None:
            raise RuntimeError("take_over() comes before announce()")
        # Here and not earlier: a checkpoint's announcement may be older than today's schema, or than today's key.
        version = self._key.sign(version) if self._key else version
        record = OutRecord(
            topic=POLICY_VERSIONS,
            key=f"{version.policy}/{version.version}".encode(),
            value=self._encoder.encode(version),
            headers=[("traceparent", new_traceparent())],
        )
        backoff = Backoff()
        while True:
            try:
                self._patience.call("Kafka", partial(_commit, self._producer, record))
                break
            except TransactionAborted as error:
                self._wait("announcement_aborted", version, error, backoff)
            except (_OutcomeUnknown, ProducerFenced) as error:
                self._wait("announcement_unsettled", version, error, backoff)
                if self._settle(version):
                    break
        self._patience.held_up("", "announcement")
        LEARNER_VERSION.set(version.version)
        _log.info("policy_published", policy=version.policy, version=version.version, sha256=version.sha256)

    def _wait(self, event: str, version: PolicyVersion, error: Exception, backoff: Backoff) -> None:
        """Not announced yet: whoever watches this learner hears why it does not go on."""
        if not isinstance(error, ProducerFenced):
            UNAVAILABLE.labels("Kafka").inc()
        self._patience.held_up(f"announcement: {error}", "announcement")
        pause = backoff.failed()
        _log.warning(event, version=version.version, error=str(error), retry_in=pause)
        self._patience.pause(pause)

    def _settle(self, version: PolicyVersion) -> bool:
        """After an unknown outcome, or fenced: whether the version is announced. The producer is new then."""
        self._renew()
        return self._require_ours(version)

    def _renew(self) -> None:
        """Connect, which ends what an earlier producer had under way, unless a younger learner is there.

        One that takes over between the first look and the connection is fenced by it. It is the younger, so it
        connects again; we look again and have announced nothing in between.
        """
        self.require_youngest()
        self._producer = self._patience.call("Kafka", self._connect)
        self.require_youngest()

    def _require_ours(self, version: PolicyVersion) -> bool:
        found = self._versions().get(version.version)
        if found is not None and found.sha256 != version.sha256:
            raise ProducerFenced(f"another learner has published {version.policy} version {version.version}")
        return found is not None

    def _connect(self) -> TransactionalProducer:
        return TransactionalProducer(self._kafka, f"learner-{self._policy}", timeout=_TRANSACTION_SECONDS)

    def _versions(self) -> dict[int, PolicyVersion]:
        stream = EventStream(self._kafka, self._registry, POLICY_VERSIONS, PolicyVersion, self._patience)
        found = {
            item.event.version: item.event for item in stream.read_to_end() if item.event.policy == self._policy
        }
        stream.close()
        return found


class _OutcomeUnknown(Exception):
    """Kafka did not say whether the transaction was committed."""


def _commit(producer: TransactionalProducer, record: OutRecord) -> None:
    try:
        producer.commit([record])
    except KafkaUnavailable as error:
        # Not to be tried again on the same producer, as Patience would.
        raise _OutcomeUnknown(str(error)) from error
