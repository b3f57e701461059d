"""Names that are quoted or escaped are the names that they stand for."""

from __future__ import annotations

import uuid

import pytest

from tests.infra.local.plain import Plain


@pytest.mark.parametrize(
    "sql",
    [
        r"DROP DATABASE `s\x79stem`",
        r"DROP TABLE `s\x79stem`.one",
        r"DROP TABLE values, system.one",
        r"CREATE TABLE default.k (a Int8) ENGINE = `K\x61fka`",
        r"CREATE DATABASE d ENGINE = `F\x69lesystem`('/etc')",
        r'CREATE DATABASE d ENGINE = "F\x69lesystem"' + "('/etc')",
    ],
)
def test_what_would_harm_the_engine_is_known_under_escaped_names(plain: Plain, sql: str) -> None:
    assert plain.post("", sql.encode())[0] in (400, 403, 501)
    assert plain.get("SELECT count() FROM system.one") == (200, b"1\n")
    assert plain.get("SELECT count() FROM system.databases WHERE name = 'd'") == (200, b"0\n")


def test_a_quoted_name_may_hold_quotes_and_backslashes(plain: Plain) -> None:
    name = f"default.`a\\`b\\\\{uuid.uuid4().hex[:6]}`"
    assert plain.post("", f"CREATE TABLE {name} (a Int8) ENGINE = Memory".encode())[0] == 200
    assert plain.post("", f"DROP TABLE {name}".encode())[0] == 200
