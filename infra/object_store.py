"""Objects on S3: whole ones, put and got by key, with a bound on every request."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any

import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from obstore.exceptions import BaseError
from obstore.store import S3Store

from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import S3Config

_UNAVAILABLE = (BotoCoreError, ClientError, FSTimeoutError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a listing tells it: its key, its size in bytes, and when it was last stored (aware UTC)."""

    key: str
    size: int
    modified: datetime


class ObjectStore:
    """One bucket. Keys are relative to it, URIs are `s3://bucket/key`.

    Raises (all methods):
        ObjectStoreUnavailable: no answer in time, or a refusal.
    """

    def __init__(self, settings: S3Settings) -> None:
        self.bucket = settings.bucket
        self._timeout = settings.timeout
        self._region = settings.region
        secret = settings.secret_access_key
        self._fs: Any = s3fs.S3FileSystem(
            key=settings.access_key_id,
            secret=secret.get_secret_value() if secret else None,
            endpoint_url=settings.endpoint_url,
            client_kwargs={"region_name": settings.region},
            config_kwargs={
                "connect_timeout": min(5.0, settings.timeout),
                "read_timeout": settings.timeout,
                "retries": {"max_attempts": 2},
            },
            use_listings_cache=False,
            skip_instance_cache=True,
        )

        # One PUT of a payload costs 0.3 ms of CPU here and 1.4 ms in s3fs, and payloads are what we put most.
        plain = (settings.endpoint_url or "").startswith("http://")
        self._uploads = S3Store(
            settings.bucket,
            config=_upload_config(settings),
            client_options={
                "allow_http": plain,
                "connect_timeout": f"{min(5.0, settings.timeout)}s",
                "timeout": f"{settings.timeout}s",
            },
            retry_config={"max_retries": 2, "retry_timeout": timedelta(seconds=settings.timeout)},
        )

    def uri(self, key: str) -> str:
        """Address of a key."""
        return f"s3://{self.bucket}/{key}"

    def key(self, uri: str) -> str:
        """Key of an address in this bucket.

        Raises:
            ValueError: the address is of another bucket.
        """
        prefix = f"s3://{self.bucket}/"
        if not uri.startswith(prefix):
            raise ValueError(f"{uri} is not in bucket {self.bucket}")
        return uri.removeprefix(prefix)

    def ensure_bucket(self) -> bool:
        """Create the bucket if it is missing; whether it was."""
        if self._has_bucket():
            return False
        try:
            # us-east-1 is S3's default and must not be named.
            place = {"CreateBucketConfiguration": {"LocationConstraint": self._region}}
            self._call(
                partial(self._fs._call_s3, "create_bucket", **({} if self._region == "us-east-1" else place)),
                Bucket=self.bucket,
            )
        except FileExistsError:
            return False
        return True

    def put(self, key: str, data: bytes) -> str:
        """Store an object whole, replacing it if it exists; its URI."""
        try:
            self._uploads.put(key, data)
        except (BaseError, OSError) as error:
            raise ObjectStoreUnavailable(f"{self.bucket}: {_one_line(error)}") from error
        return self.uri(key)

    def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            ObjectMissing: there is none.
        """
        data: bytes = self._call(self._fs._cat_file, f"{self.bucket}/{key}")
        return data

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        return bool(self._call(self._fs._exists, f"{self.bucket}/{key}"))

    def list(self, prefix: str) -> list[str]:
        """Keys under a folder-like prefix, sorted; empty when there is none."""
        try:
            return sorted(str(entry["path"]) for batch in self._uploads.list(prefix) for entry in batch)
        except (BaseError, OSError) as error:
            raise ObjectStoreUnavailable(f"{self.bucket}: {_one_line(error)}") from error

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Objects under a prefix by key, a page of 1,000 at a time: a bucket of any size fits in memory."""
        page: dict[str, Any] = {"IsTruncated": True}
        after: dict[str, str] = {}
        while page["IsTruncated"]:
            ask = partial(self._fs._call_s3, "list_objects_v2", Bucket=self.bucket, Prefix=prefix, **after)
            page = self._call(ask)
            for item in page.get("Contents", ()):
                yield Entry(item["Key"], item["Size"], item["LastModified"].astimezone(UTC))
            after = {"ContinuationToken": page.get("NextContinuationToken", "")}

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        try:
            self._call(self._fs._rm_file, f"{self.bucket}/{key}")
        except ObjectMissing:
            return

    def ping(self) -> None:
        """Ask something cheap; whether the bucket is there does not matter."""
        self._has_bucket()

    def _has_bucket(self) -> bool:
        # Not s3fs's own `exists`: it takes whatever goes wrong for "no such bucket", a dead server too.
        try:
            self._call(partial(self._fs._call_s3, "head_bucket"), Bucket=self.bucket)
        except ObjectMissing:
            return False
        return True

    def _call(self, method: Any, *args: Any, **kwargs: Any) -> Any:
        # Bounded from outside: aiohttp waits for `100-continue` on a stalled server outside its own read timeout.
        try:
            return sync(self._fs.loop, method, *args, timeout=self._timeout, **kwargs)
        except FileNotFoundError as error:
            raise ObjectMissing(str(error)) from error
        except FileExistsError:
            raise
        except _UNAVAILABLE as error:
            raise ObjectStoreUnavailable(f"{self.bucket}: {error!r}") from error


def sha256_hex(data: bytes) -> str:
    """Hex digest, as in object names and announcements."""
    return hashlib.sha256(data).hexdigest()


def _one_line(error: Exception) -> str:
    """The first line of an error; the others are a debugger's."""
    return (str(error).splitlines() or [repr(error)])[0]


def _upload_config(settings: S3Settings) -> S3Config:
    """What is not set is looked for where AWS keeps it, as s3fs does."""
    config: S3Config = {"region": settings.region}
    if settings.endpoint_url is not None:
        config["endpoint"] = settings.endpoint_url
    if settings.access_key_id is not None:
        config["access_key_id"] = settings.access_key_id
    if settings.secret_access_key is not None:
        config["secret_access_key"] = settings.secret_access_key.get_secret_value()
    return config
