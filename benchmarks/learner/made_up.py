"""Episodes as the materializer stores them, of any size, without a fleet."""

from __future__ import annotations

import io
import uuid
from collections.abc import Iterator

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.object_store import sha256_hex
from learner.episodes import EpisodeRecord
from learner.policies.base import PolicySpec
from schemas.events import EpisodeEnd, EpisodeSource, Feature

TASKS = ("coffee-push", "pick-place", "push", "push-wall")
_DEMONSTRATION_EACH = 5
FEWEST = _DEMONSTRATION_EACH * len(TASKS)
"""Episodes, until each task has some of both kinds."""


def spec(state: int, action: int, chunk: int) -> PolicySpec:
    """A policy for such episodes."""
    return PolicySpec(
        architecture="chunked-mlp",
        hidden=(256, 256, 256),
        features=(Feature(name="state", shape=(state,)), Feature(name="action", shape=(action,))),
        chunk=chunk,
        fps=30.0,
        tasks=TASKS,
        state_mean=(0.0,) * state,
        state_std=(1.0,) * state,
    )


def episodes(count: int, steps: int, state: int, action: int) -> Iterator[tuple[EpisodeRecord, bytes]]:
    """Record and payload of each; every fifth is a demonstration, in the others a human acts for a third."""
    for number in range(count):
        random = np.random.default_rng(number)
        human = np.zeros(steps, np.bool_)
        demonstration = number % _DEMONSTRATION_EACH == 0
        begin = 0 if demonstration else int(random.integers(steps - steps // 3))
        human[begin : steps if demonstration else begin + steps // 3] = True
        payload = _parquet(
            random.normal(size=(steps, state)).astype(np.float32),
            random.normal(size=(steps, action)).astype(np.float32),
            human,
        )
        source = EpisodeSource.DEMONSTRATION if demonstration else EpisodeSource.ONLINE
        yield record(number, payload, steps, source), payload


def record(number: int, payload: bytes, steps: int, source: EpisodeSource) -> EpisodeRecord:
    """What a learner remembers of such an episode."""
    digest = sha256_hex(payload or str(number).encode())
    episode_id = str(uuid.UUID(hex=sha256_hex(str(number).encode())[:32]))
    return EpisodeRecord(
        episode_id=episode_id,
        revision=1,
        robot_id=f"robot-{number % 300}",
        boot_epoch=1_700_000_000_000,
        task=TASKS[number % len(TASKS)],
        source=source,
        success=True,
        end=EpisodeEnd.TERMINATED,
        step_count=steps,
        payload_uri=f"s3://sop/episodes/{episode_id}/1-{digest}.parquet",
        payload_sha256=digest,
    )


def _parquet(states: np.ndarray, actions: np.ndarray, human: np.ndarray) -> bytes:
    count = len(states)

    def vectors(rows: np.ndarray) -> pa.Array:
        return pa.FixedSizeListArray.from_arrays(pa.array(rows.ravel(), pa.float32()), rows.shape[1])

    columns = {
        "index": pa.array(range(count), pa.int32()),
        "actor": pa.array(["HUMAN" if one else "POLICY" for one in human]).dictionary_encode(),
        "state": vectors(states),
        "action": vectors(actions),
        "reward": pa.array(np.zeros(count, np.float32)),
    }
    out = io.BytesIO()
    pq.write_table(pa.table(columns), out, compression="lz4")
    return out.getvalue()
