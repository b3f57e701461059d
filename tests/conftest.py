"""What tests share."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from infra.local.stack import Stack
from tests.put_back import put_back

if not os.environ.get("CI"):  # there Hypothesis has a profile of its own, which repeats its examples
    # Wall time says nothing about the code on a machine that does other work.
    settings.register_profile("patient", deadline=None, suppress_health_check=[HealthCheck.too_slow])
    settings.load_profile("patient")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Files with slow tests come first: begun last they would run alone, while the other workers have no more."""
    slow = {item.path for item in items if item.get_closest_marker("slow") is not None}
    items.sort(key=lambda item: item.path not in slow)


@pytest.fixture(autouse=True)
def _process_is_put_back() -> Iterator[None]:
    """Tests of a worker share its process, and which of them do, and in which order, is up to chance."""
    with put_back():
        yield


@pytest.fixture
def nothing_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No settings but a test's own, and no stack's file in reach: it runs in a folder of its own."""
    for name in list(os.environ):
        if name.upper().startswith("SOP_"):
            monkeypatch.delenv(name)
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Real servers, started at the first use. Tests make topics, buckets and tables of their own names."""
    data_dir: Path = tmp_path_factory.mktemp("stack")
    with Stack.start(data_dir, timeout=300) as running:
        yield running
