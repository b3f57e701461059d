"""Objects on S3: whole ones, put and got by key, with a bound on every request."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

import s3fs
from botocore.exceptions import BotoCoreError, ClientError
from fsspec.asyn import sync
from fsspec.exceptions import FSTimeoutError
from obstore.exceptions import BaseError, NotFoundError
from obstore.store import S3Store

from infra.clock import SystemClock
from infra.errors import ObjectMissing, ObjectStoreUnavailable
from infra.pace import Pace
from infra.settings import S3Settings

if TYPE_CHECKING:
    from obstore.store import S3Config
P = ParamSpec("P")
T = TypeVar("T")

# Of the bound of a request: what took so long was ended by it.
_NEARLY = 0.95
_UNAVAILABLE = (BotoCoreError, ClientError, FSTimeoutError, OSError, TimeoutError)


@dataclass(frozen=True, slots=True)
class Entry:
    """An object as a listing tells it: its key, its size in bytes, and when it was last stored (aware UTC)."""

    key: str
    size: int
    modified: datetime


_NO_KEY = "no-object-has-this-key"


class ObjectStore:
    """One bucket. Keys are relative to it, URIs are `s3://bucket/key`.

    Raises (all methods):
        ObjectStoreUnavailable: no answer in time, or a refusal.
    """

    def __init__(
        self, settings: S3Settings, pace: Pace | None = None, wait: Callable[[float], None] = time.sleep
    ) -> None:
        """Nothing is asked yet.

        Args:
            settings: where the bucket is.
            pace: of what is put; by default there is no cap.
            wait: sleeps for so many seconds, where it says so.
        """
        self.bucket = settings.bucket
        self._settings = settings
        self._pace = pace or Pace(None, SystemClock())
        self._wait = wait
        # obstore for objects, s3fs for the bucket. A PUT of a payload costs 0.3 ms of CPU in one and 1.4 ms in the
        # other, a GET a fifth; and nothing waits for the event loop that all s3fs clients of a process share.
        self._client = S3Store(
            settings.bucket,
            config=_config(settings),
            client_options={
                "allow_http": (settings.endpoint_url or "").startswith("http://"),
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
        client = _BucketClient(self._settings)
        return False if client.exists() else client.create()

    def put(self, key: str, data: bytes) -> str:
        """Store an object whole, replacing it if it exists; its URI. Waits for its turn where there is a cap."""
        if (pause := self._pace.reserve(len(data))) > 0:
            self._wait(pause)
        begun = time.monotonic()
        try:
            self._client.put(key, data)
        except (BaseError, OSError) as error:
            raise self._unavailable(error, begun) from error
        return self.uri(key)

    def get(self, key: str) -> bytes:
        """The whole object.

        Raises:
            ObjectMissing: there is none.
        """
        return self._ask(lambda: self._client.get(key).bytes().to_bytes())

    def get_range(self, key: str, start: int, length: int) -> memoryview:
        """Bytes of an object from `start` on, at most `length` of them; not copied.

        Raises:
            ObjectMissing: there is none.
        """
        return self._ask(lambda: memoryview(self._client.get_range(key, start=start, length=length)))

    def size(self, key: str) -> int:
        """Bytes of an object.

        Raises:
            ObjectMissing: there is none.
        """
        return self._ask(lambda: self._client.head(key))["size"]

    def exists(self, key: str) -> bool:
        """Whether there is an object under this key."""
        try:
            self._ask(self._client.head, key)
        except ObjectMissing:
            return False
        return True

    def list(self, prefix: str) -> list[str]:
        """Keys under a folder-like prefix, sorted; empty when there is none."""
        return sorted(entry.key for entry in self.entries(prefix))

    def entries(self, prefix: str) -> Iterator[Entry]:
        """Objects under a folder-like prefix, a page of 1,000 at a time: a bucket of any size fits in memory."""
        pages = self._client.list(prefix, chunk_size=1000)
        while page := self._ask(next, pages, ()):
            for item in page:
                yield Entry(item["path"], item["size"], item["last_modified"].astimezone(UTC))

    def delete(self, key: str) -> None:
        """Remove an object; nothing happens if there is none."""
        try:
            self._ask(self._client.delete, key)
        except ObjectMissing:
            return

    def ping(self) -> None:
        """Ask something cheap; whether the bucket is there does not matter."""
        self.exists(_NO_KEY)

    def _ask(self, call: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
        begun = time.monotonic()
        try:
            return call(*args, **kwargs)
        except (NotFoundError, FileNotFoundError) as error:
            if "NoSuchBucket" in str(error):  # an object that is merely missing is something else
                raise ObjectStoreUnavailable(f"no bucket {self.bucket}. Has `sop deploy` run?") from error
            raise ObjectMissing(_one_line(error)) from error
        except (BaseError, OSError) as error:
            raise self._unavailable(error, begun) from error

    def _unavailable(self, error: Exception, begun: float) -> ObjectStoreUnavailable:
        """In words; what ran out of time looks like any other broken connection, so that is said."""
        text, bound = f"{self.bucket}: {_one_line(error)}", self._settings.timeout
        if time.monotonic() - begun >= _NEARLY * bound:
            text += f" (not done within SOP_S3__TIMEOUT, {bound:g} s)"
        return ObjectStoreUnavailable(text)


class _BucketClient:
    """Asks for a bucket, and makes it; obstore knows only objects."""

    def __init__(self, settings: S3Settings) -> None:
        self._settings = settings
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
            skip_instance_cache=True,
        )

    def exists(self) -> bool:
        # Not s3fs's own `exists`: it takes whatever goes wrong for "no such bucket", a dead server too.
        try:
            self._call("head_bucket")
        except FileNotFoundError:
            return False
        return True

    def create(self) -> bool:
        """Whether it was made; somebody else may have been faster."""
        region = self._settings.region
        # us-east-1 is S3's default and must not be named.
        place = {"CreateBucketConfiguration": {"LocationConstraint": region}} if region != "us-east-1" else {}
        try:
            self._call("create_bucket", **place)
        except FileExistsError:
            return False
        return True

    def _call(self, method: str, **kwargs: Any) -> None:
        ask = partial(self._fs._call_s3, method, **kwargs)
        # Bounded from outside: aiohttp waits for `100-continue` on a stalled server outside its own read timeout.
        try:
            sync(self._fs.loop, ask, Bucket=self._settings.bucket, timeout=self._settings.timeout)
        except (FileNotFoundError, FileExistsError):
            raise
        except _UNAVAILABLE as error:
            raise ObjectStoreUnavailable(f"{self._settings.bucket}: {error!r}") from error


def sha256_hex(data: bytes) -> str:
    """Hex digest, as in object names and announcements."""
    return hashlib.sha256(data).hexdigest()


def _one_line(error: Exception) -> str:
    """The first line of an error; the others are a debugger's."""
    return (str(error).splitlines() or [repr(error)])[0]


def _config(settings: S3Settings) -> S3Config:
    """What is not set is looked for where AWS keeps it, as s3fs does."""
    config: S3Config = {"region": settings.region}
    if settings.endpoint_url is not None:
        config["endpoint"] = settings.endpoint_url
    if settings.access_key_id is not None:
        config["access_key_id"] = settings.access_key_id
    if settings.secret_access_key is not None:
        config["secret_access_key"] = settings.secret_access_key.get_secret_value()
    return config
