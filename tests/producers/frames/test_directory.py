"""Frames on disk: what counts is whole, whatever a crash cut off; what does not count is dropped."""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from infra.video import decode_segment
from producers.frames.camera import Camera
from producers.frames.directory import EpisodeFolder, FrameDirectory, Offered
from producers.frames.encoder import EpisodeEncoder
from schemas.frames import INLINE_BYTES, steps_of
from tests.producers.fakes import MEMORY

CAMERAS = (Camera("depth", "uint16", (16, 16)), Camera("side", "uint16", (16, 16)))
EPISODE = "0195939e-5c65-7a3b-8f10-6d1c2b3a4f50"


def image(step: int) -> np.ndarray[tuple[int, ...], np.dtype[np.uint16]]:
    return np.full((16, 16), step, np.uint16)


def begun(folder: Path, room: int = 10**9) -> EpisodeFolder:
    episode = FrameDirectory(folder).episode(EPISODE)
    episode.begin(CAMERAS, "s3://sop/frames/e/", room)
    return episode


def encoder(episode: EpisodeFolder, said: list[str], *, length: int = 4, min_free: int = 0) -> EpisodeEncoder:
    return EpisodeEncoder(episode, length, min_free, said.append)


def kept(episode: EpisodeFolder) -> dict[str, list[int]]:
    """Steps by camera, after a look at every frame."""
    found: dict[str, list[int]] = {}
    for event in episode.footage().events:
        for segment in event.segments:
            steps = list(steps_of(segment.steps))
            data = segment.data if segment.data is not None else episode.file(segment).read_bytes()
            assert decode_segment(data, segment.codec)[:, 0, 0].tolist() == steps
            found.setdefault(event.camera, []).extend(steps)
    return found


@settings(deadline=None, max_examples=40)
@given(st.lists(st.sets(st.sampled_from([0, 1])), max_size=30), st.integers(1, 9))
def test_every_frame_is_in_one_segment_beside_those_of_its_stretch_of_steps(
    offered: list[set[int]], length: int
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        episode = begun(Path(name))
        said: list[str] = []
        encoding = encoder(episode, said, length=length)
        for step, cameras in enumerate(offered):
            for camera in sorted(cameras):
                encoding.add(camera, step, image(step))
        encoding.finish()
        wanted = {c.name: [s for s, cameras in enumerate(offered) if n in cameras] for n, c in enumerate(CAMERAS)}
        assert kept(episode) == {name: steps for name, steps in wanted.items() if steps}
        for segment in episode.segments():
            assert len({step // length for step in segment.steps}) == 1
        assert said == []


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_a_manifest_cut_off_anywhere_counts_whole_segments_only_and_the_rest_as_dropped(
    data: st.DataObject,
) -> None:
    with tempfile.TemporaryDirectory(dir=MEMORY) as name:
        episode = begun(Path(name))
        offered = Offered(episode.offered_file, len(CAMERAS))
        encoding = encoder(episode, [])
        for step in range(12):
            offered.add(0)
            encoding.add(0, step, image(step))
        encoding.finish()
        offered.close()
        manifest = episode.path / "manifest.jsonl"
        whole = manifest.read_bytes()
        manifest.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])

        footage = episode.footage()
        if b"\n" not in manifest.read_bytes():
            return  # nothing had begun
        assert footage.frame_count + footage.dropped == 12
        assert footage.frame_count % 4 == 0
        # The encoder that comes after goes on, and what it adds counts.
        again = encoder(episode, [])
        again.add(1, 20, image(20))
        again.finish()
        assert kept(episode) == {
            **({"depth": list(range(footage.frame_count))} if footage.frame_count else {}),
            "side": [20],
        }


def test_stills_travel_in_their_event_until_the_episode_has_enough_of_them(tmp_path: Path) -> None:
    noisy = Camera("still", "uint16", (120, 200))
    episode = FrameDirectory(tmp_path).episode(EPISODE)
    episode.begin([noisy], "s3://sop/frames/e/", 10**9)
    chance, encoding = np.random.default_rng(1), encoder(episode, [])
    for step in range(0, 40, 4):
        encoding.add(0, step, chance.integers(0, 2**16, (120, 200)).astype(np.uint16))
    encoding.finish()
    [event] = episode.footage().events
    inline = [len(segment.data) for segment in event.segments if segment.data is not None]
    assert 0 < len(inline) < 10
    assert max(inline) <= INLINE_BYTES
    assert sum(inline) <= 4 * INLINE_BYTES
    assert all((segment.uri is None) != (segment.data is None) for segment in event.segments)


@pytest.mark.parametrize(
    ("room", "min_free", "text"), [(100, 0, "the spool is full"), (10**9, 2**60, "disk is full")]
)
def test_frames_give_way_when_there_is_no_room_and_it_is_said(
    tmp_path: Path, room: int, min_free: int, text: str
) -> None:
    episode = begun(tmp_path, room)
    said: list[str] = []
    encoding = encoder(episode, said, min_free=min_free)
    for step in range(4):
        encoding.add(0, step, image(step))
    encoding.finish()
    assert kept(episode) == {}
    assert said == [said[0]]
    assert "4 frames of camera depth are dropped" in said[0]
    assert text in said[0]


def test_a_folder_that_is_gone_has_no_footage_and_others_are_left_alone(tmp_path: Path) -> None:
    directory = FrameDirectory(tmp_path)
    assert directory.episode(EPISODE).footage().events == ()
    begun(tmp_path)
    (tmp_path / "not-an-episode").mkdir()
    assert directory.episodes() == [EPISODE]
    assert directory.used_bytes() > 0
    directory.clear()
    assert directory.episodes() == []
    assert (tmp_path / "not-an-episode").is_dir()


def test_what_frames_take_is_known_without_a_look_at_each_until_a_folder_changes(tmp_path: Path) -> None:
    directory, episode = FrameDirectory(tmp_path), begun(tmp_path)
    episode.store("depth", "ffv1", [0], b"x" * 100)
    first = directory.used_bytes()
    assert first == sum(file.stat().st_size for file in episode.path.iterdir())
    episode.store("depth", "ffv1", [1], b"y" * 1_000)
    assert directory.used_bytes() > first + 1_000, "a change of this second is looked at"
    os.utime(episode.path, (1e9, 1e9))
    known = directory.used_bytes()
    (segment, *_) = episode.path.glob("*.mkv")
    segment.write_bytes(bytes(50_000))  # nobody does that
    assert directory.used_bytes() == known
    episode.store("depth", "ffv1", [2], b"z" * 10)
    assert directory.used_bytes() > known + 10_000
    episode.remove()
    assert directory.used_bytes() == 0
