"""The object store client's own share: CPU to put payloads of an episode's size, with obstore and with s3fs.

python -m benchmarks.materializer.puts obstore|s3fs EPISODES    prints JSON; settings come from the environment
"""

from __future__ import annotations

import json
import os
import sys
import uuid
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import s3fs

from benchmarks.materializer.bare import cpu_seconds
from benchmarks.materializer.emulator import EPISODE_STEPS
from consumers.materializer import UPLOADS
from infra.object_store import ObjectStore
from infra.settings import S3Settings, Settings

PAYLOAD_BYTES = 66_000
"""A payload of 300 steps with 32 + 14 floats."""


class ThroughS3fs(ObjectStore):
    """The same store, written to through s3fs."""

    def __init__(self, settings: S3Settings) -> None:
        super().__init__(settings)
        secret = settings.secret_access_key
        self._s3fs: Any = s3fs.S3FileSystem(
            key=settings.access_key_id,
            secret=secret.get_secret_value() if secret else None,
            endpoint_url=settings.endpoint_url,
            client_kwargs={"region_name": settings.region},
        )

    def put(self, key: str, data: bytes) -> str:
        """Address of the key."""
        self._s3fs.pipe_file(f"{self.bucket}/{key}", data)
        return self.uri(key)


def main() -> None:
    """Look for each episode's folder and put one object, as the materializer does; CPU of all threads."""
    client, episodes = sys.argv[1], int(sys.argv[2])
    settings = Settings()
    objects = (ThroughS3fs if client == "s3fs" else ObjectStore)(settings.s3)
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
