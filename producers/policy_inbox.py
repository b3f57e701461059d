"""The newest policy of a line, downloaded and verified in the background; the robot swaps when it likes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from infra.errors import InfraError
from producers.errors import PolicyRefused
from producers.policy_feed import PolicyFeed
from producers.policy_store import PolicyFile, PolicyStore
from schemas.events import PolicyVersion

_POLL_SECONDS = 0.2
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0

_log = structlog.get_logger(__name__)


class PolicyInbox:
    """Follows one policy line. Nothing here changes the active policy: that is `RobotClient.activate`.

    An artifact whose size or sha256 is not as announced is refused and reported, and the newest good one stays.
    """

    def __init__(self, policy: str, feed: PolicyFeed, store: PolicyStore) -> None:
        self.policy = policy
        self._feed = feed
        self._store = store
        self._announced: dict[int, PolicyVersion] = {}
        self._refused: dict[tuple[int, str], str] = {}
        self._newest: PolicyFile | None = None
        self._trouble = ""
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._thread = threading.Thread(target=self._run, name="policy-inbox", daemon=True)
        self._thread.start()

    def newest(self) -> PolicyFile | None:
        """The highest version that is here and verified; None before the first."""
        return self._newest

    def wait_for(self, predicate: Callable[[PolicyVersion], bool], timeout: float) -> PolicyFile | None:
        """Wait at most `timeout` seconds until the newest version satisfies `predicate`; None if it does not."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: self._newest is not None and predicate(self._newest.announcement), timeout
            )
            return self._newest if found else None

    def errors(self) -> tuple[str, ...]:
        """What is wrong now, in words: servers that do not answer, versions refused above the newest good one."""
        held = self._newest.version if self._newest else 0
        refused = tuple(why for (version, _), why in sorted(self._refused.items()) if version > held)
        return (*((self._trouble,) if self._trouble else ()), *refused)

    def close(self) -> None:
        """Stop following; files stay. Waits for a request under way, which has its own bound."""
        self._closed.set()
        self._thread.join()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def _run(self) -> None:
        pause = _FIRST_PAUSE
        try:
            while not self._closed.is_set():
                try:
                    self._learn(self._feed.poll(_POLL_SECONDS))
                    self._take_newest()
                except (InfraError, OSError) as error:
                    self._trouble = f"policies cannot be followed: {error}"
                    _log.warning("policy_inbox_waits", error=str(error), retry_in=pause)
                    self._closed.wait(pause)
                    pause = min(pause * 2, _LONGEST_PAUSE)
                else:
                    self._trouble = ""
                    pause = _FIRST_PAUSE
        except Exception as error:  # noqa: BLE001 - a thread's end must be told, not only printed
            self._trouble = f"policies are no longer followed: {error!r}"
            _log.exception("policy_inbox_failed")
        finally:
            self._feed.close()

    def _learn(self, announcements: list[PolicyVersion]) -> None:
        for announcement in announcements:
            if announcement.policy == self.policy:
                self._announced[announcement.version] = announcement

    def _take_newest(self) -> None:
        for version in sorted(self._announced, reverse=True):
            announcement = self._announced[version]
            held = self._newest
            if held is not None and (held.version > version or held.announcement == announcement):
                return
            if (version, announcement.sha256) in self._refused:
                continue
            try:
                file = self._store.find(announcement) or self._download(announcement)
            except (PolicyRefused, ValueError) as error:
                self._refused[version, announcement.sha256] = str(error)
                _log.error("policy_refused", policy=self.policy, version=version, error=str(error))
                continue
            _log.info("policy_ready", policy=self.policy, version=version)
            with self._changed:
                self._newest = file
                self._changed.notify_all()
            return

    def _download(self, announcement: PolicyVersion) -> PolicyFile:
        return self._store.add(announcement, self._feed.download(announcement))
