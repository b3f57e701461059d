"""What the stack knows about a server: how to prepare, start and probe it."""

from __future__ import annotations

import http.client
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

from infra.local.artifacts import Artifact
from infra.local.credentials import Credentials

HOST = "127.0.0.1"


class NotReadyError(Exception):
    """The server does not answer as it should; the message says what it did."""


@dataclass(frozen=True)
class Site:
    """Where one stack's servers live: their directories, ports and credentials."""

    data_dir: Path
    ports: Mapping[str, int]
    credentials: Credentials

    def directory(self, server: str) -> Path:
        """Return the data directory of one server."""
        return self.data_dir / server


class Server(Protocol):
    """A kind of server. Implementations hold no state: everything is in the site."""

    @property
    def name(self) -> str:
        """How the stack, its files and `sop stack status` call it."""

    @property
    def port_names(self) -> tuple[str, ...]:
        """The ports that it listens on; the first is the one for clients."""

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What set-up must have built; each may rely on those before it."""

    def prepare(self, site: Site) -> list[str] | None:
        """Write its configuration; return a command that must succeed once before the first start, if any."""

    def command(self, site: Site) -> list[str]:
        """Return the command that runs it in the foreground, without secrets."""

    def environment(self, site: Site) -> dict[str, str]:
        """Return the variables that it needs besides the caller's, secrets among them."""

    def address(self, site: Site) -> str:
        """Return the address that clients are given."""

    def probe(self, site: Site, timeout: float) -> str:
        """Do a small piece of real work; return the server's version.

        Raises:
            NotReadyError: it does not answer within `timeout` seconds, or wrongly.
        """


def get(port: int, path: str, *, timeout: float, headers: Mapping[str, str] | None = None) -> tuple[int, bytes]:
    """Return status and body of a GET on loopback.

    Raises:
        NotReadyError: there is no answer within `timeout` seconds.
    """
    connection = http.client.HTTPConnection(HOST, port, timeout=timeout)
    try:
        connection.request("GET", path, headers=dict(headers or {}))
        response = connection.getresponse()
        return response.status, response.read()
    except (OSError, http.client.HTTPException) as error:
        raise NotReadyError(f"port {port}: {type(error).__name__}: {error}") from error
    finally:
        connection.close()
