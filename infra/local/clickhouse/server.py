"""The ClickHouse server of the stack: the gateway beside this file, as a process."""

from __future__ import annotations

import sys
from base64 import b64encode
from pathlib import Path

from infra.local.artifacts import Artifact
from infra.local.server import HOST, NotReadyError, Site, get

_ROOT = Path(__file__).resolve().parents[3]


class ClickHouse:
    """One gateway. Implements `infra.local.server.Server`."""

    name = "clickhouse"
    port_names = ("clickhouse",)
    artifacts: tuple[Artifact, ...] = ()  # the engine comes with the Python environment

    def prepare(self, site: Site) -> list[str] | None:  # noqa: ARG002
        """Do nothing: the engine makes its directory itself."""
        return None

    def command(self, site: Site) -> list[str]:
        """Return the command that runs the gateway; passwords are named by the files that hold them."""
        secrets = site.data_dir / "secrets"
        users = [
            "--sop-password",
            str(secrets / "clickhouse-sop"),
            "--analyst-password",
            str(secrets / "clickhouse-analyst"),
        ]
        where = ["--path", str(site.directory(self.name) / "data"), "--port", str(site.ports["clickhouse"])]
        return [sys.executable, "-m", "infra.local.clickhouse", *where, *users]

    def environment(self, site: Site) -> dict[str, str]:  # noqa: ARG002
        """Let Python find this clone from whatever directory."""
        return {"PYTHONPATH": str(_ROOT)}

    def address(self, site: Site) -> str:
        """Return the URL of the HTTP interface."""
        return f"http://{HOST}:{site.ports['clickhouse']}"

    def probe(self, site: Site, timeout: float) -> str:
        """Ask the engine for its version, as the analyst."""
        key = b64encode(f"analyst:{site.credentials.clickhouse_analyst_password}".encode()).decode()
        headers = {"Authorization": f"Basic {key}"}
        status, body = get(site.ports["clickhouse"], "/?query=SELECT+version()", timeout=timeout, headers=headers)
        if status != 200:
            raise NotReadyError(f"SELECT version() answers {status}: {body[:200].decode(errors='replace')}")
        return body.decode().strip()
