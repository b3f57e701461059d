"""The settings by which processes reach a stack: the only thing that differs from production."""

from __future__ import annotations

from collections.abc import Mapping

from dotenv import dotenv_values

from infra.files import write_atomically
from infra.local.object_store.server import REGION
from infra.local.registry.server import API
from infra.local.server import HOST, Site

OWN_FILE = "own.env"
"""In the data directory: settings that go with its data, whatever ports the servers get, as keys do."""


def variables(site: Site) -> dict[str, str]:
    """Return the environment for `infra.settings`; a server that the stack lacks has no entries."""
    ports, secrets = site.ports, site.credentials
    found: dict[str, str] = {}
    if "broker" in ports:
        found["SOP_KAFKA__BOOTSTRAP_SERVERS"] = f"{HOST}:{ports['broker']}"
    if "object_store" in ports:
        found |= {
            "SOP_S3__ENDPOINT_URL": f"http://{HOST}:{ports['object_store']}",
            "SOP_S3__BUCKET": "sop",
            "SOP_S3__ACCESS_KEY_ID": secrets.s3_access_key_id,
            "SOP_S3__SECRET_ACCESS_KEY": secrets.s3_secret_access_key,
            "SOP_S3__REGION": REGION,
            "SOP_CACHE__DIRECTORY": str(site.data_dir / "cache"),  # of what is in the bucket; goes with it
        }
    if "clickhouse" in ports:
        found |= {
            "SOP_CLICKHOUSE__HOST": HOST,
            "SOP_CLICKHOUSE__PORT": str(ports["clickhouse"]),
            "SOP_CLICKHOUSE__USERNAME": "sop",
            "SOP_CLICKHOUSE__PASSWORD": secrets.clickhouse_password,
            "SOP_CLICKHOUSE__DATABASE": "sop",
            "SOP_CLICKHOUSE__ANALYST_USERNAME": "analyst",
            "SOP_CLICKHOUSE__ANALYST_PASSWORD": secrets.clickhouse_analyst_password,
        }
    if "registry" in ports:
        found["SOP_REGISTRY__URL"] = f"http://{HOST}:{ports['registry']}{API}"
    own = dotenv_values(site.data_dir / OWN_FILE)
    return found | {name: value for name, value in own.items() if value is not None}


def write_files(site: Site) -> None:
    """Write `stack.env` (dotenv) and `clickhouse.netrc` (the analyst, for curl), mode 0600."""
    found = variables(site)
    _write(site, "stack.env", found)
    if "clickhouse" in site.ports:
        login, password = (found[f"SOP_CLICKHOUSE__ANALYST_{part}"] for part in ("USERNAME", "PASSWORD"))
        line = f"machine {HOST} login {login} password {password}\n"
        write_atomically(site.data_dir / "clickhouse.netrc", line)


def keep(site: Site, own: Mapping[str, str]) -> None:
    """Have these settings in `stack.env` from now on, after every start."""
    _write(site, OWN_FILE, own)
    write_files(site)


def _write(site: Site, name: str, found: Mapping[str, str]) -> None:
    write_atomically(site.data_dir / name, "".join(f"{variable}={value}\n" for variable, value in found.items()))
