"""The object store client's own share: CPU to put payloads of an episode's size, with obstore and with s3fs.

python -m benchmarks.materializer.puts obstore|s3fs EPISODES    prints JSON; settings come from the environment
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any, Protocol

import s3fs

from benchmarks.materializer.bare import cpu_seconds
from benchmarks.materializer.emulator import EPISODE_STEPS
from consumers.storekeeper import UPLOADS
from infra.object_store import ObjectStore
from infra.settings import S3Settings, Settings

PAYLOAD_BYTES = 66_000
"""A payload of 300 steps with 32 + 14 floats."""


class Client(Protocol):
    """What the materializer asks of a store."""

    def list(self, prefix: str) -> list[str]:
        """Keys under a prefix."""

    def put(self, key: str, data: bytes) -> str:
        """Store an object whole."""


class ThroughS3fs:
    """The same bucket through s3fs."""

    def __init__(self, settings: S3Settings) -> None:
        secret = settings.secret_access_key
        self._bucket = settings.bucket
        self._fs: Any = s3fs.S3FileSystem(
            key=settings.access_key_id,
            secret=secret.get_secret_value() if secret else None,
            endpoint_url=settings.endpoint_url,
            client_kwargs={"region_name": settings.region},
            use_listings_cache=False,
        )

    def list(self, prefix: str) -> list[str]:
        """Keys under a prefix."""
        return list(self._fs.find(f"{self._bucket}/{prefix}"))

    def put(self, key: str, data: bytes) -> str:
        """Store an object whole; its address."""
        self._fs.pipe_file(f"{self._bucket}/{key}", data)
        return f"s3://{self._bucket}/{key}"


def main() -> None:
    """Look for each episode's folder and put one object, as the materializer does; CPU of all threads."""
    client, episodes = sys.argv[1], int(sys.argv[2])
    settings = Settings()
    objects: Client = ThroughS3fs(settings.s3) if client == "s3fs" else ObjectStore(settings.s3)
    data = os.urandom(PAYLOAD_BYTES)
    run = f"bench/{uuid.uuid4().hex}"

    def put(number: int) -> None:
        objects.list(f"{run}/{number}/")
        objects.put(f"{run}/{number}/1.parquet", data)

    put(-1)  # connections stand
    with ThreadPoolExecutor(UPLOADS) as pool:
        before = cpu_seconds()
        list(pool.map(put, range(episodes)))
        spent = cpu_seconds() - before
    print(
        json.dumps(
            {"us_per_step": spent / episodes / EPISODE_STEPS * 1e6, "ms_per_episode": spent / episodes * 1e3}
        )
    )


if __name__ == "__main__":
    main()
