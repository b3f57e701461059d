"""Whatever the order, the repetitions, the crashes and the pauses: every event ends in exactly one place.

A rule-based state machine drives the pure parts of the materializer. Words for what could go wrong are Jepsen's:
lost write, duplicate, non-monotonic.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from contextlib import suppress

import hypothesis.strategies as st
from hypothesis import HealthCheck, settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from consumers.payload import read_payload
from consumers.ranges import RangeSet
from infra.errors import ObjectStoreUnavailable
from schemas.events import EpisodeLabelled, Label, RobotEvent, Step, Verdict
from schemas.topics import EPISODE_LABELS, EPISODE_TOPICS, ROBOT_TOPICS
from tests.consumers.member import TIMEOUT, Cluster, Member
from tests.consumers.robots import STATE, TOPIC_OF, Log, Robot, frame, label, uuid7, vector

robots = st.integers(0, 2)
topics = st.sampled_from(ROBOT_TOPICS)
read_topics = st.sampled_from(EPISODE_TOPICS)


class ExactlyOnce(RuleBasedStateMachine):
    def __init__(self) -> None:
        super().__init__()
        self.cluster = Cluster()
        self.member = Member(self.cluster)
        self.robots = [Robot(f"robot-{n}") for n in range(3)]
        self.waiting: dict[tuple[int, str], list[RobotEvent]] = defaultdict(list)
        self.sent: list[RobotEvent] = []
        self.hung: Member | None = None
        self.recorded: list[tuple[str, str]] = []
        self.labels: list[EpisodeLabelled] = []
        self.twice: set[str] = set()

    @rule(
        robot=robots,
        steps=st.integers(0, 4),
        intervene=st.booleans(),
        ends=st.sampled_from([True, True, False]),
        misfit=st.sampled_from([None, None, 0, 2]),
    )
    def record(self, robot: int, steps: int, intervene: bool, ends: bool, misfit: int | None) -> None:
        """A robot records an episode; its events wait to be sent, in order within each topic.

        Step `misfit`, if there is one, has a state of another length than the episode's start says.
        """
        events = self.robots[robot].episode(steps, intervene_at=0 if intervene else None, ends=ends)
        self.recorded.append((events[0].episode_id, events[0].robot_id))
        for event in events:
            if isinstance(event, Step) and event.index == misfit:
                event = event.model_copy(update={"state": vector(STATE + 1, 0.0)})  # noqa: PLW2901
            self.waiting[(robot, TOPIC_OF[type(event)])].append(event)

    @rule(robot=robots, topic=topics, count=st.integers(1, 4))
    def deliver(self, robot: int, topic: str, count: int) -> None:
        """Some of them reach Kafka; topics overtake one another."""
        queue = self.waiting[(robot, topic)]
        for event in queue[:count]:
            self.cluster.log.append(event, self.cluster.now_ms())
            self.sent.append(event)
        del queue[:count]

    @precondition(lambda self: self.sent)
    @rule(data=st.data())
    def resend(self, data: st.DataObject) -> None:
        """A producer sends again what Kafka has: its delivery report was lost, or its whole spool is replayed."""
        first = data.draw(st.integers(0, len(self.sent) - 1))
        for event in self.sent[first : first + data.draw(st.integers(1, 12))]:
            self.cluster.log.append(event, self.cluster.now_ms())

    @rule(data=st.data(), stranger=st.sampled_from([False, False, False, True]))
    def label(self, data: st.DataObject, stranger: bool) -> None:
        """Somebody labels an episode, perhaps before its events have arrived, perhaps one that there is not."""
        known = [] if stranger else self.recorded
        episode_id, robot_id = data.draw(st.sampled_from(known)) if known else (uuid7(), "robot-0")
        event = label(
            episode_id,
            minutes=data.draw(st.integers(0, 3)),
            robot_id=robot_id,
            verdict=data.draw(st.sampled_from([None, *Verdict])),
            excluded=data.draw(st.sampled_from([None, True, False])),
        )
        copies = data.draw(st.integers(1, 2))  # a delivery report was lost
        for _ in range(copies):
            self.cluster.log.append(event, self.cluster.now_ms())
        self.labels.append(event)
        if copies > 1:
            self.twice.add(event.label.label_id)

    @rule(calls=st.integers(1, 6))
    def let_the_store_fail(self, calls: int) -> None:
        """The object store refuses one of its next calls."""
        self.cluster.shelf.fails_in = calls

    @rule(calls=st.integers(2, 5))
    def label_what_is_forgotten(self, calls: int) -> None:
        """Two episodes that no member remembers are labelled, and the store fails while they are looked for."""
        old = [self.robots[n].episode(1) for n in (0, 1)]
        for events in old:
            self.recorded.append((events[0].episode_id, events[0].robot_id))
            for event in events:
                self.cluster.log.append(event, self.cluster.now_ms())
                self.sent.append(event)
        for topic in EPISODE_TOPICS:
            self.member.consume(topic, 10_000)
        self.commit()
        self.commit()
        self.member = Member(self.cluster)
        for events in old:
            said = label(events[0].episode_id, robot_id=events[0].robot_id, excluded=True)
            self.cluster.log.append(said, self.cluster.now_ms())
            self.labels.append(said)
        self.member.consume(EPISODE_LABELS, 10_000)
        self.let_the_store_fail(calls)
        self.apply_labels()

    @rule()
    def apply_labels(self) -> None:
        with suppress(ObjectStoreUnavailable):
            self.member.apply_labels()

    @rule(topic=read_topics, count=st.integers(1, 8))
    def consume(self, topic: str, count: int) -> None:
        self.member.consume(topic, count)

    @rule()
    def commit(self) -> None:
        with suppress(ObjectStoreUnavailable):
            self.member.commit()

    @rule()
    def commit_is_refused(self) -> None:
        with suppress(ObjectStoreUnavailable):
            self.member.refused()

    @rule()
    def decide(self) -> None:
        with suppress(ObjectStoreUnavailable):
            self.member.decide()

    @rule(stored=st.booleans())
    def crash(self, stored: bool) -> None:
        """kill -9, perhaps after payloads were stored and before the transaction."""
        if stored:
            with suppress(ObjectStoreUnavailable):
                self.member.store()
        self.member = Member(self.cluster)

    @rule()
    def hang(self) -> None:
        """A member is stopped past its session; its successor takes over."""
        self.hung, self.member = self.member, Member(self.cluster)

    @precondition(lambda self: self.hung)
    @rule()
    def wake_up(self) -> None:
        """It goes on, and stores what it had before its commit is refused."""
        if self.hung is not None:
            with suppress(ObjectStoreUnavailable):
                self.hung.store()
            self.hung = None

    @rule(seconds=st.sampled_from([1.0, TIMEOUT / 2, TIMEOUT + 1.0]))
    def wait(self, seconds: float) -> None:
        self.cluster.clock.advance(seconds)
        self.member.let_time_pass()

    @invariant()
    def each_revision_is_announced_once(self) -> None:
        counts = Counter((event.episode_id, event.revision) for event in self.cluster.training)
        assert max(counts.values(), default=1) == 1, "duplicate"

    @invariant()
    def revisions_grow_and_lose_nothing(self) -> None:
        newest: dict[str, tuple[int, int]] = {}
        for event in self.cluster.training:
            size = RangeSet.of(event.sequences).count() + len(event.labels)
            before = newest.get(event.episode_id, (0, 0))
            assert event.revision > before[0], "non-monotonic"
            assert size > before[1], "a revision that adds nothing"
            newest[event.episode_id] = (event.revision, size)

    def teardown(self) -> None:
        self.cluster.shelf.fails_in = None
        for (_, topic), queue in self.waiting.items():
            for event in queue:
                self.cluster.log.append(event, self.cluster.now_ms())
                self.sent.append(event)
            assert topic in ROBOT_TOPICS
        for _ in range(3):  # late events make a pass of their own
            for topic in EPISODE_TOPICS:
                self.member.consume(topic, 10_000)
            self.cluster.clock.advance(TIMEOUT + 1)
            self.member.let_time_pass()
            self.member.apply_labels()
            self.member.commit()
        self.each_revision_is_announced_once()
        self.revisions_grow_and_lose_nothing()
        self.every_event_is_in_one_place()
        self.every_label_counts_once()

    def every_label_counts_once(self) -> None:
        dead = {event.label.label_id for event in self.buried_labels()}
        newest = {event.episode_id: event for event in self.cluster.training}
        said: dict[str, list[Label]] = defaultdict(list)
        for event in self.labels:
            announced = newest.get(event.episode_id)
            there = announced is not None and event.label in announced.labels
            buried = event.label.label_id in dead
            assert there or buried, "a label is lost"
            # Its second copy may come when the episode is there at last, after the first was given up.
            assert not (there and buried) or event.label.label_id in self.twice, "a label in two places"
            if there:
                said[event.episode_id].append(event.label)
        for episode_id, announced in newest.items():
            labels = sorted(said[episode_id], key=lambda one: (one.labelled_at, one.label_id))
            assert list(announced.labels) == labels, "each once, whatever the order"
            verdicts = [one.verdict for one in labels if one.verdict]
            spoken = [one.excluded for one in labels if one.excluded is not None]
            recorded = announced.recorded_success
            wanted = {None: recorded, "SUCCEEDED": True, "FAILED": False, "UNKNOWN": None}
            assert announced.success is wanted[verdicts[-1] if verdicts else None]
            assert announced.excluded is (spoken[-1] if spoken else False)

    def buried_labels(self) -> list[EpisodeLabelled]:
        """Labels that are dead letters."""
        places = [offset for topic, offset in self.cluster.dead if topic == EPISODE_LABELS]
        values = [self.cluster.log.records[EPISODE_LABELS][offset].value for offset in places]
        return [event for event in self.labels if frame(event) in values]

    def every_event_is_in_one_place(self) -> None:
        dead_places = set(self.cluster.dead)
        assert len(dead_places) == len(self.cluster.dead), "a record was buried twice"
        buried = [
            (event.episode_id, event.sequence) for place in self.cluster.dead for event in self.lying_at(place)
        ]
        assert len(set(buried)) == len(buried), "an event was buried twice"
        newest = {event.episode_id: event for event in self.cluster.training}
        dead = {
            (event.episode_id, event.sequence)
            for event, place in self.placed()
            if (place[0], place[1]) in dead_places
        }
        for event in self.sent:
            announced = newest.get(event.episode_id)
            there = announced is not None and event.sequence in RangeSet.of(announced.sequences)
            assert there or (event.episode_id, event.sequence) in dead, "lost write"
            assert not (there and (event.episode_id, event.sequence) in dead), "in two places"
        for announced in newest.values():
            stored = read_payload(self.cluster.shelf.get(self.cluster.shelf.key(announced.payload_uri)))
            sent = {e.sequence for e in self.sent if e.episode_id == announced.episode_id and isinstance(e, Step)}
            listed = RangeSet.of(announced.sequences)
            wanted = [sequence for sequence in sorted(sent) if sequence in listed]
            assert sorted(stored.steps.sequence.tolist()) == wanted, "the payload is not what it lists"
            assert stored.facts.revision == announced.revision

    def lying_at(self, place: tuple[str, int]) -> list[RobotEvent]:
        """The event at a place, in a list."""
        value = self.cluster.log.records[place[0]][place[1]].value
        return [event for event in self.sent if frame(event) == value][:1]

    def placed(self) -> list[tuple[RobotEvent, tuple[str, int]]]:
        """Sent events with every place where they lie."""
        by_value = {(e.robot_id, e.boot_epoch, e.sequence): e for e in self.sent}
        log: Log = self.cluster.log
        out = []
        for place in log.all():
            for event in by_value.values():
                if place.topic == TOPIC_OF[type(event)] and place.value == frame(event):
                    out.append((event, (place.topic, place.offset)))
        return out


ExactlyOnce.TestCase.settings = settings(
    max_examples=120,
    stateful_step_count=40,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.filter_too_much],
)
TestExactlyOnce = ExactlyOnce.TestCase
