"""Run the gateway:  python -m infra.local.clickhouse --help"""

from __future__ import annotations

import argparse
import logging
import math
import os
import signal
import sys
from pathlib import Path

import structlog
import uvicorn

from infra.local.clickhouse.engine import Engine, PathInUseError
from infra.local.clickhouse.execution import Service
from infra.local.clickhouse.gateway import Gateway
from infra.local.clickhouse.handle import Bounds
from infra.local.clickhouse.request import User

# Queries that run at SIGTERM get this long; the stack waits 15 s before it kills.
_GRACE_SECONDS = 8


def main() -> int:
    """Serve until SIGTERM; return the exit code."""
    parser = argparse.ArgumentParser(
        prog="python -m infra.local.clickhouse", description="ClickHouse's HTTP interface over the embedded engine"
    )
    parser.add_argument("--path", type=Path, required=True, help="data directory; one process per directory")
    parser.add_argument("--port", type=int, required=True, help="port on 127.0.0.1")
    parser.add_argument(
        "--sop-password", type=Path, required=True, help="file with the password of sop, who may do all"
    )
    parser.add_argument(
        "--analyst-password", type=Path, required=True, help="file with the password of analyst, who reads"
    )
    parser.add_argument("--database", default="sop", help="current database of who names none, if it exists")
    parser.add_argument(
        "--patience", type=_positive, default=60.0, help="seconds to wait for a client to send or take more (60)"
    )
    parser.add_argument(
        "--reader-memory",
        type=_bytes,
        default=Bounds.memory_bytes,
        help="bytes that a query of a reader may use (4 GiB)",
    )
    parser.add_argument(
        "--reader-answer", type=_bytes, default=Bounds.answer_bytes, help="bytes that it may answer (8 GiB)"
    )
    parser.add_argument(
        "--reader-disk", type=_bytes, default=Bounds.disk_bytes, help="bytes that it may put aside (16 GiB)"
    )
    options = parser.parse_args()
    logging.basicConfig(level=logging.WARNING, format="%(message)s")
    structlog.configure(
        processors=[
            structlog.processors.TimeStamper(fmt="iso"),
            structlog.processors.format_exc_info,
            structlog.processors.JSONRenderer(),
        ]
    )
    log = structlog.get_logger("clickhouse")
    # uvicorn takes SIGTERM while it serves and raises it again when it is done; the engine is closed after that.
    signal.signal(signal.SIGTERM, lambda *_: None)
    signal.signal(signal.SIGINT, lambda *_: None)
    try:
        bounds = Bounds(options.reader_memory, options.reader_answer, options.reader_disk)
        engine = Engine(options.path, bounds)
    except PathInUseError as error:
        log.error("path_in_use", reason=str(error))
        return 1
    users = [
        User("sop", options.sop_password.read_text().strip(), reader=False),
        User("analyst", options.analyst_password.read_text().strip(), reader=True),
    ]
    service = Service(engine, {user.name: user for user in users}, options.database)
    gateway = Gateway(service, patience=options.patience)
    log.info("serving", port=options.port, path=str(options.path))
    uvicorn.run(
        gateway,
        host="127.0.0.1",
        port=options.port,
        log_level="warning",
        access_log=False,
        lifespan="off",
        timeout_graceful_shutdown=_GRACE_SECONDS,
    )
    engine.close()
    log.info("stopped")
    sys.stdout.flush()
    # A query that outlived the grace sits in a thread that Python would wait for; the engine survives a kill.
    os._exit(0)


def _positive(text: str) -> float:
    number = float(text)
    if not (math.isfinite(number) and number > 0):
        raise ValueError(text)
    return number


def _bytes(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ValueError(text)
    return number


if __name__ == "__main__":
    sys.exit(main())
