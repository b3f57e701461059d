"""An episode as training sees it: what is remembered of it, and its frames, read from its payload."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from pydantic import BaseModel, ConfigDict

from infra.object_store import sha256_hex
from learner.errors import BadPayload
from learner.policies.base import Floats
from learner.tracks import Track
from schemas.events import Actor, EpisodeEnd, EpisodeMaterialized, EpisodeSource

_COLUMNS = ["index", "actor", "state", "action", "reward"]


class EpisodeRecord(BaseModel):
    """What the learner remembers of an announced episode, and writes into its checkpoints."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    episode_id: str
    revision: int
    robot_id: str
    boot_epoch: int
    task: str
    source: EpisodeSource
    success: bool | None
    end: EpisodeEnd | None = None
    step_count: int
    payload_uri: str
    payload_sha256: str

    @classmethod
    def of(cls, event: EpisodeMaterialized) -> EpisodeRecord:
        """The part of an announcement that is kept."""
        return cls(**{name: getattr(event, name) for name in cls.model_fields})

    @property
    def online(self) -> bool:
        """Whether it counts as online data; demonstrations are the offline data."""
        return self.source is EpisodeSource.ONLINE


@dataclass(frozen=True, slots=True)
class Frames:
    """The steps of one episode, ordered by index.

    index int32[n] (gaps where steps were lost), human bool[n], states float32[n, d], actions float32[n, a]
    as executed, rewards float32[n].
    """

    index: npt.NDArray[np.int32]
    human: npt.NDArray[np.bool_]
    states: Floats
    actions: Floats
    rewards: Floats

    def __len__(self) -> int:
        return len(self.index)


@dataclass(frozen=True, slots=True)
class Episode:
    """What is remembered of an episode together with its frames, and what the wanted cameras saw, by name."""

    record: EpisodeRecord
    frames: Frames
    tracks: Mapping[str, Track] = field(default_factory=dict)


def read_payload(data: bytes, record: EpisodeRecord) -> Frames:
    """Frames of a payload (Parquet), whose bytes must be those that were announced.

    Raises:
        BadPayload: another sha256, not Parquet, columns or rows that do not make an episode.
    """
    require_hash(data, record)
    return decode_payload(data, record)


def require_hash(data: bytes, record: EpisodeRecord) -> None:
    """Refuse a payload with another sha256 than was announced; raises BadPayload."""
    digest = sha256_hex(data)
    if digest != record.payload_sha256:
        raise BadPayload(f"{record.payload_uri} hashes to {digest}, announced was {record.payload_sha256}")


def decode_payload(data: bytes, record: EpisodeRecord) -> Frames:
    """Frames of a payload whose hash is known to be right.

    Raises:
        BadPayload: not Parquet, columns or rows that do not make an episode.
    """
    try:
        table = pq.read_table(io.BytesIO(data), columns=_COLUMNS)
        if holes := [name for name in _COLUMNS if table[name].null_count]:
            raise ValueError(f"nulls in {', '.join(holes)}")
        frames = Frames(
            index=table["index"].to_numpy().astype(np.int32),
            human=pc.equal(table["actor"].cast(pa.string()), Actor.HUMAN.value).to_numpy(),
            states=_vectors(table["state"]),
            actions=_vectors(table["action"]),
            rewards=table["reward"].to_numpy().astype(np.float32),
        )
    except (pa.ArrowException, KeyError, ValueError, TypeError, OSError) as error:
        raise BadPayload(f"{record.payload_uri} is no episode: {error!r}") from error
    if len(frames) != record.step_count:
        raise BadPayload(f"{record.payload_uri} has {len(frames)} rows, announced were {record.step_count}")
    if len(frames) and np.any(np.diff(frames.index) <= 0):
        raise BadPayload(f"{record.payload_uri}: steps are not in order")
    if not (np.isfinite(frames.states).all() and np.isfinite(frames.actions).all()):
        raise BadPayload(f"{record.payload_uri} holds NaN or infinity")
    return frames


def runs_left(frames: Frames, breaks: npt.NDArray[np.bool_] | None = None) -> npt.NDArray[np.int32]:
    """For each frame, how many frames from it on follow without a gap and under the same control, itself included.

    int32[n]. A chunk of targets may reach that far: it never crosses a change between human and policy.

    Args:
        frames: of one episode.
        breaks: bool[n], further frames behind which none follows.
    """
    count = len(frames)
    if count == 0:
        return np.zeros(0, np.int32)
    broken = (frames.human[1:] != frames.human[:-1]) | (np.diff(frames.index) != 1)
    if breaks is not None:
        broken |= breaks[:-1]
    ends = np.append(np.flatnonzero(broken), count - 1)  # last frame of each run
    positions = np.arange(count)
    left: npt.NDArray[np.int32] = (ends[np.searchsorted(ends, positions)] - positions + 1).astype(np.int32)
    return left


def _vectors(column: Any) -> Floats:
    """A column of fixed-size lists as float32[n, width]."""
    array = pa.concat_arrays(column.chunks) if column.num_chunks else pa.array([], column.type)
    if not pa.types.is_fixed_size_list(array.type):
        raise ValueError(f"a vector column is {array.type}")
    flat: Floats = array.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    return flat.reshape(len(array), int(array.type.list_size))
