"""The policy that this robot should run: verified, downloaded in the background, kept over boots and outages.

Nothing here changes what runs: that is `RobotClient.activate`, between episodes (`policy_swap.swap` does it all).
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from types import TracebackType
from typing import Self

import structlog

from infra.clock import Clock, SystemClock
from infra.errors import InfraError
from infra.policies.announced import Announced
from infra.policies.keys import learner_keyring, operator_keyring
from infra.settings import PolicySettings
from producers.errors import PolicyRefused
from producers.policy_beliefs import Beliefs
from producers.policy_download import Interrupted, NotNow, Outdated, download
from producers.policy_faults import Faults
from producers.policy_feed import Heard, PolicyFeed
from producers.policy_fit import RobotKind, require_fit
from producers.policy_link import Link
from producers.policy_store import PolicyFile, PolicyStore
from schemas.events import PolicyVersion

_POLL_SECONDS = 0.2
_FIRST_PAUSE = 0.25
_LONGEST_PAUSE = 5.0
# A download goes on without Kafka; asking whether it is back may take 10 s, so it is asked so seldom.
_DEAF_SECONDS = 30.0

_log = structlog.get_logger(__name__)


class PolicyInbox:
    """Follows one policy line for one robot. What it refuses is told in `errors`, and what is good stays."""

    def __init__(
        self,
        policy: str,
        feed: PolicyFeed,
        store: PolicyStore,
        *,
        robot_id: str,
        settings: PolicySettings,
        kind: RobotKind | None = None,
        clock: Clock | None = None,
    ) -> None:
        """Take up what the disk holds, off line if need be, and follow the control topics from now on.

        Args:
            policy: the line.
            feed: where announcements and artifacts come from.
            store: where they lie on this robot.
            robot_id: rollouts tell robots apart by it.
            settings: whose announcements are believed, how many artifacts are kept, how fast they may come.
            kind: what a policy must be made for; None: any policy is taken.
            clock: the robot's clocks.

        Raises:
            KeyUnusable: a key of the settings is none.
        """
        self.policy = policy
        self._clock = clock = clock or SystemClock()
        self._feed = feed
        self._store = store
        self._kind = kind
        self._link = Link(settings.max_bytes_per_second, clock)
        self._keep_free = settings.min_free_bytes
        self._beliefs = Beliefs(
            policy, robot_id, learner_keyring(settings), operator_keyring(settings), clock, store.save_rollout
        )
        self._faults = Faults(clock)
        self._active: PolicyVersion | None = None
        self._current: PolicyFile | None = None
        self._wanted: int | None = None
        self._pending: deque[Heard] = deque()
        self._deaf, self._deaf_until = "", clock.monotonic()
        self._trouble = ""
        self._missing = ""
        self._unknown_line = ""
        self._changed = threading.Condition()
        self._closed = threading.Event()
        self._start_from_disk()
        self._thread = threading.Thread(target=self._run, name="policy-inbox", daemon=True)
        self._thread.start()

    def current(self) -> PolicyFile | None:
        """What this robot should run, of what is here and verified; None before there is anything."""
        return self._current

    def wanted(self) -> int | None:
        """Version that this robot should run, here or not; None where that is not known."""
        return self._wanted

    def wait_for(self, predicate: Callable[[PolicyVersion], bool], timeout: float) -> PolicyFile | None:
        """Wait at most `timeout` seconds until what should run satisfies `predicate`; None if it does not."""
        with self._changed:
            found = self._changed.wait_for(
                lambda: self._current is not None and predicate(self._current.announcement), timeout
            )
            return self._current if found else None

    def errors(self) -> tuple[str, ...]:
        """What is wrong now, in words: servers that do not answer, a line of which nothing was announced (it is
        followed when it comes); what was refused, and why."""
        held = self._current.version if self._current else 0
        now = self._trouble or self._deaf, self._unknown_line, self._missing
        return (*filter(None, now), *self._beliefs.refusals(held))

    def reject(self, file: PolicyFile, why: str) -> None:
        """The policy cannot be loaded: it is not offered again until the next boot; another one takes its place.

        It is the one that ran last, if that is here, or else the next one that the rollout allows.
        """
        with self._changed:
            self._refuse_for_good(file.announcement, f"cannot be loaded: {why}")
            if self._current == file:
                self._current = self._fall_back()
            self._changed.notify_all()

    def activated(self, file: PolicyFile) -> None:
        """The policy runs: after the next boot it is the last good one."""
        announced = self._beliefs.announced.get(file.version)
        self._active = file.announcement
        if announced is None or announced.event != file.announcement:
            return
        try:
            self._store.save_active(announced)
        except OSError as error:
            _log.error("policy_active_not_saved", version=file.version, error=str(error))

    def close(self, timeout: float | None = None) -> None:
        """Stop following; files stay.

        Args:
            timeout: seconds to wait for a request under way, which has its own bound; None: until it is over.
        """
        self._closed.set()
        self._thread.join(timeout)

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
                    self._hear(0.0 if self._pending else _POLL_SECONDS)
                    self._take_best()
                except Interrupted:
                    break
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

    def _start_from_disk(self) -> None:
        """What can run without any server."""
        for announced in self._store.stored():
            self._beliefs.recall(announced)
        active = self._store.active()
        try:
            rollout = self._store.rollout()
        except PolicyRefused as error:  # there was one: what it said is not known, so the newest is not followed
            self._beliefs.doubt(str(error))
        else:
            if rollout is not None:
                self._beliefs.recall_rollout(rollout)
        self._beliefs.recalled()
        if active is not None and self._known(active):
            self._active = active.event
        for version in self._preferences():
            if (file := self._here(self._beliefs.announced.get(version))) is not None:
                break
        else:
            file = self._fall_back()
        self._current = file
        if file is not None:
            _log.info("policy_ready", policy=self.policy, version=file.version, place="disk")

    def _hear(self, timeout: float) -> None:
        self._pending += self._feed.poll(timeout)
        self._deaf = ""
        while self._pending:  # one that cannot be saved is heard again
            self._beliefs.hear(self._pending[0])
            self._pending.popleft()
        everything = self._feed.heard_all()
        self._beliefs.heard(everything=everything)
        unknown = self._beliefs.unknown_line() if everything else ""
        if unknown and not self._unknown_line:
            _log.warning("policy_line_unknown", policy=self.policy, error=unknown)
        self._unknown_line = unknown

    def _preferences(self) -> list[int]:
        preferences = self._beliefs.preferences()
        self._wanted = preferences[0] if preferences else None
        return preferences

    def _take_best(self) -> None:
        """The best version that can be had becomes current; none leaves what there is.

        Before all announcements are heard, which is best among them is not known: nothing is downloaded, and
        nothing stands in for what the robot should run.
        """
        preferences, everything = self._preferences(), self._feed.heard_all()
        best = preferences[:1]
        absent = best if everything and best and best[0] not in self._beliefs.announced else []
        self._missing = "".join(f"{self.policy} v{version} should run, and is not announced" for version in absent)
        for version in preferences if everything else best:
            announced = self._beliefs.announced.get(version)
            if announced is None or self._faults.is_bad(announced.event):
                continue
            held = self._current
            if held is not None and held.announcement == announced.event:
                return
            if self._faults.waits(announced.event):
                continue
            try:
                file = self._here(announced) or (self._fetch(announced) if everything else None)
            except Outdated:
                return
            except NotNow as error:
                pause = self._faults.for_now(announced.event, dear=error.dear)
                self._refuse(announced.event, f"{error}; tried again in {pause:.0f} s")
                return  # what was heard meanwhile may have changed which is next
            except (PolicyRefused, ValueError) as error:
                self._refuse_for_good(announced.event, str(error))
                return
            if file is None:
                return
            if self._faults.came(announced.event):
                self._beliefs.withdraw(f"{self.policy} v{version}")
            if self._offer(file):
                return

    def _offer(self, file: PolicyFile) -> bool:
        with self._changed:
            if self._faults.is_bad(file.announcement):
                return False
            self._current = file
            self._changed.notify_all()
        _log.info("policy_ready", policy=self.policy, version=file.version)
        self._store.prune([file.announcement, *([self._active] if self._active else [])])
        return True

    def _fetch(self, announced: Announced[PolicyVersion]) -> PolicyFile:
        event, generation = announced.event, self._beliefs.generation
        part = self._store.part(event)

        def between(seconds: float) -> None:
            self._meanwhile(seconds, event, generation)

        download(event, part, self._feed, self._link, between, self._keep_free)
        if self._kind is not None:
            try:
                require_fit(part, self._kind)
            except PolicyRefused:
                part.unlink()
                raise
        return self._store.adopt(announced)

    def _meanwhile(self, seconds: float, event: PolicyVersion, generation: int) -> None:
        """Wait between two parts of a download, and hear what is said.

        Raises:
            Interrupted: the inbox is to close.
            Outdated: a rollout wants another version. A newer version of a line that is followed does not end a
                download: a robot that is slower than its learner would never have any.
        """
        while True:
            if self._closed.is_set():
                raise Interrupted
            self._hear_what_came()
            if self._is_outdated(event, generation):
                _log.info("policy_download_given_up", policy=self.policy, version=event.version)
                raise Outdated
            if seconds <= 0:
                return
            self._closed.wait(min(seconds, _POLL_SECONDS))
            seconds -= _POLL_SECONDS

    def _hear_what_came(self) -> None:
        if self._clock.monotonic() < self._deaf_until:
            return
        try:
            self._hear(0.0)
        except InfraError as error:
            self._deaf_until = self._clock.monotonic() + _DEAF_SECONDS
            self._deaf = f"policies cannot be followed: {error}"

    def _is_outdated(self, event: PolicyVersion, generation: int) -> bool:
        known = self._beliefs.announced
        preferences = [version for version in self._preferences() if version in known]
        if event.version not in preferences or known[event.version].event != event:
            return True
        better = (known[version].event for version in preferences)
        best = next(found for found in better if found == event or not self._excluded(found))
        return self._beliefs.generation != generation and best != event

    def _excluded(self, event: PolicyVersion) -> bool:
        return self._faults.is_bad(event) or self._faults.waits(event)

    def _refuse(self, event: PolicyVersion, why: str) -> None:
        self._beliefs.refuse(f"{self.policy} v{event.version}", why, event.version)

    def _refuse_for_good(self, event: PolicyVersion, why: str) -> None:
        self._faults.for_good(event)
        self._refuse(event, why)

    def _here(self, announced: Announced[PolicyVersion] | None) -> PolicyFile | None:
        """An artifact on disk that is intact and fits; one that does not is refused."""
        if announced is None or self._faults.is_bad(announced.event):
            return None
        file = self._store.find(announced.event)
        if file is not None and self._kind is not None:
            try:
                require_fit(file.path, self._kind)
            except PolicyRefused as error:
                self._refuse_for_good(announced.event, str(error))
                return None
        return file

    def _fall_back(self) -> PolicyFile | None:
        """What ran last, if it is here and good."""
        active = self._active
        return self._here(self._beliefs.announced.get(active.version)) if active is not None else None

    def _known(self, active: Announced[PolicyVersion]) -> bool:
        known = self._beliefs.announced.get(active.event.version)
        return known is not None and known.event == active.event
