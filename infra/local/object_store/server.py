"""The object store: versitygw, an S3 server over a directory."""

from __future__ import annotations

import os
from pathlib import Path

from infra.local.artifacts import Artifact
from infra.local.progress import run
from infra.local.server import HOST, NotReadyError, Site, get

VERSION = "1.8.0"
REGION = "us-east-1"


class Versitygw:
    """One S3 server. Implements `infra.local.server.Server`."""

    name = "object_store"
    port_names = ("object_store",)

    def __init__(self) -> None:
        """Name the binary, which is built from source at a fixed version."""
        key = f"versitygw-{VERSION}-{os.uname().machine}"
        self.binary = Artifact(key, f"versitygw {VERSION} by Go (1 to 4 minutes)", self._build)

    @property
    def artifacts(self) -> tuple[Artifact, ...]:
        """What set-up builds for it."""
        return (self.binary,)

    def prepare(self, site: Site) -> list[str] | None:
        """Make its directories."""
        for name in ("buckets", "iam"):
            (site.directory(self.name) / name).mkdir(exist_ok=True)
        if not _keeps_attributes(site.directory(self.name)):
            (site.directory(self.name) / "attributes").mkdir(exist_ok=True)
        return None

    def command(self, site: Site) -> list[str]:
        """Return the command that runs the server; its keys come by the environment."""
        home = site.directory(self.name)
        sidecar = ["--sidecar", str(home / "attributes")] if (home / "attributes").exists() else []
        options = ["--port", f"{HOST}:{site.ports['object_store']}", "--iam-dir", str(home / "iam"), "--quiet"]
        return [str(self.binary.path / "versitygw"), *options, "posix", *sidecar, str(home / "buckets")]

    def environment(self, site: Site) -> dict[str, str]:
        """Return its keys and region."""
        return {
            "ROOT_ACCESS_KEY": site.credentials.s3_access_key_id,
            "ROOT_SECRET_KEY": site.credentials.s3_secret_access_key,
            "VGW_REGION": REGION,
        }

    def address(self, site: Site) -> str:
        """Return the endpoint's URL."""
        return f"http://{HOST}:{site.ports['object_store']}"

    def probe(self, site: Site, timeout: float) -> str:
        """Ask for the buckets without a key; to be refused is the right answer."""
        status, _ = get(site.ports["object_store"], "/", timeout=timeout)
        if status != 403:
            raise NotReadyError(f"an unsigned request is answered {status}, not 403")
        return VERSION

    @staticmethod
    def _build(directory: Path) -> None:
        # Go checks the sources against its public checksum log.
        environment = {**os.environ, "GOBIN": str(directory), "CGO_ENABLED": "0"}
        for name in ("GOOS", "GOARCH"):
            environment.pop(name, None)  # with them, `go install` refuses GOBIN
        target = f"github.com/versity/versitygw/cmd/versitygw@v{VERSION}"
        run(["go", "install", "-trimpath", "-ldflags=-s -w", target], cwd=directory, env=environment)


def _keeps_attributes(directory: Path) -> bool:
    """Say whether files here can have user attributes, where the server keeps ETags (older tmpfs cannot)."""
    try:
        os.setxattr(directory, "user.sop.probe", b"1")
        os.removexattr(directory, "user.sop.probe")
    except OSError:
        return False
    return True
