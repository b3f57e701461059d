"""One stack for all runs of the harness."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.chaos.harness import Harness, harness_on


@pytest.fixture(scope="session")
def harness(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Harness]:
    with harness_on(tmp_path_factory.mktemp("chaos")) as running:
        yield running
