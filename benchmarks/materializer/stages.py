"""Where the materializer's CPU goes: thread time of its stages, seen from outside by wrapping their functions."""

from __future__ import annotations

import functools
import time
from collections import defaultdict
from typing import Any

import pyarrow.parquet as pq

from consumers import avro_block, decode, materializer, payload, storekeeper, storing
from consumers.committer import Committer
from consumers.partition import OwnedPartition
from infra.kafka import GroupConsumer, TransactionalProducer

STAGES: tuple[tuple[Any, str, str], ...] = (
    (GroupConsumer, "consume", "consume: records become Python objects"),
    (materializer, "decode", "decode: all"),
    (avro_block, "as_container", "decode: join the bodies"),
    (decode, "read_block", "decode: columns, and proof that rows were told apart"),
    (decode, "_hand_out", "decode: check, sort and cut by episode"),
    (decode, "_decode_event", "decode: starts, ends, interventions"),
    (OwnedPartition, "add", "fold"),
    (storekeeper, "store_wave", "payload: all"),
    (storing, "draft", "payload: rows in order, facts, Arrow table"),
    (pq, "write_table", "payload: Parquet"),
    (payload, "sha256_hex", "payload: sha256"),
    (Committer, "commit", "commit: all"),
    (TransactionalProducer, "commit", "commit: the transaction itself"),
)


class StageTimes:
    """Thread CPU seconds by stage while it is `installed`; stages that contain others count them too."""

    def __init__(self) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)

    def install(self) -> None:
        """Wrap the stages' functions for the rest of this process."""
        for owner, name, label in STAGES:
            setattr(owner, name, self._timed(getattr(owner, name), label))

    def _timed(self, function: Any, label: str) -> Any:
        @functools.wraps(function)
        def timed(*args: Any, **kwargs: Any) -> Any:
            began = time.thread_time()
            try:
                return function(*args, **kwargs)
            finally:
                self.seconds[label] += time.thread_time() - began

        return timed
