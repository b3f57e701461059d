"""The secrets of one data directory: random, in files that only their owner reads, never on a command line."""

from __future__ import annotations

import secrets
from dataclasses import dataclass, field
from pathlib import Path

from infra.files import write_atomically


@dataclass(frozen=True)
class Credentials:
    """Keys and passwords; their values are left out of `repr`, so that no log shows them."""

    s3_access_key_id: str
    s3_secret_access_key: str = field(repr=False)
    clickhouse_password: str = field(repr=False)
    clickhouse_analyst_password: str = field(repr=False)


def load(directory: Path) -> Credentials:
    """Return the credentials kept in `directory`, one file each; those that are missing are made."""
    directory.mkdir(mode=0o700, exist_ok=True)
    return Credentials(
        s3_access_key_id=_value(directory / "s3-access-key-id", bytes_=10),
        s3_secret_access_key=_value(directory / "s3-secret-access-key"),
        clickhouse_password=_value(directory / "clickhouse-sop"),
        clickhouse_analyst_password=_value(directory / "clickhouse-analyst"),
    )


def _value(path: Path, bytes_: int = 24) -> str:
    if not path.exists():
        write_atomically(path, secrets.token_hex(bytes_) + "\n")
    return path.read_text().strip()
