"""The only door to Kafka: producers, consumers and administration, with errors of our own kind."""

import stamina.instrumentation
from confluent_kafka import Message

from infra.kafka.config import MESSAGE_BYTES, Partition
from infra.kafka.consumer import GroupConsumer
from infra.kafka.log_reader import LogReader
from infra.kafka.producer import TOO_LARGE, EventProducer, OutRecord
from infra.kafka.transactions import CommittedOffset, TransactionalProducer

__all__ = [
    "MESSAGE_BYTES",
    "TOO_LARGE",
    "CommittedOffset",
    "EventProducer",
    "GroupConsumer",
    "LogReader",
    "Message",
    "OutRecord",
    "Partition",
    "TransactionalProducer",
]

# Of its own accord it logs every attempt, on standard output where a command has set up no logs. What matters is
# what a caller gives up on, and the error says that.
stamina.instrumentation.set_on_retry_hooks(())
