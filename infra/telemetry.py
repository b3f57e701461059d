"""What a process tells about itself: structured logs, metrics with names in one place, and trace headers."""

from __future__ import annotations

import logging
import secrets
import sys
from collections.abc import Mapping

import structlog
from prometheus_client import Counter, Gauge, Histogram

_SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0)

RECORDS_CONSUMED = Counter("sop_records_consumed_total", "Records taken from Kafka.", ["topic"])
LAG = Gauge("sop_lag_records", "Records of an owned partition that were not read yet.", ["topic", "partition"])
EPISODES_OPEN = Gauge("sop_materializer_episodes_open", "Episodes begun and not yet sealed.")
OLDEST_EPISODE_SECONDS = Gauge(
    "sop_materializer_oldest_episode_seconds",
    "Time since the quietest open episode was last heard of; 0 for none.",
)
PARTITIONS_HELD = Gauge(
    "sop_materializer_partitions_held", "Partition numbers that cannot go on while others do; /ready says why."
)
SPILL_BYTES = Gauge("sop_materializer_spill_bytes", "Bytes of open episodes that lie on disk.")
EPISODES_EMITTED = Counter(
    "sop_materializer_episodes_emitted_total", "Episodes announced on training-episodes.", ["closed_by"]
)
DUPLICATES = Counter("sop_materializer_duplicates_total", "Events that had been seen before.")
RECORDS_SKIPPED = Counter(
    "sop_materializer_records_skipped_total", "Records that Kafka's client left out, and that were read again."
)
DEAD_LETTERS = Counter("sop_materializer_dead_letters_total", "Records written to dead-letters.", ["reason"])
STAGE_SECONDS = Histogram(
    "sop_materializer_stage_seconds", "Time in each stage of a batch.", ["stage"], buckets=_SECONDS
)
TRANSACTIONS_ABORTED = Counter("sop_materializer_transactions_aborted_total", "Transactions rolled back.")
ROWS_INSERTED = Counter("sop_index_rows_inserted_total", "Rows written to ClickHouse.", ["table"])
UNAVAILABLE = Counter("sop_unavailable_total", "Calls that a server did not answer.", ["server"])
PAYLOADS_READ = Counter("sop_learner_payloads_read_total", "Payloads that the learner read.", ["source"])
RECORDS_PASSED_OVER = Counter(
    "sop_learner_records_passed_over_total", "Records that the learner could not decode, and left out.", ["topic"]
)
EPISODES_SET_ASIDE = Counter("sop_learner_set_aside_total", "Episodes refused by the learner.", ["reason"])
FRAMES_UNREADABLE = Counter(
    "sop_learner_frames_unreadable_total", "Drawn camera frames that could not be decoded, shown as absent."
)
LEARNER_STEP = Gauge("sop_learner_step", "Gradient steps taken on the current policy line.")
UPDATES_SKIPPED = Counter(
    "sop_learner_updates_skipped_total", "Updates whose gradient was absurd: nothing was learned from them."
)
LEARNER_VERSION = Gauge("sop_learner_version", "Newest policy version published.")


def _to_standard_error(*_: object) -> structlog.PrintLogger:
    """Standard error as it is now: a program that runs a command inside itself may replace and close it."""
    return structlog.PrintLogger(sys.stderr)


def configure_logging(process: str, level: str = "INFO") -> None:
    """Logs to standard error: for people on a terminal, one JSON object a line elsewhere."""
    renderer: structlog.typing.Processor = (
        structlog.dev.ConsoleRenderer() if sys.stderr.isatty() else structlog.processors.JSONRenderer()
    )
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            structlog.processors.format_exc_info,
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(logging.getLevelNamesMapping()[level]),
        logger_factory=_to_standard_error,
    )
    structlog.contextvars.bind_contextvars(process=process)


def set_lags(lags: Mapping[tuple[str, int], int]) -> None:
    """Records not read yet, by topic and partition number; partitions that went away are forgotten."""
    LAG.clear()
    for (topic, number), lag in lags.items():
        LAG.labels(topic, str(number)).set(lag)


def new_traceparent() -> bytes:
    """A W3C trace context for the `traceparent` header: a new trace, sampled."""
    return f"00-{secrets.token_hex(16)}-{secrets.token_hex(8)}-01".encode()
