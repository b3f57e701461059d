"""An artifact in the cache is whole or absent, whoever interrupts set-up or runs it twice."""

from __future__ import annotations

import signal
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from infra.local.artifacts import Artifact, cache_home, ensure


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    return tmp_path / "sop"


def visible(cache: Path) -> list[str]:
    return sorted(path.name for path in cache.iterdir() if path.name != "locks")


def test_relative_cache_home_is_ignored(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", "relative")
    assert cache_home() == Path.home() / ".cache" / "sop"


def test_built_once(cache: Path) -> None:
    builds = []

    def build(directory: Path) -> None:
        builds.append(directory)
        (directory / "file").write_text("content")

    artifact = Artifact("thing-1", "thing", build)
    assert (ensure(artifact) / "file").read_text() == "content"
    assert ensure(artifact) == cache / "thing-1"
    assert len(builds) == 1


def test_failed_build_leaves_nothing_and_can_be_repeated(cache: Path) -> None:
    def fail(directory: Path) -> None:
        (directory / "half").write_text("made")
        raise OSError("network")

    with pytest.raises(OSError, match="network"):
        ensure(Artifact("thing-1", "thing", fail))
    assert visible(cache) == []
    ensure(Artifact("thing-1", "thing", lambda directory: (directory / "whole").touch()))
    assert visible(cache) == ["thing-1"]


_KILLED_WITHIN_A_BUILD = """
import os, signal
from infra.local.artifacts import Artifact, ensure
def build(directory):
    (directory / "half").write_text("made")
    os.kill(os.getpid(), signal.SIGKILL)
ensure(Artifact("thing-1", "thing", build))
"""


def test_kill_within_a_build_leaves_no_artifact_and_the_next_set_up_cleans_up(cache: Path) -> None:
    killed = subprocess.run([sys.executable, "-c", _KILLED_WITHIN_A_BUILD], timeout=60, check=False)
    assert killed.returncode == -signal.SIGKILL
    assert not (cache / "thing-1").exists()
    path = ensure(Artifact("thing-1", "thing", lambda directory: (directory / "whole").touch()))
    assert [file.name for file in path.iterdir()] == ["whole"]
    assert visible(cache) == ["thing-1"]


def test_concurrent_set_ups_build_once(cache: Path) -> None:
    builds: list[Path] = []
    building, go_on = threading.Event(), threading.Event()

    def build(directory: Path) -> None:
        builds.append(directory)
        building.set()
        assert go_on.wait(30)
        (directory / "file").touch()

    artifact = Artifact("thing-1", "thing", build)
    threads = [threading.Thread(target=ensure, args=(artifact,)) for _ in range(4)]
    for thread in threads:
        thread.start()
    assert building.wait(30)
    assert not artifact.path.exists()
    go_on.set()
    for thread in threads:
        thread.join(30)
    assert len(builds) == 1
    assert (artifact.path / "file").exists()
