"""Images in batches: those of the very steps that are drawn, whatever is decoded already, left, or damaged."""

from __future__ import annotations

import re
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from structlog.testing import capture_logs

from infra.clock import ManualClock
from infra.footage import Footage, Segments
from infra.settings import LearnerSettings
from learner.cache import PayloadCache
from learner.core import TrainingCore
from learner.episodes import Episode
from learner.errors import BadPayload
from learner.frames import Room
from learner.intake import Intake
from learner.kept import keep_all
from learner.patience import Patience
from learner.payloads import PayloadFetcher
from learner.replay import Batch, ReplayBuffer
from learner.selection import Selection
from learner.team import Team
from learner.tracks import tracks_of
from schemas.events import Feature
from schemas.frames import FFV1
from tests.learner.integration.site import wait_for
from tests.learner.seen import SIZE, SPEC, WRIST, Seen, Shelf, see, without
from tests.learner.synthetic import Synthetic, make_episode
from tests.learner.test_intake import Announcements, set_aside_counted

IMAGE = SIZE * SIZE * 3
SHARES = np.full(2, 0.5)
MADE = [
    see(number, steps=8 + 7 * number, dropped=range(number, 40, 5), of_a_segment=5 + 6 * number)
    for number in range(4)
]
SEEING = LearnerSettings(
    architecture="flow-transformer", hidden=(8,), batch_size=8, cameras=("wrist",), hg_autonomous_weight=1.0
)
NOTHING_SEEN = see(7, dropped=range(24))


def loaded(made: Seen) -> Episode:
    tracks = tracks_of(made.payload, ["wrist"], Segments(Shelf([made])))
    return Episode(made.record, made.episode.frames, tracks)


def everything(episode: Episode) -> Selection:
    return Selection.of(np.ones(len(episode.frames), np.bool_))


def truth(made: Sequence[Seen]) -> dict[bytes, tuple[bool, np.ndarray]]:
    """What was seen in a step, by its state."""
    found = {}
    for one in made:
        view = Footage(one.payload, Segments(Shelf([one]))).read("wrist")
        for step, state in enumerate(one.episode.frames.states):
            present = view is not None and bool(view.present[step])
            image = view.images[step] if view is not None else np.zeros((SIZE, SIZE, 3), np.uint8)
            found[state.tobytes()] = present, image
    return found


def check(batch: Batch, wanted: dict[bytes, tuple[bool, np.ndarray]]) -> None:
    view = batch.images["wrist"]
    assert view.images.shape == (len(batch), SIZE, SIZE, 3)
    assert view.images.dtype == np.uint8
    for state, image, present in zip(batch.states, view.images, view.present, strict=True):
        assert present == wanted[state.tobytes()][0]
        np.testing.assert_array_equal(image, wanted[state.tobytes()][1])


@contextmanager
def buffer_of(room: Room, size: int = 16) -> Iterator[ReplayBuffer]:
    buffer = ReplayBuffer(SPEC, size, room=room)
    try:
        yield buffer
    finally:
        buffer.close()


@settings(max_examples=25, deadline=None)
@given(
    kept=st.sampled_from([0, 3 * IMAGE, 20 * IMAGE, 2**30]),
    does=st.lists(st.one_of(st.integers(0, 3), st.tuples(st.integers(0, 3)), st.none()), min_size=2, max_size=20),
)
def test_a_sample_shows_its_own_step_whatever_came_and_left(
    kept: int, does: list[int | tuple[int] | None], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """A number comes (again), a tuple's leaves, None draws."""
    episodes, wanted = [loaded(made) for made in MADE], truth(MADE)
    random = np.random.default_rng(0)
    with buffer_of(Room(tmp_path_factory.mktemp("frames"), image_bytes=kept)) as buffer:
        for one in (0, *does, None):
            if isinstance(one, int):
                buffer.add(episodes[one], everything(episodes[one]))
            elif one is not None:
                buffer.remove(episodes[one[0]].record.episode_id)
            elif buffer.sizes().any():
                check(buffer.sample(random, SHARES), wanted)


def test_kept_images_change_the_batches_by_nothing_and_keep_to_their_bound(tmp_path: Path) -> None:
    def drawn(bound: int) -> list[np.ndarray]:
        with buffer_of(Room(tmp_path, image_bytes=bound)) as buffer:
            for made in MADE:
                buffer.add(loaded(made), everything(made.episode))
            random = np.random.default_rng(3)
            before = buffer.memory()["disk"]
            found = [buffer.sample(random, SHARES).images["wrist"].images.copy() for _ in range(30)]
            assert (buffer.memory()["disk"] - before) <= bound
            assert (buffer.memory()["disk"] > before) == (bound > 0)
            return found

    wanted = drawn(0)
    assert len({image.tobytes() for batch in wanted for image in batch}) > 30
    for bound in (4 * IMAGE, 2**30):
        np.testing.assert_array_equal(drawn(bound), wanted)


def test_who_sees_draws_the_samples_that_one_without_cameras_draws(tmp_path: Path) -> None:
    blind = ReplayBuffer(SPEC.model_copy(update={"cameras": ()}), 16, room=Room(tmp_path))
    with buffer_of(Room(tmp_path)) as seeing:
        for made in MADE:
            seeing.add(loaded(made), everything(made.episode))
            blind.add(made.episode, everything(made.episode))
        one, other = (np.random.default_rng(5) for _ in range(2))
        for _ in range(5):
            wanted = blind.sample(other, SHARES)
            assert wanted.images == {}
            np.testing.assert_array_equal(seeing.sample(one, SHARES).states, wanted.states)
    blind.close()


def test_only_what_is_selected_is_drawn_and_an_episode_without_any_frame_shows_nothing(tmp_path: Path) -> None:
    made = MADE[3]
    chosen = np.zeros(made.record.step_count, np.bool_)
    chosen[[3, 11, 12]] = True
    with buffer_of(Room(tmp_path)) as buffer:
        buffer.add(loaded(made), Selection.of(chosen))
        buffer.add(loaded(NOTHING_SEEN), everything(NOTHING_SEEN.episode))
        batch = buffer.sample(np.random.default_rng(0), SHARES)
        check(batch, truth([made, NOTHING_SEEN]))
        assert batch.images["wrist"].present.any()
        assert not batch.images["wrist"].present.all()
        part = batch.only(np.array([2, 5]))
        np.testing.assert_array_equal(part.images["wrist"].images, batch.images["wrist"].images[[2, 5]])


def test_frames_that_cannot_be_decoded_count_as_dropped_alike_with_and_without_kept_images(tmp_path: Path) -> None:
    made = see(
        1, altered=True, dropped=(), size=64, declared=Feature(name="wrist", dtype="uint8", shape=(64, 64, 3))
    )
    spec = SPEC.model_copy(update={"features": (*SPEC.features[:2], made.event.features[-1])})
    views = []
    for bound in (0, 2**30):
        buffer = ReplayBuffer(spec, 16, room=Room(tmp_path, image_bytes=bound))
        buffer.add(loaded(made), everything(made.episode))
        random = np.random.default_rng(0)
        drawn = (buffer.sample(random, SHARES).images["wrist"] for _ in range(12))
        views.append([(view.images.copy(), view.present.copy()) for view in drawn])
        buffer.close()
    present = np.concatenate([present for _, present in views[0]])
    assert 0 < present.sum() < len(present)
    for (images, one), (others, other) in zip(*views, strict=True):
        np.testing.assert_array_equal(one, other)
        np.testing.assert_array_equal(images[one], others[other])
        assert not images[~one].any()


def fetcher(made: Sequence[Synthetic], cache: Path | None = None) -> tuple[PayloadFetcher, Shelf]:
    shelf = Shelf(made)
    found = PayloadFetcher(
        shelf, Patience(threading.Event()), cache=PayloadCache(cache, 2**30) if cache is not None else None
    )
    found.cameras = ("wrist",)
    return found, shelf


ALTERED = see(2)
BAD = {
    "missing": (without(see(1)), "frames/"),
    "altered": (
        Seen(ALTERED.event, ALTERED.payload, {uri: data + b"x" for uri, data in ALTERED.segments.items()}),
        "recorded was",
    ),
    "depth": (see(3, codec=FFV1), "a segment of ffv1, where h264 is wanted"),
    "elsewhere": (
        Seen(
            (other := see(4, bucket="elsewhere")).event.model_copy(
                update={"payload_uri": other.event.payload_uri.replace("elsewhere", "sop")}
            ),
            other.payload,
            {},
        ),
        "elsewhere",
    ),
    "sizes": (see(5, then=2 * SIZE), r"different sizes: \[\(16, 16\), \(32, 32\)\]"),
}


@pytest.mark.parametrize("kind", BAD)
def test_an_episode_with_a_bad_segment_is_a_bad_payload_and_the_others_come(kind: str) -> None:
    bad, reason = BAD[kind]
    made = [MADE[0], bad, see(9, inline=True)]
    payloads, _ = fetcher(made)
    found = [episode for _, episode in payloads.take_all([item.record for item in made])]
    payloads.close()
    assert [isinstance(episode, BadPayload) for episode in found] == [False, True, False]
    assert re.search(reason, str(found[1]))
    assert isinstance(found[2], Episode)
    assert (found[2].tracks["wrist"].group >= 0).sum() == 22


@pytest.mark.parametrize(
    ("shown", "reason"),
    [
        (see(5, size=2 * SIZE), r"'wrist' shows images of \(32, 32\), announced were \(16, 16, 3\)"),
        (see(5, then=2 * SIZE), "one camera's frames are of different sizes"),
    ],
    ids=["announced", "mixed"],
)
def test_an_episode_of_images_of_other_sizes_is_set_aside_and_training_goes_on(
    shown: Seen, reason: str, tmp_path: Path
) -> None:
    made = [MADE[1], shown, MADE[2]]
    payloads, _ = fetcher(made)
    intake = Intake(Announcements(list(made)), payloads, ManualClock())
    core = TrainingCore(SEEING, SPEC, room=Room(tmp_path))
    intake.require(core.require_admissible)
    intake.poll(0.0)
    with capture_logs() as logs, set_aside_counted(BadPayload):
        for seen in list(intake.waiting.values()):
            if (episode := intake.take(seen)) is not None:
                core.admit(episode)
            core.update(online=True)
    payloads.close()
    (told,) = [line for line in logs if line["event"] == "episode_set_aside"]
    assert re.search(reason, told["reason"])
    assert [left.episode_id for left in intake.set_aside] == [told["episode_id"]] == [shown.event.episode_id]
    assert {record.episode_id for record in core.episodes.held()} == {one.event.episode_id for one in made[::2]}
    assert core.learner_step == 3
    core.close()


def test_segments_lie_in_the_payloads_cache_and_are_not_asked_for_twice(tmp_path: Path) -> None:
    made = [MADE[2], make_episode(30)]
    for life in range(2):
        payloads, shelf = fetcher(made, tmp_path)
        found = payloads.take(made[0].record)
        assert "wrist" not in payloads.take(made[1].record).tracks
        payloads.close()
        assert len(found.tracks["wrist"].groups) > 1
        assert (shelf.asked == []) == (life == 1)


def test_what_memory_has_no_room_for_is_fetched_onto_the_disk_with_its_segments(tmp_path: Path) -> None:
    made = [MADE[1], MADE[2]]
    shelf, cache = Shelf(made), PayloadCache(tmp_path, 2**30)
    payloads = PayloadFetcher(shelf, Patience(threading.Event()), cache=cache, threads=1, ahead=1)
    payloads.cameras = ("wrist",)
    for item in made:
        payloads.prefetch(item.record)
    payloads.take(made[0].record)
    wait_for(lambda: len(list(cache.files())) == len(shelf.objects))
    shelf.objects.clear()
    assert payloads.take(made[1].record).tracks["wrist"].size == (SIZE, SIZE)
    payloads.close()


def test_without_cameras_no_segment_is_asked_for() -> None:
    payloads, shelf = fetcher(MADE)
    payloads.cameras = ()
    assert payloads.take(MADE[0].record).tracks == {}
    payloads.close()
    assert shelf.asked == [shelf.key(MADE[0].event.payload_uri)]


def test_demonstrations_that_wait_on_disk_keep_what_was_seen(tmp_path: Path) -> None:
    episodes = [loaded(MADE[1]), make_episode(30).episode, loaded(NOTHING_SEEN), loaded(MADE[2])]
    for found, wanted in zip(keep_all(episodes, Room(tmp_path)), episodes, strict=True):
        assert found.record == wanted.record
        assert found.tracks.keys() == wanted.tracks.keys()
        for name, track in found.tracks.items():
            assert (track.size, track.groups) == (wanted.tracks[name].size, wanted.tracks[name].groups)
            np.testing.assert_array_equal(track.group, wanted.tracks[name].group)
            np.testing.assert_array_equal(track.place, wanted.tracks[name].place)
        np.testing.assert_array_equal(found.frames.states, wanted.frames.states)


@pytest.mark.parametrize("ranks", [1, 2])
def test_a_restored_core_that_sees_goes_on_bit_for_bit_and_what_is_seen_matters(
    tmp_path: Path, ranks: int
) -> None:
    def core(episodes: Sequence[Episode], bound: int = 2**30) -> TrainingCore:
        made = TrainingCore(SEEING, SPEC, room=Room(tmp_path, image_bytes=bound), team=Team(ranks))
        for episode in episodes:
            made.admit(episode)
        return made

    episodes = [loaded(made) for made in MADE]
    one = core(episodes)
    for _ in range(4):
        one.update(online=True)
    other = TrainingCore.restore(SEEING, *one.snapshot(), room=Room(tmp_path, image_bytes=0), team=Team(ranks))
    for episode in episodes:
        other.refill(episode)
    for _ in range(4):
        one.update(online=True)
        other.update(online=True)
    blind = core([Episode(episode.record, episode.frames) for episode in episodes])
    for _ in range(8):
        blind.update(online=True)
    assert one.artifact() == other.artifact()
    assert one.artifact() != blind.artifact()
    for made in (one, other, blind):
        made.close()
    assert WRIST in one.spec.features
