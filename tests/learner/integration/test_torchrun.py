"""Two ranks under torchrun, on real servers: equal weights, exact resume after kill -9, replay by one process."""

from __future__ import annotations

import os
import re
import signal
import threading
from contextlib import suppress
from pathlib import Path

import pytest

from learner.journal import Journal
from learner.patience import Patience
from learner.policies.artifact import unpack
from learner.present import verdict
from learner.reproduce import replay
from learner.team import Team
from schemas.events import EpisodeSource
from tests.learner.integration.site import Site, terminate, wait_for
from tests.learner.seen import see
from tests.learner.synthetic import Synthetic, make_episode
from tests.preloaded import Command

# Each start loads torch three times; on busy cores that takes most of a minute.
pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

TORCHRUN = ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "sop", "learn")
SETTINGS = {"PRETRAIN_EPISODES": "2", "PRETRAIN_STEPS": "20", "PUBLISH_EVERY": "10", "CHECKPOINT_EVERY": "3"}
STOP_SECONDS = 120.0


def online(first: int, count: int) -> list[Synthetic]:
    return [make_episode(first + n, steps=12, human=(2, 10), robot=f"robot-{n % 3}") for n in range(count)]


def processes(job: Command) -> list[int]:
    """The job's process, and those that it started, first ranks first."""
    found = [job.pid]
    for parent in found:
        children = Path(f"/proc/{parent}/task/{parent}/children")
        found += [int(child) for child in children.read_text().split()] if children.exists() else []
    return found


def kill(pids: list[int]) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):  # whose end its parent has seen already
            os.kill(pid, signal.SIGKILL)


def agreed(site: Site, policy: str) -> dict[str, set[str]]:
    """By sha256, the ranks that said that they had this policy."""
    found: dict[str, set[str]] = {}
    # Not line by line: both write to one file, and now and then the lines' ends come behind both of them.
    said = re.finditer(r'"rank": (\d)[^}]*"sha256": "([0-9a-f]{64})", "event": "ranks_agree"', site.log(policy))
    for match in said:
        found.setdefault(match[2], set()).add(match[1])
    return found


def test_two_ranks_have_equal_weights_survive_kills_and_are_replayed_by_one_process(site: Site) -> None:
    demonstrations = [
        make_episode(n, source=EpisodeSource.DEMONSTRATION, task=task, steps=12)
        for n, task in enumerate(("lift", "push"))
    ]
    altered = [make_episode(90 + n) for n in range(4)]  # in both shards
    site.put([*demonstrations, *online(20, 4)])
    with site.learner("ranks", SETTINGS, command=TORCHRUN) as job:
        site.wait_for_version("ranks", 3, timeout=300.0)
        site.put(altered, payload=False)
        site.put(online(30, 2))
        site.wait_for_version("ranks", 5)
        kill(processes(job))
        job.wait()
    before = site.versions("ranks")[-1].version
    newest_at_kills = [before]
    with site.learner("ranks", SETTINGS, command=TORCHRUN) as job:
        site.put(online(40, 4))
        site.wait_for_version("ranks", before + 2, timeout=300.0)
        rank = processes(job)[-1]
        os.kill(rank, signal.SIGKILL)
        assert job.wait(300.0) != 0, "the others notice, and end"
    before = site.versions("ranks")[-1].version
    newest_at_kills.append(before)
    with site.learner("ranks", SETTINGS, command=TORCHRUN) as job:
        site.put(online(50, 4))
        site.wait_for_version("ranks", before + 1, timeout=300.0)
        pids = processes(job)
        assert len(pids) == 3, "torchrun and two ranks"
        terminate(job, within=STOP_SECONDS)
        wait_for(lambda: not any(Path(f"/proc/{pid}/exe").exists() for pid in pids))
    versions = site.versions("ranks")
    assert [version.version for version in versions] == list(range(1, len(versions) + 1))
    assert site.log("ranks").count("episode_set_aside") >= len(altered)
    same = agreed(site, "ranks")
    for version in versions:
        # A kill may come before the second rank has written down that it agreed.
        needed = {"0"} if version.version in newest_at_kills else {"0", "1"}
        assert needed <= same[version.sha256] <= {"0", "1"}, f"version {version.version}"
    published = {version.version: version for version in versions}
    journal = Journal(site.store, "ranks", Patience(threading.Event()))
    assert journal.segment(published[2]).ranks == 2
    for number in (1, len(versions)):
        done = replay(site.settings, "ranks", number)
        assert done.equal, "one process does the work of both, with the same bits"


SEES = {"ARCHITECTURE": "flow-transformer", "CAMERAS": '["wrist"]', "HIDDEN": "[8]", "BATCH_SIZE": "8"}


def test_two_ranks_that_see_publish_what_one_process_makes_of_all_images(own_site: Site) -> None:
    site = own_site
    made = [
        *(see(200 + n, source=EpisodeSource.DEMONSTRATION) for n in range(2)),
        *(see(210 + n, human=(2, 20)) for n in range(4)),
    ]
    assert {Team(2).owner(one.record.episode_id) for one in made} == {0, 1}, "both have images"
    for one in made:
        for uri, segment in one.segments.items():
            site.store.put(site.store.key(uri), segment)
    site.put(made)
    with site.learner("ranks-see", SETTINGS | SEES, command=TORCHRUN) as job:
        site.wait_for_version("ranks-see", 3, timeout=300.0)
        terminate(job, within=STOP_SECONDS)
    newest = site.versions("ranks-see")[-1]
    spec, _ = unpack(site.store.get(site.store.key(newest.artifact_uri)))
    assert spec.cameras == ("wrist",)
    journal = Journal(site.store, "ranks-see", Patience(threading.Event()))
    assert journal.segment(newest).ranks == 2
    assert agreed(site, "ranks-see")[newest.sha256] == {"0", "1"}
    done = replay(site.settings, "ranks-see", newest.version)
    assert done.equal, verdict(done)


def test_a_line_of_two_ranks_goes_on_with_one(site: Site) -> None:
    before = site.versions("ranks")[-1].version
    site.put(online(60, 3))
    with site.learner("ranks", SETTINGS):
        site.wait_for_version("ranks", before + 1, timeout=240.0)
    assert "going_on_from_an_older_version" not in site.log("ranks")
    assert replay(site.settings, "ranks", before + 1).equal


def test_a_line_of_one_rank_goes_on_with_two_where_it_stands(site: Site) -> None:
    before = site.versions("ranks")[-1].version
    first = 70
    # Until one rank's version stands behind the newest checkpoint.
    while (newest := site.versions("ranks")[-1].version) == before or newest % 3 == 0:
        with site.learner("ranks", SETTINGS):
            site.put(online(first, 1))
            site.wait_for_version("ranks", newest + 1, timeout=240.0)
        first += 1
        assert first < 80
    trained_again = site.log("ranks").count("version_trained_again")
    with site.learner("ranks", SETTINGS, command=TORCHRUN) as job:
        site.put(online(80, 3))
        versions = site.wait_for_version("ranks", newest + 2, timeout=300.0)
        terminate(job, within=STOP_SECONDS)
    assert site.log("ranks").count("version_trained_again") > trained_again
    assert "going_on_from_an_older_version" not in site.log("ranks")
    assert [version.parent_version for version in versions] == [None, *range(1, len(versions))]
    assert replay(site.settings, "ranks", newest + 2).equal
