"""The commit: announcements, dead letters and offsets of some partition numbers, in one Kafka transaction."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

from consumers.dead_letters import DeadLetter
from consumers.partition import OwnedPartition
from infra import telemetry
from infra.errors import ProducerFenced, TransactionAborted, Unavailable
from infra.kafka import CommittedOffset, GroupConsumer, OutRecord, Partition, TransactionalProducer
from infra.registry import Registry
from schemas import codec
from schemas.events import EpisodeMaterialized
from schemas.topics import TRAINING_EPISODES

LETTERS = 10_000
"""Dead letters in one transaction, which brokers have to take in within its timeout."""


class OutcomeUnknown(Exception):
    """What became of a transaction is not known: begin anew from what is committed."""


class Committer:
    """Writes outboxes; `begin` makes a producer, which settles what the one before it left open."""

    def __init__(
        self, consumer: GroupConsumer, registry: Registry, begin: Callable[[], TransactionalProducer]
    ) -> None:
        self._consumer, self._registry, self._begin = consumer, registry, begin
        self._producer: TransactionalProducer | None = None

    def prepare(self) -> TransactionalProducer:
        """The producer. Without one nothing may be taken over: a transaction could still be open.

        Raises:
            KafkaUnavailable, ProducerFenced: not now; try again.
        """
        if self._producer is None:
            self._producer = self._begin()
        return self._producer

    def commit(self, parts: Sequence[OwnedPartition]) -> None:
        """One transaction with all that these partition numbers have to say.

        Of very many dead letters (steps of hours whose start never came) all but the last go ahead, in
        transactions that move no offset: a successor reads the records again, and finds them on dead-letters.

        Raises:
            TransactionAborted: nothing of it is visible, and what is left of the outboxes waits.
            OutcomeUnknown: the state of these partition numbers is void.
            RegistryUnavailable: nothing was begun.
        """
        if not parts:
            return
        for owned in parts:
            while len(owned.outbox.dead) > LETTERS:
                self._bury_ahead(owned)
        announced = [(owned, event) for owned in parts for event in owned.outbox.announcements]
        dead = [(owned, letter) for owned in parts for letter in owned.outbox.dead]
        records = [self._record(owned, event) for owned, event in announced]
        records += [letter.record() for _, letter in dead]
        offsets = {owned.number: owned.offsets() for owned in parts}
        written = self._write(
            records, {partition: value for group in offsets.values() for partition, value in group.items()}
        )
        for (owned, event), position in zip(announced, written, strict=False):
            owned.emitted.remember(event, position)
            telemetry.EPISODES_EMITTED.labels(event.closed_by.value).inc()
        for (owned, letter), position in zip(dead, written[len(announced) :], strict=True):
            _buried(owned, letter, position)
        for owned in parts:
            owned.committed_now(offsets[owned.number])

    def _bury_ahead(self, owned: OwnedPartition) -> None:
        ahead = owned.outbox.dead[:LETTERS]
        written = self._write([letter.record() for letter in ahead], owned.unmoved())
        for letter, position in zip(ahead, written, strict=True):
            _buried(owned, letter, position)
        del owned.outbox.dead[:LETTERS]

    def _write(self, records: Sequence[OutRecord], offsets: Mapping[Partition, CommittedOffset]) -> list[int]:
        try:
            return self.prepare().commit(records, offsets, self._consumer.group_metadata())
        except TransactionAborted:
            telemetry.TRANSACTIONS_ABORTED.inc()
            raise
        except (Unavailable, ProducerFenced) as error:
            self._producer = None
            raise OutcomeUnknown(str(error)) from error

    def _record(self, owned: OwnedPartition, event: EpisodeMaterialized) -> OutRecord:
        schema_id = self._registry.id_of(TRAINING_EPISODES, codec.latest(event.record))
        return OutRecord(
            topic=TRAINING_EPISODES,
            key=event.robot_id.encode(),
            value=codec.frame(schema_id, codec.encode(event)),
            partition=owned.number,
        )


def _buried(owned: OwnedPartition, letter: DeadLetter, position: int) -> None:
    owned.emitted.remember_dead(letter.origin.topic, letter.origin.offset, position)
    telemetry.DEAD_LETTERS.labels(letter.reason.value).inc()
