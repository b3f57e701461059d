from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from infra.local.stack import Stack
from tests.learner.integration.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Servers of this module's own (3 s): a learner reads all of training-episodes, so nobody else may write."""
    with started(tmp_path_factory.mktemp("learner")) as running:
        yield running


@pytest.fixture
def own_site(tmp_path: Path) -> Iterator[Site]:
    """Servers of this test's own, for tests that count all that was ever announced, or that kill servers."""
    with started(tmp_path) as running:
        yield running


@contextmanager
def started(directory: Path) -> Iterator[Site]:
    with Stack.start(directory / "stack", only=("broker", "object_store", "registry"), timeout=300) as stack:
        yield Site(stack, directory)
