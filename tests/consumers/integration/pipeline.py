"""Emulated robots at the wire, `sop` processes, and a checker that reads what they left behind."""

from __future__ import annotations

import os
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from types import TracebackType

from consumers.payload import read_payload
from consumers.ranges import RangeSet
from infra.clickhouse.client import connect
from infra.kafka import EventProducer, LogReader, Message, OutRecord
from infra.kafka.log_reader import all_partitions
from infra.object_store import ObjectStore
from infra.registry import Registry
from infra.settings import Settings
from schemas import codec
from schemas.events import EpisodeLabelled, EpisodeMaterialized, RobotEvent, Step
from schemas.topics import DEAD_LETTERS, TRAINING_EPISODES
from tests.consumers.robots import TOPIC_OF
from tests.preloaded import Command

PATIENCE = 240.0
"""Seconds that any expectation is waited for; far more than it takes, so that a slow machine is not a failure."""


class Pipeline:
    """Processes under test; all of them are gone at the end."""

    def __init__(self, settings: Settings, logs: Path) -> None:
        self.settings = settings
        self._logs = logs
        self._processes: list[Command] = []
        self._producer = EventProducer(settings.kafka, "emulated-robots")
        self.registry = Registry(settings.registry)
        self.objects = ObjectStore(settings.s3)
        self.sent: list[RobotEvent] = []

    def __enter__(self) -> Pipeline:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for process in self._processes:
            self.kill(process)

    def start(self, command: str, **settings: str) -> Command:
        """Start `sop <command>` with further settings, as a process of its own."""
        log = self._logs / f"{command}-{len(self._processes)}.log"
        process = Command(("sop", command), os.environ | settings, log, log)
        self._processes.append(process)
        return process

    def kill(self, process: Command) -> None:
        """kill -9."""
        process.kill()
        process.wait(60)

    def stop(self, process: Command) -> int:
        """SIGTERM; the exit code."""
        process.send_signal(signal.SIGTERM)
        return process.wait(120)

    def send(self, events: Iterable[RobotEvent | EpisodeLabelled]) -> None:
        """Put events on their topics, acknowledged."""
        # First all bytes, then all records: a pause between two of them might end an episode.
        framed = []
        for event in events:
            topic = TOPIC_OF[type(event)]
            schema_id = self.registry.id_of(topic, codec.latest(event.record))
            framed.append((topic, event.robot_id.encode(), codec.frame(schema_id, codec.encode(event))))
            if isinstance(event, RobotEvent):
                self.sent.append(event)
        for topic, key, value in framed:
            self.send_raw(topic, key, value)
        self.flush()

    def send_raw(self, topic: str, key: bytes | None, value: bytes | None) -> None:
        """Put any bytes on a topic."""
        while not self._producer.send(OutRecord(topic, key, value)):
            self._producer.poll(0.1)

    def flush(self) -> None:
        """Wait until everything is acknowledged."""
        assert self._producer.flush(PATIENCE) == 0

    def read(self, topic: str) -> list[Message]:
        """All committed records of a topic."""
        reader = LogReader(self.settings.kafka, "checker")
        try:
            return list(reader.read_to_end(all_partitions(reader, [topic]), PATIENCE))
        finally:
            reader.close()

    def announcements(self) -> list[EpisodeMaterialized]:
        """The training stream, as a plain consumer reads it."""
        values = [message.value() for message in self.read(TRAINING_EPISODES)]
        bodies = [codec.unframe(value if isinstance(value, bytes) else None)[1] for value in values]
        return [codec.decode(EpisodeMaterialized, body) for body in bodies]

    def newest(self) -> dict[str, EpisodeMaterialized]:
        """The highest revision of each episode."""
        return {event.episode_id: event for event in sorted(self.announcements(), key=lambda e: e.revision)}

    def dead_letters(self) -> list[Message]:
        """All dead letters."""
        return self.read(DEAD_LETTERS)

    def query(self, sql: str) -> list[tuple[object, ...]]:
        """Rows, as an analyst gets them."""
        client = connect(self.settings.clickhouse, analyst=True)
        try:
            return [tuple(row) for row in client.query(sql).result_rows]
        finally:
            client.close()

    def check_exactly_once(self, episodes: Iterable[str]) -> None:
        """Every sent event of these episodes is in the newest revision; no revision was announced twice."""
        wanted = set(episodes)
        events = [event for event in self.announcements() if event.episode_id in wanted]
        counts = Counter((event.episode_id, event.revision) for event in events)
        assert [key for key, count in counts.items() if count > 1] == [], "duplicate"
        newest = self.newest()
        assert wanted - newest.keys() == set(), "lost write"
        for episode_id in wanted:
            sent = {e.sequence: e for e in self.sent if e.episode_id == episode_id}
            listed = RangeSet.of(newest[episode_id].sequences)
            assert [s for s in sent if s not in listed] == [], "lost write"
            stored = read_payload(self.objects.get(self.objects.key(newest[episode_id].payload_uri)))
            rows = {int(str(row["sequence"])): row for row in map(stored.steps.values, range(len(stored.steps)))}
            steps = {s: e for s, e in sent.items() if isinstance(e, Step)}
            assert sorted(rows) == sorted(steps)
            assert all(rows[s]["state"] == e.state and rows[s]["action"] == e.action for s, e in steps.items())


def wait_until(holds: Callable[[], bool], what: str) -> None:
    """Wait for an expectation; fail by its name."""
    until = time.monotonic() + PATIENCE
    while not holds():
        assert time.monotonic() < until, f"never: {what}"
        time.sleep(0.2)
