"""The loader with a camera, beside PyAV alone that decodes the same frames."""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np

from benchmarks.learner.intervals import interval
from benchmarks.learner.made_up import TASKS, episodes, spec
from benchmarks.materializer.report import Report
from infra.video import GROUP, SegmentWriter
from infra.video_groups import cut_segment
from learner.episodes import Episode, read_payload
from learner.frames import Room
from learner.policies.base import PolicySpec
from learner.replay import ReplayBuffer
from learner.selection import Selection
from learner.tracks import Track
from schemas.events import Feature
from schemas.frames import H264

_SEGMENT = 100
"""Steps of a segment, as robots have it by default."""
_SHARES = np.full(len(TASKS), 0.5)
_KINDS = (
    "PyAV, in order",
    "loader, new frames",
    "loader, seen before",
    "PyAV, at random",
    "loader, none kept",
    "loader, a quarter kept",
)

Draw = Callable[[], None]


@dataclass(frozen=True)
class Video:
    """One episode's segments, which all episodes have: to whoever decodes them it is all the same."""

    segments: list[bytes]
    track: Track


def seeing(options: argparse.Namespace, report: Report, folder: Path) -> float:
    """Samples a second of the process's own time, with and without kept images; the worse of both ratios."""
    policy, video = _spec(options), _video(options.steps, options.image)
    made = [
        Episode(one, read_payload(payload, one), {"wrist": video.track})
        for one, payload in episodes(options.videos, options.steps, options.state, options.action)
    ]
    frames = options.videos * options.steps
    some = max(1, frames // options.image_batch // 8) * options.image_batch
    rates: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    walls: dict[str, list[float]] = {kind: [] for kind in _KINDS}
    disk = 0

    def measure(kind: str, work: Draw, count: int) -> None:
        began, began_on_the_wall = time.process_time(), time.perf_counter()
        work()
        rates[kind].append(count / (time.process_time() - began))
        walls[kind].append(count / (time.perf_counter() - began_on_the_wall))

    for number in range(options.image_rounds):
        random = np.random.default_rng(number)
        measure(_KINDS[0], partial(_in_order, video, options.videos), frames)
        buffer = _filled(policy, options.image_batch, made, Room(folder / "images", image_bytes=2**40))
        before = buffer.memory()["disk"]
        for kind in _KINDS[1:3]:
            measure(kind, partial(_draw, buffer, random, frames, options.image_batch), frames)
        disk = buffer.memory()["disk"] - before
        buffer.close()
        places = random.integers(options.steps, size=some).tolist()
        measure(_KINDS[3], partial(_at_random, video, places), some)
        buffer = _filled(policy, options.image_batch, made, Room(folder / "images", image_bytes=0))
        measure(_KINDS[4], partial(_draw, buffer, random, some, options.image_batch), some)
        encoded = buffer.memory()["disk"]
        buffer.close()
        quarter = Room(folder / "images", image_bytes=frames * 3 * options.image**2 // 4)
        buffer = _filled(policy, options.image_batch, made, quarter)
        _draw(buffer, random, frames // 4, options.image_batch)
        measure(_KINDS[5], partial(_draw, buffer, random, some, options.image_batch), some)
        buffer.close()
    ratios = {
        f"{_KINDS[one]} / {_KINDS[bare]}": [
            a / b for a, b in zip(rates[_KINDS[one]], rates[_KINDS[bare]], strict=True)
        ]
        for one, bare in ((1, 0), (2, 0), (4, 3))
    }
    rows = [
        [kind, *(f"{value:,.0f}" for value in interval(rates[kind])), f"{interval(walls[kind])[0]:,.0f}"]
        for kind in _KINDS
    ]
    rows += [[kind, *(f"**{value:.2f}**" for value in interval(found)), ""] for kind, found in ratios.items()]
    report.section(
        "The learner's loader with a camera",
        ["samples from", "a second of CPU, median", "least", "most", "on the wall"],
        rows,
        f"{options.videos} episodes of {options.steps} steps, images of {options.image}×{options.image}, H.264 "
        f"with a key frame each {GROUP}, batches of {options.image_batch}; {options.image_rounds} interleaved "
        f"rounds of {frames:,} samples ({some:,} at random and where not all are kept). Time is that of the "
        f"process, all its threads together. PyAV in order decodes each segment once, from memory; at random it "
        f"opens a sample's segment, seeks its key frame and decodes up to it. On disk a frame takes "
        f"{encoded / frames / 1e3:.1f} KB encoded, with its vectors, and {disk / frames / 1e3:.0f} KB kept; in "
        f"memory nothing.",
    )
    return min(interval(found)[0] for found in ratios.values())


def _spec(options: argparse.Namespace) -> PolicySpec:
    plain = spec(options.state, options.action, options.chunk)
    wrist = Feature(name="wrist", dtype="uint8", shape=(options.image, options.image, 3))
    return plain.model_copy(update={"features": (*plain.features, wrist), "cameras": ("wrist",)})


def _video(steps: int, size: int) -> Video:
    """A textured ground that moves, with a sensor's noise."""
    random = np.random.default_rng(0)
    y, x = np.mgrid[0:size, 0:size]
    waves = 40 * np.sin(x / 5) + 40 * np.cos(y / 7) + 20 * np.sin((x + y) / 3)
    ground = waves[..., None] * np.array([1.0, 0.8, 0.6]) + np.array([120.0, 110.0, 130.0])
    segments: list[bytes] = []
    groups: list[bytes] = []
    for begin in range(0, steps, _SEGMENT):
        writer = SegmentWriter(H264, size, size)
        for step in range(begin, min(begin + _SEGMENT, steps)):
            image = np.roll(ground, 2 * step, 1) + random.normal(0, 2, ground.shape)
            writer.add(np.clip(image, 0, 255).astype(np.uint8))
        segments.append(writer.finish())
        groups += cut_segment(segments[-1], H264).groups
    numbers = np.arange(steps, dtype=np.int32)
    if _SEGMENT % GROUP:
        raise ValueError("groups of a segment are counted through here")
    return Video(segments, Track((size, size), tuple(groups), numbers // GROUP, numbers % GROUP))


def _filled(policy: PolicySpec, batch: int, made: list[Episode], room: Room) -> ReplayBuffer:
    buffer = ReplayBuffer(policy, batch, room=room)
    for episode in made:
        buffer.add(episode, Selection.of(np.ones(len(episode.frames), np.bool_)))
    return buffer


def _draw(buffer: ReplayBuffer, random: np.random.Generator, count: int, batch: int) -> None:
    for _ in range(count // batch):
        view = buffer.sample(random, _SHARES).images["wrist"]
        if not view.present.all():
            raise RuntimeError("a frame is missing")


def _in_order(video: Video, times: int) -> None:
    for _ in range(times):
        for segment in video.segments:
            for _image in _images(segment):
                pass


def _images(segment: bytes) -> Iterator[np.ndarray]:
    with av.open(io.BytesIO(segment), "r") as container:
        for frame in container.decode(video=0):
            yield frame.to_ndarray(format="rgb24")


def _at_random(video: Video, steps: list[int]) -> None:
    for step in steps:
        number, wanted = divmod(step, _SEGMENT)
        with av.open(io.BytesIO(video.segments[number]), "r") as container:
            stream = container.streams.video[0]
            if stream.time_base is None or stream.average_rate is None:
                raise RuntimeError("a segment without a rate")
            time_of = int(wanted / (stream.time_base * stream.average_rate))
            container.seek(time_of, stream=stream)
            for frame in container.decode(stream):
                if frame.pts is not None and frame.pts >= time_of:
                    frame.to_ndarray(format="rgb24")
                    break
