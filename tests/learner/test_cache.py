from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from infra.object_store import sha256_hex
from learner.cache import PayloadCache


def payload(number: int, size: int = 100) -> tuple[str, bytes]:
    data = np.random.default_rng(number).bytes(size)
    return sha256_hex(data), data


def on_disk(directory: Path) -> int:
    total = 0
    for path in directory.rglob("*"):
        with contextlib.suppress(FileNotFoundError):  # removed under our eyes
            total += path.stat().st_size if path.is_file() and path.name not in {"lock", "bytes"} else 0
    return total


NUMBERS, BOUNDS = st.integers(0, 9), st.integers(0, 1200)


def numbered(number: int) -> tuple[str, bytes]:
    """Payloads of different sizes."""
    return payload(number, 60 + 20 * number)


class CacheMachine(RuleBasedStateMachine):
    """Lives of one cache, one after the other; `known` has what may be there, in the order of its last use."""

    def __init__(self) -> None:
        super().__init__()
        self._folder = tempfile.TemporaryDirectory()
        self.directory = Path(self._folder.name)
        self.time = 0.0
        self.known: dict[str, bytes] = {}
        self.open(700)

    def open(self, bound: int) -> None:
        self.bound = bound
        self.cache = PayloadCache(self.directory, bound, now=lambda: self.time)

    @rule(number=NUMBERS)
    def put(self, number: int) -> None:
        digest, data = numbered(number)
        self.cache.put(digest, data)
        self.get(number)
        assert (digest in self.known) == (self.bound >= len(data))

    @rule(number=NUMBERS)
    def get(self, number: int) -> None:
        digest, data = numbered(number)
        self.time += 1.0
        found = self.cache.get(digest)
        assert found in {None, data}
        self.known.pop(digest, None)
        if found is not None:
            self.known[digest] = data

    @rule(number=NUMBERS)
    def damage(self, number: int) -> None:
        """What is torn is nobody's payload, and can be put again."""
        digest, data = numbered(number)
        for path in self.directory.rglob(digest):
            path.write_bytes(data[:-1])
            self.get(number)
            assert digest not in self.known

    @rule(bound=BOUNDS)
    def reopen(self, bound: int) -> None:
        room = on_disk(self.directory) <= bound
        before = len(self.known)
        self.open(bound)
        assert not room or len(list(self.cache.files())) == before, "what has room stays"

    @rule(number=NUMBERS)
    def die_while_it_writes(self, number: int) -> None:
        """Killed between the count and the name: others go on at once, in this life or another."""
        _, data = numbered(number)
        if on_disk(self.directory) + len(data) <= self.bound:
            (self.directory / "payloads" / "killed.tmp").write_bytes(data)
            self.count_is(0)

    @rule()
    def lose_the_count(self) -> None:
        (self.directory / "payloads" / "bytes").unlink(missing_ok=True)

    @rule(text=st.sampled_from(["", "a word", "1.5"]))
    def garble_the_count(self, text: str) -> None:
        (self.directory / "payloads" / "bytes").write_text(text)

    @rule(more=st.integers(0, 2000))
    def count_is(self, more: int) -> None:
        """Too high, as a kill leaves it: it is raised before anything is written."""
        (self.directory / "payloads" / "bytes").write_text(str(on_disk(self.directory) + more))

    @rule(counted=st.integers(-10, 2000), bound=BOUNDS)
    def lose_power(self, counted: int, bound: int) -> None:
        """Nothing is synced, so the count may be any earlier one: a new life counts anew."""
        (self.directory / "payloads" / "bytes").write_text(str(counted))
        self.reopen(bound)

    @invariant()
    def the_bound_holds_and_what_was_used_longest_ago_went_first(self) -> None:
        assert on_disk(self.directory) <= self.bound
        held = {digest for digest, _ in self.cache.files()}
        assert held == set(list(self.known)[len(self.known) - len(held) :])
        self.known = {digest: data for digest, data in self.known.items() if digest in held}

    def teardown(self) -> None:
        self._folder.cleanup()


TestCacheMachine = CacheMachine.TestCase
TestCacheMachine.settings = settings(max_examples=40, stateful_step_count=30, deadline=None)


def test_what_was_read_lately_stays(tmp_path: Path) -> None:
    time = [1e9]
    cache = PayloadCache(tmp_path, 1000, now=lambda: time[0])
    for number in range(10):
        time[0] += 1.0
        digest, data = payload(number)
        cache.put(digest, data)
        cache.get(digest)
    time[0] += 1.0
    assert cache.get(payload(0)[0]) is not None
    digest, data = payload(10)
    cache.put(digest, data)
    kept = {name for name, _ in cache.files()}
    assert payload(0)[0] in kept
    assert payload(1)[0] not in kept
    assert digest in kept


def test_an_altered_or_torn_file_is_thrown_away(tmp_path: Path) -> None:
    cache = PayloadCache(tmp_path, 1000)
    digest, data = payload(1)
    cache.put(digest, data)
    (path,) = (path for path in tmp_path.rglob(digest))
    path.write_bytes(data[:50])
    assert cache.get(digest) is None
    assert not path.exists()
    cache.put(digest, data)
    assert cache.get(digest) == data


def test_two_learners_share_one_directory_within_one_bound(tmp_path: Path) -> None:
    caches = [PayloadCache(tmp_path, 2_000) for _ in range(2)]
    made = [payload(number) for number in range(100)]

    def use(worker: int) -> int:
        cache, hits = caches[worker % 2], 0
        for digest, data in made[worker::4]:
            cache.put(digest, data)
            found = cache.get(digest)
            assert found in {None, data}
            hits += found is not None
            with (tmp_path / "payloads" / "lock").open("ab") as lock:  # while others write, none is counted twice
                fcntl.flock(lock, fcntl.LOCK_EX)
                assert on_disk(tmp_path) <= 2_000
        return hits

    with ThreadPoolExecutor(4) as threads:
        assert sum(threads.map(use, range(4))) > 0
    assert on_disk(tmp_path) <= 2_000
    caches[0].put(*made[0])
    assert caches[1].get(made[0][0]) == made[0][1]


KILLED = """
import os, signal, sys
from pathlib import Path
from learner.cache import PayloadCache
cache = PayloadCache(Path(sys.argv[1]), int(sys.argv[3]))
def die(self, target):
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = die
cache.put(sys.argv[2], bytes(500))
"""


def test_a_learner_killed_while_it_writes_leaves_nothing_that_is_believed_or_kept(tmp_path: Path) -> None:
    digest = sha256_hex(bytes(500))
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), digest, "10000"], check=False)
    assert died.returncode == -9
    assert on_disk(tmp_path) == 500
    cache = PayloadCache(tmp_path, 10_000)
    assert cache.get(digest) is None
    assert list(cache.files()) == []
    assert on_disk(tmp_path) == 0


SHARING = """
import contextlib, hashlib, logging, os, sys
from pathlib import Path
import numpy as np
import structlog
from learner.cache import PayloadCache
structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.ERROR))
directory, worker, bound, stop = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]), Path(sys.argv[4])
cache, random, turn, hits = PayloadCache(directory, bound), np.random.default_rng(worker), 0, 0
print("begun", flush=True)
while not stop.exists():
    turn, number = turn + 1, int(random.integers(30))
    data = np.random.default_rng(number).bytes(50 + 10 * number)
    digest = hashlib.sha256(data).hexdigest()
    if turn % 3:
        cache.put(digest, data)
    found = cache.get(digest)
    if found is not None:
        assert hashlib.sha256(found).hexdigest() == digest, "damaged"
        hits += 1
    if turn % 20 == worker:
        with contextlib.suppress(FileNotFoundError):
            os.truncate(directory / "payloads" / digest[:2] / digest, len(data) - 7)
print(hits)
"""


def test_processes_share_one_directory_within_one_bound_although_one_is_killed_and_files_are_torn(
    tmp_path: Path,
) -> None:
    directory, stop, bound = tmp_path / "cache", tmp_path / "stop", 3_000
    workers = [
        subprocess.Popen(
            [sys.executable, "-c", SHARING, str(directory), str(number), str(bound), str(stop)],
            stdout=subprocess.PIPE,
            text=True,
        )
        for number in range(2)
    ]
    try:
        for worker in workers:
            assert worker.stdout is not None
            assert worker.stdout.readline() == "begun\n"
        digest = sha256_hex(bytes(500))
        killed = subprocess.run([sys.executable, "-c", KILLED, str(directory), digest, str(bound)], check=False)
        assert killed.returncode == -9
        for _ in range(30):
            with (directory / "payloads" / "lock").open("ab") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX)
                assert on_disk(directory) <= bound
            time.sleep(0.01)
        stop.touch()
        hits = [int(worker.communicate(timeout=60.0)[0]) for worker in workers]
    finally:
        for worker in workers:
            worker.kill()
            worker.communicate()
    assert [worker.returncode for worker in workers] == [0, 0]
    assert min(hits) > 0
    assert on_disk(directory) <= bound
    PayloadCache(directory, bound)
    assert list(directory.rglob("*.tmp")) == []
    assert on_disk(directory) <= bound


FULL = """
import resource, sys
from pathlib import Path
from learner.cache import PayloadCache
from infra.object_store import sha256_hex
cache = PayloadCache(Path(sys.argv[1]), 10_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
large, small = bytes(500), bytes(100)
for data in (large, small):
    cache.put(sha256_hex(data), data)
assert cache.get(sha256_hex(large)) is None
assert cache.get(sha256_hex(small)) == small
"""


def test_a_disk_that_takes_no_more_costs_the_cache_and_nothing_else(tmp_path: Path) -> None:
    """The kernel refuses the write (EFBIG here, ENOSPC on a full disk): what was begun is removed."""
    done = subprocess.run([sys.executable, "-c", FULL, str(tmp_path)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.rglob("*.tmp")) == []
    assert "payload_cache_fails" in done.stderr + done.stdout


def test_a_directory_that_cannot_be_used_is_no_cache(tmp_path: Path) -> None:
    (tmp_path / "payloads").write_text("a file")
    cache = PayloadCache(tmp_path, 1000)
    digest, data = payload(1)
    cache.put(digest, data)
    assert cache.get(digest) is None
    assert list(cache.files()) == []
