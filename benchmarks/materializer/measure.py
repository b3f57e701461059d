"""The materializer, measured as a process of its own: CPU of all its threads between first and last record.

python -m benchmarks.materializer.measure stored|unstored|profile STEPS EPISODES    prints JSON

Settings come from the environment. `unstored` leaves the object store's client out, `profile` too, by stage.
"""

from __future__ import annotations

import json
import resource
import sys
import time
import uuid

from infra.heap import keep_memory, settle_heap

keep_memory()  # as `sop materialize` does: before polars is loaded

# ruff: noqa: E402
import psutil

from benchmarks.materializer.bare import cpu_seconds
from benchmarks.materializer.stages import StageTimes
from consumers.materializer import Materializer
from infra.kafka import CommittedOffset, GroupConsumer, LogReader
from infra.kafka.admin import ClusterAdmin
from infra.object_store import ObjectStore
from infra.settings import Settings
from infra.telemetry import EPISODES_EMITTED, configure_logging
from schemas.topics import EPISODE_TOPICS, ROBOT_TOPICS, TOPICS, TRAINING_EPISODES

DEADLINE = 400.0
SAMPLE_SECONDS = 0.5


class NoStore(ObjectStore):
    """A store that takes objects and keeps nothing: what is left is the materializer's own share."""

    def put(self, key: str, data: bytes) -> str:  # noqa: ARG002
        """Address of the key."""
        return self.uri(key)

    def list(self, prefix: str) -> list[str]:  # noqa: ARG002
        """Nothing."""
        return []


def materialize(settings: Settings, episodes: int, *, store: bool) -> tuple[float, list[float]]:
    """CPU seconds from the first record to the last announcement, and memory in MiB over that time."""
    group = f"bench-{uuid.uuid4().hex[:8]}"
    ClusterAdmin(settings.kafka).ensure_first_offsets(group, [TOPICS[name] for name in EPISODE_TOPICS])
    _skip_older_announcements(settings, group)
    # A bucket of its own: what an earlier round stored would be read as a dead member's.
    s3 = settings.s3.model_copy(update={"bucket": group})
    ObjectStore(s3).ensure_bucket()
    chosen = settings.model_copy(
        update={"materializer": settings.materializer.model_copy(update={"group": group}), "s3": s3}
    )
    member = Materializer(chosen)
    settle_heap()
    if not store:
        member._keeper.objects = NoStore(s3)
    until = time.monotonic() + DEADLINE
    while not member._owned:
        member.turn()
    process, memory, sampled = psutil.Process(), [], 0.0
    before = cpu_seconds()
    while _emitted() < episodes:
        if (now := time.monotonic()) > until:
            raise TimeoutError(f"{_emitted()} of {episodes} episodes within {DEADLINE:.0f} s")
        if now - sampled > SAMPLE_SECONDS:
            memory.append(process.memory_info().rss / 2**20)
            sampled = now
        member.turn()
    spent = cpu_seconds() - before
    member.close()
    return spent, memory


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
    stages = StageTimes()
    if mode == "profile":
        stages.install()
    spent, memory = materialize(Settings(), episodes, store=mode == "stored")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    found = {"us_per_step": spent / steps * 1e6, "peak_mib": peak, "mib": memory}
    found["stages"] = {label: seconds / steps * 1e6 for label, seconds in stages.seconds.items()}
    print(json.dumps(found))


if __name__ == "__main__":
    main()
