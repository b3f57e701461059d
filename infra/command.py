"""What every command does first: read the settings, and look whether the servers that it needs are there."""

from __future__ import annotations

import threading
from collections.abc import Iterable

from pydantic import ValidationError

from infra.errors import InfraError, SettingInvalid, Unavailable
from infra.settings import Settings, UnknownSettings, anything_set, env_file, explain, load_settings
from infra.terminal import fail


def settings_or_fail() -> Settings:
    """The settings; wrong ones end the command with exit code 2."""
    try:
        return load_settings()
    except ValidationError as error:
        fail(explain(error), code=2)
    except UnknownSettings as error:
        fail(str(error), code=2)


def no_settings() -> str:
    """What to say where nothing is set at all."""
    return (
        f"there are no settings, neither in the environment nor in {env_file()}: start the servers (`sop stack "
        "up`), or say where they are (SOP_CLICKHOUSE__HOST, SOP_CLICKHOUSE__ANALYST_USERNAME, "
        "SOP_KAFKA__BOOTSTRAP_SERVERS, SOP_S3__ENDPOINT_URL, SOP_REGISTRY__URL, ...)"
    )


def wait_or_fail(settings: Settings, servers: Iterable[str], stop: threading.Event | None = None) -> None:
    """Wait for servers by name (`infra.readiness.probes`); one that stays away ends the command.

    A setting that a client cannot work with ends it with exit code 2, and so does having none at all: nobody knows
    then where to wait.
    """
    from infra.readiness import probes, wait_for  # noqa: PLC0415 - not needed to say `--help`

    if not anything_set():
        fail(no_settings(), code=2)
    available = probes(settings)
    try:
        wait_for(
            {name: available[name] for name in servers},
            timeout=settings.startup_timeout,
            stop=stop or threading.Event(),
        )
    except SettingInvalid as error:
        fail(str(error), code=2)
    except InfraError as error:
        fail(str(error))


def ask_or_fail(settings: Settings, servers: Iterable[str]) -> None:
    """Ask servers by name once, each within its own request timeout, for a command that a person waits for.

    One that does not answer ends it, and so does a setting that a client cannot work with, with exit code 2.
    """
    from infra.readiness import probes  # noqa: PLC0415 - not needed to say `--help`

    available = probes(settings, patient=True)
    for name in servers:
        probe = available[name]
        try:
            probe.ask()
        except SettingInvalid as error:
            fail(str(error), code=2)
        except Unavailable as error:
            away = f"{name} does not answer at {probe.address}"
            fail(f"{away}: {error}; {probe.advice}" if anything_set() else f"{away}, and {no_settings()}")
        except InfraError as error:
            fail(str(error))
