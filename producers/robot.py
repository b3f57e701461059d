"""The robot's side: record episodes, follow a policy line, tell how one is doing.

    with RobotClient(load_settings(), "arm-7", "/var/lib/sop") as client:
        with client.episode(task="fold", instruction="Fold the shirt.", features=features, fps=30) as episode:
            episode.step(state=state, action=action, reward=0.0)
            episode.end(success=True)

Recording never waits for the network: events go to a spool on disk, which survives the process and empties itself
into Kafka whenever that is there.
"""

from __future__ import annotations

import os
import re
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Self

import structlog

from infra.clock import Clock, SystemClock
from infra.policies.names import LINE
from infra.settings import Settings
from infra.telemetry import new_traceparent
from producers.boot import DataDir
from producers.episode import Episode
from producers.episode_checks import require_sound
from producers.errors import ClientClosed, EpisodeOpen
from producers.event_log import EventLog
from producers.frames.directory import FrameDirectory
from producers.frames.recorder import FrameRecorder
from producers.heartbeats import Heartbeats, told
from producers.outbox import Outbox, item
from producers.policy_feed import KafkaPolicyFeed, PolicyFeed
from producers.policy_fit import RobotKind
from producers.policy_inbox import PolicyInbox
from producers.policy_store import PolicyFile, PolicyStore
from producers.spool.outbox import SpoolOutbox
from producers.spool.recovery import closing_events
from schemas.events import EpisodeSource, EpisodeStarted, Feature, Heartbeat, PolicyActivated
from schemas.topics import POLICY_ACTIVATIONS, ROBOT_STATUS

_log = structlog.get_logger(__name__)


class RobotClient:
    """One robot's connection to the fleet, for one thread; a context manager that closes itself.

    A handler of SIGINT or SIGTERM that raises stops it well, wherever it strikes: what was recorded is counted.

    Attributes:
        robot_id: name of the robot, and the key of everything it sends.
        boot_epoch: this start of the client.
    """

    def __init__(
        self,
        settings: Settings,
        robot_id: str,
        data_dir: str | os.PathLike[str],
        *,
        clock: Clock | None = None,
        outbox: Outbox | None = None,
        heartbeat_interval: float | None = 1.0,
        close_timeout: float = 30.0,
    ) -> None:
        """Take the data directory and begin a new boot epoch.

        Args:
            settings: how to reach the servers.
            robot_id: letters, digits, `_`, `.` and `-`, at most 100.
            data_dir: this robot's own directory: boot epoch, spool, policies.
            clock: the robot's clocks.
            outbox: where events go; by default a spool in `data_dir`, and from there to Kafka.
            heartbeat_interval: seconds between reports on robot-status; None: only on demand.
            close_timeout: seconds that leaving the `with` block waits for Kafka.

        Raises:
            ValueError: not a robot_id.
            DataDirBusy: another process records with this directory.
            SpoolFull: the disk is full, so that nothing can begin.
            SpoolUnusable: what earlier boots recorded cannot be opened.
        """
        if not re.fullmatch(r"[\w.-]{1,100}", robot_id, re.ASCII):
            raise ValueError(f"{robot_id!r} is not a robot_id: letters, digits, '_', '.' and '-', at most 100")
        self.robot_id = robot_id
        self._settings = settings
        self._clock = clock or SystemClock()
        self._close_timeout = close_timeout
        self._data_dir = DataDir(Path(data_dir))
        self._process = os.getpid()
        try:
            self._data_dir.give_room()
            self.boot_epoch = self._data_dir.next_boot_epoch(self._clock)
            self._outbox = outbox or SpoolOutbox(
                settings, self._data_dir.path / "spool", robot_id, self.boot_epoch, self._clock
            )
        except BaseException:
            self._data_dir.release()
            raise
        if outbox is None:
            self._data_dir.keep_room()
        self._recorder = FrameRecorder(
            FrameDirectory(self._data_dir.path / "spool" / "frames"), settings.robot, robot_id, settings.s3.bucket
        )
        self._log = EventLog(robot_id, self.boot_epoch, self._outbox, self._clock)
        self._episode: Episode | None = None
        self._active: PolicyFile | None = None
        self._online_episodes_ended = 0
        self._inboxes: list[PolicyInbox] = []
        self._traceparent = new_traceparent()
        self._status = threading.Lock()
        self._simulated_seconds: float | None = None
        self._waiting = False
        self._closing = False
        self._beats = None if heartbeat_interval is None else Heartbeats(self._beat, heartbeat_interval)

    @property
    def active_policy(self) -> PolicyFile | None:
        """The policy that was activated last; None before the first."""
        return self._active

    def episode(
        self,
        *,
        task: str,
        instruction: str,
        features: Sequence[Feature],
        source: EpisodeSource = EpisodeSource.ONLINE,
        fps: float,
        embodiment: str = "",
        policy: str | None = None,
        max_steps: int = 10_000,
    ) -> Episode:
        """Begin an episode; use it in a `with` block.

        Args:
            task: short name by which episodes are grouped.
            instruction: what the robot was told, in words.
            features: layout of the vectors `state` and `action`, both float32; all others are cameras, uint8
                (height, width, 3) or uint16 (height, width).
            source: ONLINE, DEMONSTRATION (a human acts throughout), or EVALUATION (never trained on).
            fps: control steps per second.
            embodiment: which kind of robot body this is.
            policy: policy line that drives the robot; by default the active one's, none in a demonstration.
            max_steps: room is kept for so many; at least 1.

        Raises:
            ClientClosed: the client was closed.
            EpisodeOpen: the episode before has not ended.
            ValueError: task, features, fps or max_steps make no sense, or steps or texts are larger than a record
                of Kafka's.
            SpoolFull: there is no room for `max_steps` steps; wait until Kafka has taken some.
            SpoolUnusable: the spool's files cannot be written.
            CamerasUnavailable: there are cameras, and no encoder for them.
        """
        self._require_usable()
        self._settle()
        if self._episode is not None:
            raise EpisodeOpen(f"episode {self._episode.episode_id} is open; end it before the next one begins")
        layout, step_bytes = require_sound(task, features, fps, max_steps)
        if layout.cameras:
            self._recorder.require(layout.cameras)
        frame_room = self._outbox.reserve(max_steps, step_bytes, max_steps * layout.frame_bytes)
        demonstrated = source is EpisodeSource.DEMONSTRATION
        active = self._active
        if policy is None:
            policy = active.policy if active is not None and not demonstrated else ""
        start = EpisodeStarted(
            task=task,
            instruction=instruction,
            embodiment=embodiment,
            features=layout.features,
            fps=fps,
            source=source,
            policy=policy,
        )
        version = active.version if active is not None and active.policy == policy else 0
        self._episode = Episode(self._log, start, version, self._episode_ended, self._recorder, frame_room)
        self._log.unsure = False
        return self._episode

    def follow(self, policy: str, *, kind: RobotKind | None = None, feed: PolicyFeed | None = None) -> PolicyInbox:
        """Follow a policy line: what this robot should run is verified and downloaded in the background.

        The inbox closes with the client. What it refuses is told in heartbeats and `errors`; so is a line of which
        nothing was announced yet, which is followed when it comes.

        Args:
            policy: the line.
            kind: features and control rate of this robot, so that a policy for another one is refused.
            feed: where policies come from; by default Kafka and the object store.

        Raises:
            ValueError: no line is called so.
            ClientClosed: the client was closed.
            KeyUnusable: a public key of the settings is none.
            SettingInvalid: Kafka's client cannot work with its settings.
            OSError: the folder for the line's policies cannot be made.
        """
        self._require_usable()
        if not LINE.fullmatch(policy):
            raise ValueError(f"{policy!r} is not a policy line: letters, digits, '_' and '-'")
        settings = self._settings.policies
        with ExitStack() as undo:
            if feed is None:
                feed = KafkaPolicyFeed(self._settings, self.robot_id)
                undo.callback(feed.close)
            inbox = PolicyInbox(
                policy,
                feed,
                PolicyStore(self._data_dir.path / "policies" / policy, settings.keep),
                robot_id=self.robot_id,
                settings=settings,
                kind=kind,
                clock=self._clock,
            )
            undo.pop_all()
        self._inboxes.append(inbox)
        return inbox

    def activate(self, file: PolicyFile) -> None:
        """Announce that this policy drives the robot from now on; load it before (`file.read()`).

        Raises:
            ClientClosed, EpisodeOpen: policies change between episodes only.
            SpoolFull, SpoolUnusable: not recorded, and the policy before stays active.
        """
        self.require_no_episode()
        event = PolicyActivated(
            robot_id=self.robot_id,
            boot_epoch=self.boot_epoch,
            policy=file.policy,
            version=file.version,
            sha256=file.announcement.sha256,
            activated_at=self._clock.now(),
        )
        self._log.append(
            item(POLICY_ACTIVATIONS, self.robot_id, event, self._traceparent, event.activated_at.timestamp())
        )
        self._log.unsure = False
        self._active = file
        for inbox in self._inboxes:
            if inbox.policy == file.policy:
                inbox.activated(file)
        _log.info("policy_activated", policy=file.policy, version=file.version)

    def errors(self) -> tuple[str, ...]:
        """What is wrong now, in words, as heartbeats tell it; empty when all is well."""
        inboxes = (error for inbox in self._inboxes for error in inbox.errors())
        return told(inboxes, self._outbox.errors(), self._recorder.errors())

    def require_no_episode(self) -> None:
        """Raises EpisodeOpen while an episode is open: policies change between episodes only; or ClientClosed."""
        self._require_usable()
        self._settle()
        if self._episode is not None:
            raise EpisodeOpen(f"episode {self._episode.episode_id} is open; policies change between episodes only")

    def heartbeat(self, *, simulated_seconds: float | None = None, waiting: bool = False) -> None:
        """Tell now how the robot is doing; the background's reports repeat what was said last.

        Args:
            simulated_seconds: the robot's clock where time is simulated; None leaves it as it was.
            waiting: it holds still at a boundary of simulated time.
        """
        with self._status:
            if simulated_seconds is not None:
                self._simulated_seconds = simulated_seconds
            self._waiting = waiting
            self._report()

    def close(self, timeout: float | None = None) -> None:
        """End an open episode as TRUNCATED, deliver everything, let go of the directory. Once is enough.

        An exception meanwhile (Ctrl-C) ends the waiting. In a process that was forked it does nothing.

        Args:
            timeout: seconds to wait for Kafka; by default the constructor's.

        Raises:
            Undelivered: events were not acknowledged in time; they are kept, and the text says how many.
        """
        if self._closing or os.getpid() != self._process:
            return
        self._closing = True
        try:
            self._settle()
            if self._episode is not None:
                self._episode.__exit__(None, None, None)
        finally:
            self._shut(self._close_timeout if timeout is None else timeout)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, _kind: type[BaseException] | None, _error: BaseException | None, _trace: TracebackType | None
    ) -> None:
        self.close()

    def _shut(self, timeout: float) -> None:
        until = self._clock.monotonic() + timeout

        def left() -> float:
            return max(0.0, until - self._clock.monotonic())

        try:
            for inbox in self._inboxes:
                inbox.close(0.0)  # all at once, and waited for below
            self._recorder.close()
            self._outbox.drain(left())  # heartbeats go on meanwhile, and the last one tells what is left
            for inbox in self._inboxes:
                inbox.close(left())
        except BaseException:
            until = self._clock.monotonic()  # whoever interrupts waits no longer
            raise
        finally:
            try:
                if self._beats is not None:
                    self._beats.close()
                self.heartbeat(waiting=False)
            finally:
                try:
                    self._outbox.close(left())
                finally:
                    self._data_dir.release()

    def _require_usable(self) -> None:
        if os.getpid() != self._process:
            raise ClientClosed(
                f"this is process {os.getpid()}, and the client is that of {self._process}, which forked it: "
                f"record there, or start processes before the client is made"
            )
        if self._closing:
            raise ClientClosed(f"the client of {self.robot_id} was closed; make a new one")

    def _settle(self) -> None:
        """Go on from what is recorded, where an exception of a signal's broke a call off in the middle."""
        if not self._log.unsure:
            return
        if self._episode is not None:
            self._episode.settle()
            return
        tail = self._log.settle()
        if tail is not None and tail.episode is not None:
            # Its beginning is recorded, and nobody was given it.
            now, trace = self._clock.unix(), tail.episode.traceparent.encode()
            for topic, event in closing_events(tail, self.robot_id, self.boot_epoch, now):
                self._log.append(item(topic, self.robot_id, event, trace, now))
                self._log.next_sequence = event.sequence + 1
        self._log.unsure = False

    def _episode_ended(self, episode: Episode) -> None:
        if self._episode is episode:
            online = episode.start.source is EpisodeSource.ONLINE
            self._episode, self._online_episodes_ended = None, self._online_episodes_ended + online

    def _beat(self) -> None:
        with self._status:
            self._report()

    def _report(self) -> None:
        active, offset = self._active, self._outbox.clock_offset()
        event = Heartbeat(
            robot_id=self.robot_id,
            boot_epoch=self.boot_epoch,
            reported_at=self._clock.now(),
            spool_depth=self._outbox.depth(),
            spool_age_seconds=self._outbox.age_seconds(),
            policy=active.policy if active else "",
            policy_version=active.version if active else 0,
            episodes_ended=self._online_episodes_ended,
            errors=self.errors(),
            simulated_seconds=self._simulated_seconds,
            waiting=self._waiting,
            spool_bytes=self._outbox.used_bytes(),
            clock_offset_seconds=offset.seconds if offset else None,
            clock_offset_error_seconds=offset.error if offset else None,
            policy_wanted=self._inboxes[-1].wanted() if self._inboxes else None,
            frames_dropped=self._recorder.lost(),
        )
        self._outbox.offer(
            item(ROBOT_STATUS, self.robot_id, event, self._traceparent, event.reported_at.timestamp())
        )
