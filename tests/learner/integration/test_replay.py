"""A real line's versions are trained again from its journal, after whatever happened to its learners."""

from __future__ import annotations

import json
import subprocess
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path

import pytest

from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.object_store import ObjectStore, sha256_hex
from infra.settings import CacheSettings
from learner.checkpoint import CheckpointStore
from learner.errors import InvalidArtifact, JournalMissing, PayloadGone
from learner.journal import Entry, Journal, path_to
from learner.patience import Patience
from learner.policies.artifact import pack, unpack
from learner.present import verdict
from learner.reproduce import difference_of, replay
from schemas.events import EpisodeSource
from tests import preloaded
from tests.learner.integration.site import Site, terminate, wait_for
from tests.learner.synthetic import Synthetic, make_episode

# Eight learners are started and killed before the first test; on a busy machine that takes minutes.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]

CRASH = "tests.learner.integration.crash"
STUCK_SECONDS, PATIENCE = 3.0, 300.0
"""A learner that lives so long after it took up what came may wait for more; none lives for the second."""

SETTINGS = {"PRETRAIN_EPISODES": "2", "PRETRAIN_STEPS": "20", "PUBLISH_EVERY": "10", "CHECKPOINT_EVERY": "3"}
CRASHES = (
    ("journal", 1),
    ("update", 7),
    ("seal", 1),
    ("journal", 2),
    ("admission", 3),
    ("announcement", 2),
    ("taking over", 1),
    ("turn", 1),
)
FLEET = [make_episode(20 + n, steps=12, human=(2, 10), robot=f"robot-{n % 3}") for n in range(24)]
REVISED = [make_episode(20 + n, steps=14, human=(2, 12), robot=f"robot-{n % 3}", revision=2) for n in range(4)]


def decided(site: Site, made: Synthetic) -> bool:
    """Whether the journal says what becomes of an episode."""
    for key in site.store.list("journals/kills/"):
        with suppress(ObjectMissing):  # a version is published, and what was open until then goes
            if made.event.episode_id.encode() in site.store.get(key):
                return True
    return False


@pytest.fixture(scope="module")
def line(site: Site) -> str:
    """A line whose learners were killed at eight points of their lives, while episodes and revisions came in."""
    demonstrations = [
        make_episode(n, source=EpisodeSource.DEMONSTRATION, task=task, steps=12)
        for n, task in enumerate(("lift", "push"))
    ]
    altered = make_episode(90)
    site.put(demonstrations)
    coming: list[list[Synthetic]] = [FLEET[n : n + 2] for n in range(0, 24, 2)]
    newest: list[Synthetic] = []
    for place, (call, count) in enumerate(CRASHES):
        with site.learner("kills", SETTINGS, command=(CRASH, call, str(count))) as process:
            if place > 1 and coming:
                site.put(newest := coming.pop(0))
            if place == 5:
                site.put([altered], payload=False)
                site.put(REVISED)
            until = time.monotonic() + PATIENCE
            while process.poll() is None and time.monotonic() < until:
                # What comes before it looks would all be admitted at once, and nothing be left for later.
                looked = bool(newest) and decided(site, newest[-1])
                with suppress(subprocess.TimeoutExpired):
                    process.wait(STUCK_SECONDS if looked else 0.2)
                if looked and process.poll() is None and len(coming) > len(CRASHES) - place:
                    site.put(newest := coming.pop(0))
            assert process.poll() == -9, (call, count, site.log("kills")[-3000:])
    for rest in coming:
        site.put(rest)
    with site.learner("kills", SETTINGS) as process:
        # One update for each of 12 × 24 steps and 2 × 4 that came with revisions; the last ones fill no version.
        wait_for(lambda: site.versions("kills")[-1].learner_step >= 20 + 290, timeout=240.0)
        assert terminate(process, within=120.0) == 0
    return "kills"


def test_every_version_of_a_line_whose_learners_were_killed_comes_out_again(site: Site, line: str) -> None:
    versions = site.versions(line)
    assert [version.version for version in versions] == list(range(1, len(versions) + 1))
    journal = Journal(site.store, line, Patience(threading.Event()))
    published = {version.version: version for version in versions}
    path = path_to(len(versions), published, journal)
    admitted = [d for segment in path for entry in segment.entries for d in entry.admitted]
    assert {(d.record.episode_id, d.record.revision) for d in admitted} >= {
        (made.record.episode_id, made.record.revision) for made in (*FLEET[4:], *REVISED)
    }
    assert len({(d.record.episode_id, d.record.revision) for d in admitted}) == len(admitted), "admitted twice"
    seen: list[tuple[int, int]] = []
    for version in (1, len(versions) // 2, len(versions)):
        done = replay(site.settings, line, version, told=lambda number, steps: seen.append((number, steps)))
        assert done.equal, verdict(done)
        assert done.trained == published[version].sha256
        assert [" av " in kind for kind in done.there] == [False], "this line sees no images"
    assert seen[-1] == (len(versions), versions[-1].learner_step)
    near = replay(site.settings, line, len(versions), from_checkpoint=True)
    assert near.equal
    assert near.updates < versions[-1].learner_step


def test_the_command_prints_both_hashes_and_says_by_its_code_whether_they_agree(
    site: Site, line: str, tmp_path: Path
) -> None:
    def command(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        return preloaded.run(
            ("sop", "replay", "--policy", line, *arguments), site.environment | {"COLUMNS": "200"} | environment
        )

    good = command("--version", "2")
    published = site.versions(line)[1]
    assert good.returncode == 0, good.stderr
    assert good.stdout.count(published.sha256) == 2
    assert "equal, bit for bit" in good.stdout
    occupied = tmp_path / "occupied"
    occupied.write_text("not a directory")
    for none, said in (
        (command("--version", "999"), "no version 999"),
        (command("--version", "2", SOP_CACHE__DIRECTORY=str(occupied)), str(occupied)),
    ):
        assert none.returncode == 1
        assert said in none.stderr
        assert "Traceback" not in none.stderr


@contextmanager
def outage(key: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The store does not answer the first request for this object; every request for it is noted."""
    asked: list[str] = []

    def get(store: ObjectStore, wanted: str) -> bytes:
        asked.extend([key] * (wanted == key))
        if asked == [key] and wanted == key:
            raise ObjectStoreUnavailable("away for a moment")
        return real(store, wanted)

    real = ObjectStore.get
    with monkeypatch.context() as patch:
        patch.setattr(ObjectStore, "get", get)
        yield asked


def test_a_journal_that_is_not_true_makes_other_weights_and_the_replay_says_so(
    site: Site, line: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    versions = site.versions(line)
    key = f"journals/{line}/versions/{1:08d}-{versions[0].sha256}.json"
    original = site.store.get(key)
    document = json.loads(original)
    document["config"] = json.dumps(json.loads(document["config"]) | {"pretrain_learning_rate": 0.1})
    site.store.put(key, json.dumps(document).encode())
    try:
        done = replay(site.settings, line, 1)
        assert not done.good
        assert "DIFFERENT on the same kind of machine" in verdict(done)
        published = site.store.key(versions[0].artifact_uri)
        weights = site.store.get(published)
        site.store.put(published, b"altered")
        with outage(published, monkeypatch) as asked:
            unread = replay(site.settings, line, 1)
        site.store.put(published, weights)
        assert len(asked) == 2, "an outage is waited out"
        assert (unread.published, unread.trained, unread.difference) == (versions[0].sha256, done.trained, None)
        document["machine"] = "a machine of another kind"
        site.store.put(key, json.dumps(document).encode())
        other = replay(site.settings, line, 1)
        assert other.other_hardware
        assert not other.good
        assert "MORE than" in verdict(other)
        assert "--from-checkpoint" in verdict(other)
        assert "within" in verdict(replace(other, difference=1e-6))
        later = replay(site.settings, line, 2)
        assert later.others == ("a machine of another kind",), (
            "one on the way is enough, whatever trained the last"
        )
        assert len(later.there) == 2
        assert verdict(later).startswith("other hardware")
        site.store.put(key, b"{}")
        with pytest.raises(InvalidArtifact, match="no journal"):
            replay(site.settings, line, 2)
        site.store.delete(key)
        with pytest.raises(JournalMissing, match="version 1 was published without"):
            replay(site.settings, line, 2)
        near = replay(site.settings, line, len(versions), from_checkpoint=True)
        assert near.equal, "what came before the checkpoint is not asked for"
    finally:
        site.store.put(key, original)
    assert replay(site.settings, line, 2).equal


def test_a_payload_that_is_gone_is_named(site: Site, line: str, tmp_path: Path) -> None:
    made = FLEET[-1]
    key = site.store.key(made.event.payload_uri)
    site.store.delete(key)
    try:
        assert replay(site.settings, line, site.versions(line)[-1].version).equal, "it is on this machine's disk"
        elsewhere = site.settings.model_copy(update={"cache": CacheSettings(directory=tmp_path)})
        with pytest.raises(PayloadGone, match=made.event.episode_id):
            replay(elsewhere, line, site.versions(line)[-1].version)
    finally:
        site.store.put(key, made.payload)


def test_a_checkpoint_that_is_lost_is_made_up_for_by_the_journal(site: Site, line: str) -> None:
    """The newest checkpoint is gone: older ones and the journal lead to the newest version, its hash equal."""
    before = site.versions(line)
    keys = site.store.list(f"checkpoints/{line}/")
    assert len(keys) > 1
    for key in keys[1:]:
        site.store.delete(key)
    with site.learner(line, SETTINGS):
        site.put([make_episode(60 + n, steps=12, human=(2, 10)) for n in range(3)])
        site.wait_for_version(line, len(before) + 2, timeout=240.0)
        site.put([make_episode(70 + n, steps=12, human=(2, 10)) for n in range(3)])
        store = CheckpointStore(site.store, line, Patience(threading.Event()), keep=3)
        # One in three versions has a checkpoint, which is stored after it was announced.
        wait_for(lambda: next(store.newest_first()).announcement.version >= len(before) - 2, timeout=240.0)
    versions = site.versions(line)
    assert site.log(line).count("version_trained_again") >= 1
    assert "going_on_from_an_older_version" not in site.log(line)
    assert [version.parent_version for version in versions] == [None, *range(1, len(versions))]
    assert replay(site.settings, line, len(versions)).equal


def test_what_an_older_learner_writes_after_a_younger_one_took_over_is_not_read(site: Site) -> None:
    patience = Patience(threading.Event())
    older, younger, youngest = (Journal(site.store, "hangs", patience) for _ in range(3))
    entries = [Entry(learner_step=step) for step in range(4)]
    older.take_over(0, "00000001-a", ())
    older.append(entries[0])
    assert younger.tail(0) == (entries[0],)
    younger.take_over(0, "00000002-b", younger.tail(0))
    older.append(entries[1])
    younger.append(entries[2])
    assert youngest.tail(0) == (entries[0], entries[2])
    younger.turn(1)
    older.append(entries[3])
    assert youngest.tail(1) == ()
    assert younger.entries == ()


def test_difference_is_relative_to_each_tensors_largest_weight(site: Site, line: str) -> None:
    announced = site.versions(line)[0]
    data = site.store.get(site.store.key(announced.artifact_uri))
    assert sha256_hex(data) == announced.sha256
    spec, weights = unpack(data)
    assert difference_of(weights, unpack(pack(spec, weights))[1]) == 0.0
    changed = {name: array.copy() for name, array in weights.items()}
    name = next(iter(changed))
    place = abs(changed[name]).argmax()
    changed[name].flat[place] *= 1.25
    assert difference_of(weights, changed) == pytest.approx(0.25, rel=1e-4)
    del changed[name]
    assert difference_of(weights, changed) is None
