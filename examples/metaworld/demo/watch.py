"""Looking at a running demo: the fleet by its ledgers, the pipeline by what ClickHouse and the topic say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from examples.metaworld.demo import queries
from examples.metaworld.demo.accounts import Account
from examples.metaworld.ledger import LedgerReader
from infra.clickhouse.client import ClickHouseError, Client, connect
from infra.clock import Clock
from infra.errors import InfraError, KafkaUnavailable
from infra.kafka import LogReader
from infra.kafka.log_reader import all_partitions
from infra.settings import Settings
from schemas.codec import decode, unframe
from schemas.events import EpisodeMaterialized
from schemas.topics import TRAINING_EPISODES

# Quantiles over all episodes cost more than counts, and change slowly.
_LATENCY_SECONDS = 5.0


@dataclass
class Pipeline:
    """What arrived where. Counts are of episodes; latencies (P50, P99) in seconds."""

    sent: int = 0
    materialized: int = 0
    indexed: int = 0
    admitted: int = 0
    versions: int = 0
    learner_step: int = 0
    loss: float = 0.0
    dead_letters: int = 0
    latencies: dict[str, tuple[float | None, float | None]] = field(default_factory=dict)
    trouble: str = ""


class Watcher:
    """Gathers what the live view shows. Nothing here takes part in the pipeline."""

    def __init__(self, settings: Settings, ledgers: Mapping[str, Path], clock: Clock) -> None:
        """Follow the ledgers of robots by their id."""
        self._settings = settings
        self._ledgers = {robot_id: LedgerReader(path) for robot_id, path in ledgers.items()}
        self._clock = clock
        self._reader = LogReader(settings.kafka, "demo-watch")
        self._beginning = all_partitions(self._reader, [TRAINING_EPISODES])
        self._reader.assign(self._beginning)
        self._materialized: set[str] = set()
        self._clickhouse: Client | None = None
        self._latencies_at: float | None = None
        self._pipeline = Pipeline()

    def accounts(self) -> dict[str, Account]:
        """Every robot's ledger as it stands."""
        return {robot_id: Account.of(robot_id, ledger.refresh()) for robot_id, ledger in self._ledgers.items()}

    def pipeline(self, accounts: Mapping[str, Account]) -> Pipeline:
        """What arrived so far; a server that does not answer is told and leaves the numbers as they were."""
        pipeline = self._pipeline
        pipeline.sent = sum(len(account.ended) for account in accounts.values())
        pipeline.trouble = ""
        try:
            self._follow_stream()
            pipeline.materialized = len(self._materialized)
            self._ask(pipeline)
        except KafkaUnavailable as error:
            pipeline.trouble = str(error).splitlines()[0][:100]
            self._reader.assign(self._beginning)  # records beside an error are lost to a reader that goes on
        except (InfraError, ClickHouseError) as error:
            pipeline.trouble = str(error).splitlines()[0][:100]
            self._clickhouse = None
        return pipeline

    def close(self) -> None:
        """Let go of the connections."""
        self._reader.close()
        if self._clickhouse is not None:
            self._clickhouse.close()

    def _follow_stream(self) -> None:
        while messages := self._reader.consume(2_000, 0.05):
            for message in messages:
                self._materialized.add(decode(EpisodeMaterialized, unframe(message.value())[1]).episode_id)

    def _ask(self, pipeline: Pipeline) -> None:
        if self._clickhouse is None:
            self._clickhouse = connect(self._settings.clickhouse, analyst=True)
        numbers = queries.progress(self._clickhouse)
        pipeline.indexed = int(numbers["indexed"])
        pipeline.admitted = int(numbers["admitted"])
        pipeline.versions = int(numbers["version"])
        pipeline.learner_step = int(numbers["learner_step"])
        pipeline.loss = numbers["loss"]
        pipeline.dead_letters = int(numbers["dead_letters"])
        now = self._clock.monotonic()
        if self._latencies_at is None or now - self._latencies_at > _LATENCY_SECONDS:
            self._latencies_at = now
            pipeline.latencies = {name: queries.latency(self._clickhouse, name) for name in queries.LATENCIES}
