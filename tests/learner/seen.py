"""Episodes made up for tests that have a camera: payloads that refer to segments, and the segments."""

from __future__ import annotations

import io
from collections.abc import Collection
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from infra.errors import ObjectMissing
from infra.object_store import ObjectStore, sha256_hex
from infra.video import SegmentWriter
from learner.policies.base import PolicySpec
from schemas.events import Feature
from schemas.frames import FFV1, H264
from tests.infra.scenes import scene
from tests.learner.synthetic import ACTION, FEATURES, STATE, Synthetic, make_episode

SIZE = 16
WRIST = Feature(name="wrist", dtype="uint8", shape=(SIZE, SIZE, 3))
_FIELDS = pa.struct(
    [
        ("uri", pa.string()),
        ("sha256", pa.string()),
        ("codec", pa.string()),
        ("index", pa.int32()),
        ("data", pa.binary()),
    ]
)
SPEC = PolicySpec(
    architecture="flow-transformer",
    hidden=(8,),
    features=(*FEATURES, WRIST),
    chunk=4,
    fps=10.0,
    tasks=("lift", "push"),
    state_mean=(0.0,) * STATE,
    state_std=(1.0,) * STATE,
    action_mean=(0.0,) * ACTION,
    action_std=(1.0,) * ACTION,
    cameras=("wrist",),
)


@dataclass(frozen=True)
class Seen(Synthetic):
    """With the segments that its payload names, by address."""

    segments: dict[str, bytes]


def see(
    number: int,
    *,
    steps: int = 24,
    dropped: Collection[int] = (3, 4),
    of_a_segment: int = 14,
    size: int = SIZE,
    then: int | None = None,
    codec: str = H264,
    altered: bool = False,
    inline: bool = False,
    declared: Feature = WRIST,
    **changes: Any,
) -> Seen:
    """Episode `number` as the camera `wrist` saw it, but for `dropped` steps; `altered` segments hash right.

    `then`: height and width of what segments after the first one show, if it is another than `size`.
    """
    made = make_episode(number, steps=steps, **changes)
    bucket = made.event.payload_uri.split("/")[2]
    places: list[dict[str, object] | None] = [None] * steps
    segments: dict[str, bytes] = {}
    for begin in range(0, steps, of_a_segment):
        here = [step for step in range(begin, min(begin + of_a_segment, steps)) if step not in dropped]
        if not here:
            continue
        side = size if then is None or begin == 0 else then
        images = scene(steps, side, seed=number)
        writer = SegmentWriter(codec, side, side)
        for step in here:
            writer.add(images[step] if codec == H264 else images[step, ..., 0].astype(np.uint16))
        data = writer.finish()
        if altered:
            at = data.index(b"mdat") + 1_300  # behind the encoder's name, in the first image
            data = data[:at] + bytes(600) + data[at + 600 :]
        digest = sha256_hex(data)
        uri = f"s3://{bucket}/frames/{made.event.episode_id}/{digest}.{'mp4' if codec != FFV1 else 'mkv'}"
        where: dict[str, object] = {"uri": None, "data": data} if inline else {"uri": uri, "data": None}
        if not inline:
            segments[uri] = data
        for place, step in enumerate(here):
            places[step] = {**where, "sha256": digest, "codec": codec, "index": place}
    table = pq.read_table(io.BytesIO(made.payload)).append_column("frame_wrist", pa.array(places, _FIELDS))
    out = io.BytesIO()
    pq.write_table(table, out)
    digest = sha256_hex(out.getvalue())
    event = made.event.model_copy(
        update={
            "payload_sha256": digest,
            "payload_uri": made.event.payload_uri.replace(made.event.payload_sha256, digest),
            "payload_bytes": len(out.getvalue()),
            "features": (*made.event.features, declared),
        }
    )
    return Seen(event, out.getvalue(), segments)


class Shelf(ObjectStore):
    """Objects in memory. The real store is met in integration tests."""

    def __init__(self, made: Collection[Synthetic]) -> None:
        self.bucket = "sop"
        self.asked: list[str] = []
        self.objects = {self.key(item.event.payload_uri): item.payload for item in made}
        for item in made:
            if isinstance(item, Seen):
                self.objects |= {self.key(uri): data for uri, data in item.segments.items()}

    def get(self, key: str) -> bytes:
        self.asked.append(key)
        if key not in self.objects:
            raise ObjectMissing(key)
        return self.objects[key]


def without(made: Seen, count: int = 1) -> Seen:
    """The same episode, whose last segments nobody has."""
    kept = dict(list(made.segments.items())[:-count])
    return replace(made, segments=kept)
