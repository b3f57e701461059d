"""Clients of ClickHouse's gateway, as its owner and as the analyst."""

from __future__ import annotations

import uuid
from collections.abc import Callable, Iterator
from typing import Any

import clickhouse_connect
import pytest
from clickhouse_connect.driver import Client

from infra.local.stack import Stack
from tests.infra.local.plain import Plain

ClientMaker = Callable[..., Client]


@pytest.fixture(scope="module")
def connect(stack: Stack) -> ClientMaker:
    settings = stack.environment()

    def make(user: str = "SOP_CLICKHOUSE__", **options: Any) -> Client:
        return clickhouse_connect.get_client(
            host=settings["SOP_CLICKHOUSE__HOST"],
            port=int(settings["SOP_CLICKHOUSE__PORT"]),
            username=settings[f"{user}USERNAME"],
            password=settings[f"{user}PASSWORD"],
            **options,
        )

    return make


@pytest.fixture(scope="module")
def owner(connect: ClientMaker) -> Client:
    return connect()


@pytest.fixture(scope="module")
def analyst(connect: ClientMaker) -> Client:
    return connect("SOP_CLICKHOUSE__ANALYST_")


@pytest.fixture
def table(owner: Client) -> Iterator[str]:
    name = f"default.t{uuid.uuid4().hex[:8]}"
    owner.command(f"CREATE TABLE {name} (a UInt32, s String, v Array(Float32)) ENGINE = MergeTree ORDER BY a")
    yield name
    owner.command(f"DROP TABLE {name}")


@pytest.fixture(scope="module")
def plain(stack: Stack) -> Plain:
    return Plain(stack, "SOP_CLICKHOUSE__")


@pytest.fixture(scope="module")
def plain_analyst(stack: Stack) -> Plain:
    return Plain(stack, "SOP_CLICKHOUSE__ANALYST_")
