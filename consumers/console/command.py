"""`sop console`: serve the pages until a signal stops it."""

from __future__ import annotations

import secrets
import signal
import socket
from collections.abc import Callable
from types import FrameType
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    import uvicorn

_GRACE_SECONDS = 3


def console(
    *,
    host: Annotated[
        str, typer.Option(help="Address to listen on; others than loopback are for all who reach it.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="Port; 0: any that is free.")] = 8600,
    operator: Annotated[
        bool, typer.Option("--operator", help="Let who knows the token hold, promote and roll back versions.")
    ] = False,
    allowed_host: Annotated[
        list[str] | None, typer.Option(help="Another name under which it is reached; may be repeated.")
    ] = None,
    behind_tls: Annotated[
        bool, typer.Option("--behind-tls", help="A proxy with TLS stands before it: the cookie needs TLS.")
    ] = False,
) -> None:
    """Serve a web page over the fleet: robots, episodes, success, latencies, policies, dead letters. Read-only."""
    import uvicorn  # noqa: PLC0415 - each command loads what it needs, no more
    from pydantic import SecretStr  # noqa: PLC0415

    from consumers.console.app import application, build  # noqa: PLC0415
    from consumers.console.operator import Desk  # noqa: PLC0415
    from consumers.console.security import allowed_hosts, is_loopback  # noqa: PLC0415
    from infra.clock import SystemClock  # noqa: PLC0415
    from infra.command import no_settings, settings_or_fail  # noqa: PLC0415
    from infra.settings import anything_set  # noqa: PLC0415
    from infra.telemetry import configure_logging  # noqa: PLC0415
    from infra.terminal import fail  # noqa: PLC0415

    settings, clock = settings_or_fail(), SystemClock()
    if not anything_set():
        fail(no_settings(), code=2)
    configure_logging("console")
    if settings.clickhouse.analyst_username is None:
        fail(
            "the console reads as a user who may only read: set SOP_CLICKHOUSE__ANALYST_USERNAME (and _PASSWORD)",
            code=2,
        )
    token = settings.console.token or SecretStr(secrets.token_urlsafe(24))
    if operator and len(token.get_secret_value()) < 16:
        fail("SOP_CONSOLE__TOKEN is shorter than 16 characters; unset it, and one is made", code=2)
    try:
        bound = _listen(host, port)
    except OSError as error:
        fail(f"cannot listen on {host} port {port}: {error.strerror or error}; choose another with --port", code=2)
    desk = Desk(settings, token, clock, behind_tls=behind_tls) if operator else None
    app = application(build(settings, clock, desk=desk), allowed_hosts(host, allowed_host or ()))
    config = uvicorn.Config(
        app, log_level="warning", access_log=False, server_header=False, timeout_graceful_shutdown=_GRACE_SECONDS
    )
    server = _server(config, app.state.console.feed.close)
    # uvicorn takes these while it serves, and raises them again when it is done: that is an end, and no failure.
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, server.handle_exit)
    shown = f"[{host}]" if ":" in host else host
    typer.echo(f"console: http://{shown}:{bound.getsockname()[1]}/")
    if operator and settings.console.token is None:
        typer.echo(f"operator's token, shown this once: {token.get_secret_value()}")
    if not is_loopback(host):
        note = "note: whoever reaches this address reads everything; put a proxy with a log-in before it"
        typer.echo(note, err=True)
    server.run(sockets=[bound])


def _listen(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, port), family=family, backlog=128)


def _server(config: uvicorn.Config, first: Callable[[], None]) -> uvicorn.Server:
    """A server that does something first when it is told to stop: it waits for streams, which end only then."""
    import uvicorn  # noqa: PLC0415

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: FrameType | None) -> None:
            first()
            super().handle_exit(sig, frame)

    return Server(config)
