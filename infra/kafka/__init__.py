"""The only door to Kafka: producers, consumers and administration, with errors of our own kind."""

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
