"""Episodes made up for tests: payloads as the materializer writes them, and their announcements."""

from __future__ import annotations

import io
import uuid
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.object_store import sha256_hex
from learner.episodes import Episode, EpisodeRecord, read_payload
from schemas.events import (
    ClosedBy,
    EpisodeEnd,
    EpisodeMaterialized,
    EpisodeSource,
    Feature,
    Range,
)

STATE, ACTION = 6, 3
FEATURES = (Feature(name="state", shape=(STATE,)), Feature(name="action", shape=(ACTION,)))
START = datetime(2026, 1, 1, tzinfo=UTC)


@dataclass(frozen=True)
class Synthetic:
    """An announcement and the payload that it names."""

    event: EpisodeMaterialized
    payload: bytes

    @property
    def record(self) -> EpisodeRecord:
        return EpisodeRecord.of(self.event)

    @property
    def episode(self) -> Episode:
        return Episode(self.record, read_payload(self.payload, self.record))


def make_episode(
    number: int,
    *,
    task: str = "push",
    source: EpisodeSource = EpisodeSource.ONLINE,
    steps: int = 12,
    human: tuple[int, int] | None = (4, 9),
    robot: str = "robot-1",
    boot_epoch: int = 1,
    revision: int = 1,
    success: bool | None = True,
    end: EpisodeEnd = EpisodeEnd.TERMINATED,
    simulated_ended_at: float | None = None,
    bucket: str = "sop",
    fps: float = 10.0,
    state: int = STATE,
) -> Synthetic:
    """Episode `number`; a human acts in steps human[0] to human[1] - 1. Same arguments, same bytes."""
    random = np.random.default_rng(number)
    states = random.normal(size=(steps, state)).astype(np.float32)
    actions = np.tanh(states[:, :ACTION] - states[:, ACTION : 2 * ACTION]).astype(np.float32)
    if source is EpisodeSource.DEMONSTRATION:
        human = (0, steps)
    first, last = human or (0, 0)
    actors = ["HUMAN" if first <= index < last else "POLICY" for index in range(steps)]
    payload = make_payload(states, actions, actors)
    digest = sha256_hex(payload)
    episode_id = str(uuid.UUID(int=(number + 1) << 64 | 0x7000 << 64 | 0x8 << 60))
    event = EpisodeMaterialized(
        episode_id=episode_id,
        revision=revision,
        robot_id=robot,
        boot_epoch=boot_epoch,
        task=task,
        instruction=f"do {task}",
        embodiment="arm",
        source=source,
        policy="default",
        features=(Feature(name="state", shape=(state,)), *FEATURES[1:]),
        fps=fps,
        end=end,
        success=success,
        closed_by=ClosedBy.COMPLETE,
        payload_uri=f"s3://{bucket}/episodes/{episode_id}/{revision}-{digest}.parquet",
        payload_sha256=digest,
        payload_bytes=len(payload),
        step_count=steps,
        human_step_count=actors.count("HUMAN"),
        reward_sum=-float(steps),
        sequences=(Range(first=number * 1000, last=number * 1000 + steps + 1),),
        missing_count=0,
        source_offsets=(),
        started_at=START + timedelta(seconds=number),
        ended_at=START + timedelta(seconds=number + 1),
        appended_at=START + timedelta(seconds=number + 2),
        materialized_at=START + timedelta(seconds=number + 3),
        simulated_ended_at=simulated_ended_at,
    )
    return Synthetic(event, payload)


def make_payload(
    states: np.ndarray, actions: np.ndarray, actors: list[str], index: list[int] | None = None
) -> bytes:
    """Parquet with the materializer's columns."""
    count = len(states)

    def vectors(rows: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel(), pa.float32()), rows.shape[1])

    table = pa.table(
        {
            "index": pa.array(index or range(count), pa.int32()),
            "sequence": pa.array(range(1, count + 1), pa.int64()),
            "captured_at": pa.array([START] * count, pa.timestamp("us", "UTC")),
            "actor": pa.array(actors),
            "policy_version": pa.array([0] * count, pa.int64()),
            "state": vectors(states),
            "action": vectors(actions),
            "proposed_action": pa.nulls(count, pa.list_(pa.float32(), actions.shape[1])),
            "reward": pa.array([-1.0] * count, pa.float32()),
        }
    )
    out = io.BytesIO()
    pq.write_table(table, out, compression="zstd")
    return out.getvalue()
