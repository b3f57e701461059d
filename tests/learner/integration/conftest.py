from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.stack import Stack
from tests.learner.integration.site import Site


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Site]:
    """Servers of this module's own (3 s): a learner reads all of training-episodes, so nobody else may write."""
    directory: Path = tmp_path_factory.mktemp("learner")
    with Stack.start(directory / "stack", only=("broker", "object_store", "registry")) as stack:
        yield Site(stack, directory)
