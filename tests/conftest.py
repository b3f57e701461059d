"""What tests share."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from infra.local.stack import Stack


@pytest.fixture(scope="session")
def stack(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    """Real servers, started at the first use. Tests make topics, buckets and tables of their own names."""
    data_dir: Path = tmp_path_factory.mktemp("stack")
    with Stack.start(data_dir) as running:
        yield running
