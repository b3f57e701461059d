"""One measurement, as a process of its own: CPU seconds of everything that it does between first and last record.

python -m benchmarks.materializer.measure MODE STEPS EPISODES    prints JSON; settings come from the environment
"""

from __future__ import annotations

import io
import json
import resource
import sys
import time
import uuid

import fastavro

from consumers.materializer import Materializer
from infra.heap import settle_heap
from infra.kafka import CommittedOffset, GroupConsumer, LogReader
from infra.kafka.admin import ClusterAdmin
from infra.kafka.log_reader import all_partitions
from infra.object_store import ObjectStore
from infra.settings import Settings
from infra.telemetry import EPISODES_EMITTED, configure_logging
from schemas import codec
from schemas.topics import ROBOT_STEPS, ROBOT_TOPICS, TOPICS, TRAINING_EPISODES

BATCH = 20_000
DEADLINE = 400.0


def cpu_seconds() -> float:
    """User and system time of this process, all threads."""
    usage = resource.getrusage(resource.RUSAGE_SELF)
    return usage.ru_utime + usage.ru_stime


def consume(settings: Settings, steps: int, *, decode: bool) -> float:
    """CPU seconds to consume the topic, and if asked to decode it record by record."""
    reader = LogReader(settings.kafka, "bench-consume")
    reader.assign(all_partitions(reader, [ROBOT_STEPS]))
    parsed = codec.latest("step").parsed
    while not (got := len(reader.consume(1, 1.0))):
        pass
    before = cpu_seconds()
    while got < steps:
        messages = reader.consume(BATCH, 0.5)
        got += len(messages)
        if decode:
            for message in messages:
                fastavro.schemaless_reader(io.BytesIO((message.value() or b"")[5:]), parsed, None)
    return cpu_seconds() - before


class NoStore(ObjectStore):
    """A store that takes objects and keeps nothing: what is left is the materializer's own share."""

    def put(self, key: str, data: bytes) -> str:  # noqa: ARG002
        """Address of the key."""
        return self.uri(key)

    def list(self, prefix: str) -> list[str]:  # noqa: ARG002
        """Nothing."""
        return []


def materialize(settings: Settings, episodes: int, *, store: bool) -> tuple[float, float]:
    """CPU seconds from the first record to the last announcement, and wall seconds."""
    group = f"bench-{uuid.uuid4().hex[:8]}"
    ClusterAdmin(settings.kafka).ensure_first_offsets(group, [TOPICS[name] for name in ROBOT_TOPICS])
    _skip_older_announcements(settings, group)
    chosen = settings.model_copy(
        update={"materializer": settings.materializer.model_copy(update={"group": group})}
    )
    member = Materializer(chosen)
    settle_heap()
    if not store:
        member._objects = NoStore(settings.s3)
    until = time.monotonic() + DEADLINE
    while not member._owned:
        member.turn()
    before, started = cpu_seconds(), time.monotonic()
    while _emitted() < episodes:
        if time.monotonic() > until:
            raise TimeoutError(f"{_emitted()} of {episodes} episodes within {DEADLINE:.0f} s")
        member.turn()
    spent, wall = cpu_seconds() - before, time.monotonic() - started
    member.close()
    return spent, wall


def _emitted() -> float:
    samples = [sample for metric in EPISODES_EMITTED.collect() for sample in metric.samples]
    return sum(sample.value for sample in samples if sample.name.endswith("_total"))


def _skip_older_announcements(settings: Settings, group: str) -> None:
    """Rounds before this one announced the same episodes; this group shall not know."""
    reader = LogReader(settings.kafka, "bench-ends")
    ends = {number: reader.bounds((topic, number))[1] for topic, number in reader.partitions(TRAINING_EPISODES)}
    reader.close()
    consumer = GroupConsumer(settings.kafka, group, ROBOT_TOPICS)
    partitions = [(topic, number) for topic in ROBOT_TOPICS for number in ends]
    while set(partitions) - consumer.assigned:
        consumer.consume(1, 0.2)
    committed = consumer.committed(partitions)
    consumer.commit(
        {
            (topic, number): CommittedOffset(
                value.offset, json.dumps({"training-episodes": ends[number], "dead-letters": 0})
            )
            for (topic, number), value in committed.items()
        }
    )
    consumer.close()


def main() -> None:
    """Measure what the command line names."""
    mode, steps, episodes = sys.argv[1], int(sys.argv[2]), int(sys.argv[3])
    configure_logging("bench", "ERROR")
    settings = Settings()
    wall = 0.0
    if mode in ("bare", "fastavro"):
        spent = consume(settings, steps, decode=mode == "fastavro")
    else:
        spent, wall = materialize(settings, episodes, store=mode == "stored")
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({"mode": mode, "us_per_step": spent / steps * 1e6, "wall": wall, "rss_mib": rss}))


if __name__ == "__main__":
    main()
