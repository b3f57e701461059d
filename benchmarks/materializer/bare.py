"""Bare consumption, as a process that holds nothing else: Kafka's client, and Python's defaults.

python -m benchmarks.materializer.bare bare|fastavro STEPS    prints JSON; the brokers come from the environment

Nothing of this project is imported for `bare`: what a larger process loads makes each garbage collection dearer,
which would make consumption look 60 % dearer than it is.
"""

from __future__ import annotations

import io
import json
import os
import resource
import sys
import uuid

from confluent_kafka import Consumer, TopicPartition

BATCH = 20_000
BEGINNING = -2


def cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def consume(steps: int, *, decode: bool) -> float:
    """CPU seconds to consume so many steps from the beginning, and if asked to decode each with fastavro."""
    if decode:
        import fastavro  # noqa: PLC0415

        from schemas import codec  # noqa: PLC0415

        parsed = codec.latest("step").parsed
    consumer = Consumer(
        {
            "bootstrap.servers": os.environ["SOP_KAFKA__BOOTSTRAP_SERVERS"],
            "group.id": f"bench-{uuid.uuid4().hex}",  # never joined
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
        }
    )
    topic = consumer.list_topics("robot-steps", 30).topics["robot-steps"]
    got, before = 0, cpu_seconds()
    consumer.assign([TopicPartition("robot-steps", number, BEGINNING) for number in topic.partitions])
    while got < steps:
        messages = consumer.consume(BATCH, 0.5)
        got += len(messages)
        if decode:
            for message in messages:
                fastavro.schemaless_reader(io.BytesIO((message.value() or b"")[5:]), parsed, None)
    spent = cpu_seconds() - before
    consumer.close()
    return spent


def main() -> None:
    """Measure what the command line names."""
    mode, steps = sys.argv[1], int(sys.argv[2])
    spent = consume(steps, decode=mode == "fastavro")
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"us_per_step": spent / steps * 1e6, "peak_mib": rss}))


if __name__ == "__main__":
    main()
