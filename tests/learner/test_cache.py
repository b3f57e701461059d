from __future__ import annotations

import contextlib
import fcntl
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

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


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 9)), max_size=40), st.integers(0, 900))
def test_the_bound_holds_and_what_was_used_longest_ago_goes_first(
    moves: list[tuple[bool, int]], bound: int
) -> None:
    import tempfile  # noqa: PLC0415 - a fixture would be shared by the examples

    with tempfile.TemporaryDirectory() as folder:
        time = [0.0]
        cache = PayloadCache(Path(folder), bound, now=lambda: time[0])
        for put, number in moves:
            time[0] += 1.0
            digest, data = payload(number)
            if put:
                cache.put(digest, data)
                assert (cache.get(digest) == data) == (bound >= len(data))
            else:
                assert cache.get(digest) in {None, data}
            assert on_disk(Path(folder)) <= bound


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
cache = PayloadCache(Path(sys.argv[1]), 10_000)
replace = Path.replace
def die(self, target):
    os.kill(os.getpid(), signal.SIGKILL)
Path.replace = die
cache.put(sys.argv[2], bytes(500))
"""


def test_a_learner_killed_while_it_writes_leaves_nothing_that_is_believed_or_kept_for_long(tmp_path: Path) -> None:
    digest = sha256_hex(bytes(500))
    died = subprocess.run([sys.executable, "-c", KILLED, str(tmp_path), digest], check=False)
    assert died.returncode == -9
    assert on_disk(tmp_path) == 500
    cache = PayloadCache(tmp_path, 10_000)
    assert cache.get(digest) is None
    assert list(cache.files()) == []
    later = max(path.stat().st_mtime for path in tmp_path.rglob("*.tmp")) + 3600
    PayloadCache(tmp_path, 10_000, now=lambda: later)
    assert on_disk(tmp_path) == 0


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
