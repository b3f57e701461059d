"""A stack of its own for each module: topics, groups and tables are empty when its tests begin."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from infra.deploy import deploy
from infra.local.stack import Stack
from infra.settings import Settings
from tests.consumers.integration.pipeline import Pipeline


@pytest.fixture(scope="module")
def servers(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Stack]:
    with Stack.start(tmp_path_factory.mktemp("stack"), timeout=300) as stack:
        yield stack


@pytest.fixture(scope="module")
def pipeline(servers: Stack, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pipeline]:
    with pytest.MonkeyPatch.context() as patch:
        for name, value in servers.environment().items():
            patch.setenv(name, value)
        settings = Settings()
        deploy(settings)
        with Pipeline(settings, tmp_path_factory.mktemp("logs")) as running:
            yield running
