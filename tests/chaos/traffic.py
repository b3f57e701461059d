"""What emulated robots send, round by round: a pure function of the schedule and a salt.

Nothing is encoded here. An event is its Avro datum, and what a reader must do with it.
"""

from __future__ import annotations

import random
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.labels import labels_of
from tests.chaos.poison import poisons
from tests.chaos.robot import Event, Line, Robot
from tests.chaos.schedule import ROUNDS, Schedule

LABELLED = 30
"""Episodes of a run about which somebody says something."""
STEPS, INTERVENTIONS, EPISODES = "robot-steps", "robot-interventions", "robot-episodes"


@dataclass
class Traffic:
    """Events by round; what comes after everything else was done; and which kinds of fault are in it."""

    rounds: list[list[Event]] = field(default_factory=lambda: [[] for _ in range(ROUNDS)])
    afterwards: list[Event] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    objects: dict[str, bytes] = field(default_factory=dict)
    """What cameras stored, by key; it is there before the first event is sent."""

    def count(self, kind: str, number: int = 1) -> None:
        """A fault of this kind was put in."""
        self.counts[kind] = self.counts.get(kind, 0) + number


def traffic_of(schedule: Schedule, salt: str = "") -> Traffic:
    """The traffic of a schedule. Robots of different salts are different robots."""
    chance = random.Random(f"traffic {schedule.seed} {salt}")
    traffic = Traffic()
    lines = [Line(chance, f"c{salt}-{schedule.seed}-{n}", boot=0) for n in range(schedule.robots)]
    if schedule.has("clone"):
        lines.append(Line(chance, lines[0].robot_id, boot=1))
        traffic.count("clone")
    size = schedule.events // len(lines)
    logs = [
        _log(chance, schedule, traffic, line, size=size, long_at=number % 3 * size // 4)
        for number, line in enumerate(lines)
    ]
    for log in logs:
        size = -(-len(log) // ROUNDS)
        for round_ in range(ROUNDS):
            traffic.rounds[round_] += log[round_ * size : (round_ + 1) * size]
    traffic.rounds = [_interleaved(chance, events) for events in traffic.rounds]
    if schedule.has("label"):
        _label(chance, traffic, lines)
    if schedule.has("reorder"):
        _delay_topic(chance, traffic, schedule.detail("reorder"))
    if schedule.has("resend"):
        _resend(chance, traffic)
    if schedule.has("spool-replay"):
        _replay(chance, traffic, lines)
    return traffic


def _log(
    chance: random.Random, schedule: Schedule, traffic: Traffic, line: Line, *, size: int, long_at: int
) -> list[Event]:
    """One robot's events in the order of their sequence, without those that come late or never.

    About `size` of them. It has one long episode, after `long_at` events: while that is open, many others begin
    and end elsewhere.
    """
    log: list[Event] = []
    spoiled = poisons() if schedule.has("poison") else []
    robot = Robot(chance, line)
    leap_at = chance.randrange(size) if schedule.has("clock-jump") else -1
    while len(log) < size:
        if leap_at >= 0 and len(log) >= leap_at:
            line.leap(chance.choice([-40, 30]) * 365 * 86_400)
            traffic.count("clock-jump")
            leap_at = -1
        steps = chance.choice([0, 1, 3, 20, 60, 150])
        if 0 <= long_at <= len(log):
            steps, long_at = min(400, size // 3), -1
        endless = schedule.has("missing-end") and chance.random() < 0.15
        written = not endless or chance.random() < 0.5
        episode = robot.episode(steps, ends=written)
        if endless:
            # Never written: the next start closes the episode. Written and lost: only a timeout can.
            del episode[len(episode) - written :]
            traffic.count("missing-end")
        if spoiled and chance.random() < 0.5:
            for poison in chance.sample(spoiled, min(3, len(spoiled))):
                if poison.into(episode, robot):
                    traffic.count("poison")
        elif schedule.has("late") and chance.random() < 0.12 and len(episode) > 4:
            first = chance.randrange(2, len(episode))
            held = episode[first:] if chance.random() < 0.5 else episode[first : first + 3]
            episode = [event for event in episode if event not in held]
            traffic.afterwards += held
            traffic.count("late")
        log += episode
    traffic.objects |= robot.objects
    return log


def _interleaved(chance: random.Random, events: list[Event]) -> list[Event]:
    """Robots mixed; each robot's own order stays."""
    queues: dict[Any, list[Event]] = {}
    for event in events:
        queues.setdefault(event.line, []).append(event)
    picks = [line for line, queue in queues.items() for _ in queue]
    chance.shuffle(picks)
    heads = {line: iter(queue) for line, queue in queues.items()}
    return [next(heads[line]) for line in picks]


def _label(chance: random.Random, traffic: Traffic, lines: list[Line]) -> None:
    """People say something of episodes that are under way, over, or long over; some of it twice."""
    begun: dict[str, tuple[int, Event]] = {}
    for round_, events in enumerate(traffic.rounds):
        for event in events:
            if event.counted:
                begun.setdefault(event.episode_id, (round_, event))
    chosen = chance.sample(sorted(begun), min(len(begun), LABELLED))
    for round_, event in (begun[episode_id] for episode_id in chosen):
        others = [line for line in lines if line.robot_id != event.datum["robot_id"]]
        for label in labels_of(chance, event, others):
            places = [*traffic.rounds[round_:], traffic.afterwards]
            for _ in range(1 + (label.may_repeat and chance.random() < 0.3)):
                place = traffic.afterwards if chance.random() < 0.4 else chance.choice(places)
                place.append(label)
            traffic.count("label")


def _delay_topic(chance: random.Random, traffic: Traffic, wanted: str) -> None:
    """Everything of one topic comes some rounds later, behind that which was sent meanwhile."""
    topic, by = wanted or chance.choice([STEPS, INTERVENTIONS, EPISODES]), chance.randint(1, 2)
    delayed: list[list[Event]] = [[] for _ in range(ROUNDS)]
    for round_, events in enumerate(traffic.rounds):
        delayed[round_] += [event for event in events if event.topic != topic]
        target = min(round_ + by, ROUNDS - 1)
        delayed[target] += [event for event in events if event.topic == topic]
    traffic.rounds = delayed
    traffic.count("reorder")


def _resend(chance: random.Random, traffic: Traffic) -> None:
    """Runs of records once more, at the latest one round later."""
    for round_ in range(ROUNDS):
        again = [event for event in traffic.rounds[round_] if event.may_repeat]
        for _ in range(3):
            first = chance.randrange(len(again)) if again else 0
            run = again[first : first + chance.randint(1, 60)]
            target = min(round_ + chance.randint(0, 1), ROUNDS - 1)
            traffic.rounds[target] = traffic.rounds[target] + run
            traffic.count("resend", bool(run))


def _replay(chance: random.Random, traffic: Traffic, lines: list[Line]) -> None:
    """One robot's whole spool, and single records of all the others, long after they were done."""
    sent = [event for events in traffic.rounds for event in events if event.may_repeat]
    whole = chance.choice(lines)
    by_place = [event for event in sent if event.line == whole.name]
    singles = chance.sample(sent, min(len(sent), 40))
    traffic.afterwards += [*by_place, *singles]
    traffic.count("spool-replay")
