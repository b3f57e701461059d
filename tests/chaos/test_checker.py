"""The checker alone, on small worlds made by hand: each anomaly has its name, and a good world is clean."""

from __future__ import annotations

import copy
import hashlib
import json
import random
from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pytest

from tests.chaos.checker import check
from tests.chaos.labels import labels_of
from tests.chaos.ledger import Ledger
from tests.chaos.readings import Announcement, Letter, Readings
from tests.chaos.robot import DEAD, EITHER, Event, Line, Robot

URI = "s3://sop/one"


def world() -> tuple[Ledger, Readings, list[Event]]:
    """One episode of five steps, of which the fourth is a dead letter."""
    line = Line(random.Random(1), "robot", 0)
    robots = (Robot(random.Random(seed), Line(random.Random(1), "robot", 0)) for seed in range(2, 100))
    events = next(events for robot in robots if frames_of(events := robot.episode(5)))
    bad = [event for event in events if event.topic == "robot-steps"][3]
    bad.fate, bad.reasons = DEAD, frozenset({"not_finite"})
    ledger = Ledger()
    for offset, event in enumerate(events):
        ledger.acknowledged(event, b"%d" % offset, (event.topic, 0, offset), 1_000 + offset)
    found = Readings()
    label = labels_for(events[0])
    ledger.acknowledged(label, b"label", (label.topic, 0, 7), 5_000)
    frames = frames_of(events)
    kept = [e for e in events if e.topic == "robot-steps" and e is not bad]
    table = table_of(kept).append_column("frame_wrist", pa.array([frames.get(e.datum["index"]) for e in kept]))
    ended = events[-1].datum["body"][1]
    listed = [{"first": 0, "last": bad.sequence - 1}, {"first": bad.sequence + 1, "last": events[-1].sequence}]
    datum = {
        "episode_id": bad.episode_id,
        "revision": 1,
        "robot_id": "robot",
        "boot_epoch": line.boot_epoch,
        "step_count": 4,
        "end": ended["end"],
        "success": label.datum["label"]["verdict"] == "SUCCEEDED",
        "recorded_success": ended["success"],
        "excluded": True,
        "labels": [dict(label.datum["label"])],
        "frame_count": sum(e.datum["index"] in frames for e in kept),
        "frame_objects": sum(frame["uri"] is not None and frame["index"] == 0 for frame in frames.values()),
        "closed_by": "COMPLETE",
        "sequences": listed,
        "rejected": [{"first": bad.sequence, "last": bad.sequence}],
        "missing_count": 0,
        "interventions": [
            {"intervention_id": f"intervention-{n}", "first_step": n} for n in range(ended["intervention_count"])
        ],
        "source_offsets": [
            {"topic": topic, "partition": 0, "first": 0, "last": 99}
            for topic in ("robot-steps", "robot-episodes", "robot-interventions", "episode-labels")
        ],
        "payload_uri": URI,
        "payload_sha256": hashlib.sha256(b"one").hexdigest(),
        "payload_bytes": 3,
    }
    table = table.replace_schema_metadata({b"sop.episode": json.dumps(datum).encode()})
    found.announcements.append(Announcement(0, 0, datum))
    found.objects[URI] = (hashlib.sha256(b"one").hexdigest(), 3, table)
    offset = events.index(bad)
    place = (bad.topic, 0, offset)
    found.letters.append(Letter(0, place, b"robot", b"%d" % offset, "not_finite"))
    found.episode_rows.append(dict(datum))
    found.intervention_rows += [{"episode_id": bad.episode_id, **span} for span in datum["interventions"]]
    row = {"topic": bad.topic, "partition": 0, "offset": offset, "reason": "not_finite", "value": b"%d" % offset}
    found.letter_rows.append(row)
    return ledger, found, events


def labels_for(event: Event) -> Event:
    """A label that says that the episode succeeded, and leaves it out."""
    said = (labels_of(random.Random(seed), event, []) for seed in range(99))
    label = next(found[0] for found in said if len(found) == 1 and found[0].fate == EITHER)
    label.datum["label"] |= {"verdict": "SUCCEEDED", "excluded": True}
    return label


def frames_of(events: list[Event]) -> dict[int, dict[str, object]]:
    """By step what a payload must say of its frame."""
    found: dict[int, dict[str, object]] = {}
    for event in events:
        if event.datum.get("body", ("",))[0] == "sop.FramesRecorded":
            for segment in event.datum["body"][1]["segments"]:
                [part] = segment["steps"]
                for step in range(part["first"], part["last"] + 1):
                    kept = {name: segment[name] for name in ("uri", "sha256", "codec", "data")}
                    found[step] = kept | {"index": step - part["first"]}
    return found


def table_of(steps: list[Event]) -> pa.Table:
    def vectors(name: str) -> list[list[float] | None]:
        values = [step.datum[name] for step in steps]
        return [None if value is None else np.frombuffer(value, "<f4").tolist() for value in values]

    plain = {
        name: [step.datum[name] for step in steps] for name in ("index", "sequence", "actor", "policy_version")
    }
    times = pa.array([step.datum["captured_at"] for step in steps], pa.timestamp("us", tz="UTC"))
    floats = {
        name: pa.array(vectors(name), pa.list_(pa.float32())) for name in ("state", "action", "proposed_action")
    }
    rewards = pa.array([step.datum["reward"] for step in steps], pa.float32())
    return pa.table({**plain, "captured_at": times, **floats, "reward": rewards})


def kinds(ledger: Ledger, found: Readings) -> set[str]:
    return {kind for kind, _ in check(ledger, found, 10.0).anomalies}


def test_a_world_in_which_everything_is_in_its_place_is_clean() -> None:
    ledger, found, _ = world()
    verdict = check(ledger, found, 10.0)
    assert verdict.anomalies == []
    assert (verdict.whole, verdict.lost, verdict.doubled) == (1, 0, 0)


def announce_again(found: Readings) -> None:
    found.announcements.append(copy.deepcopy(found.announcements[0]))


def bury_again(found: Readings) -> None:
    found.letters.append(found.letters[0])


def drop_letter(found: Readings) -> None:
    found.letters, found.letter_rows = [], []


def drop_announcement(found: Readings) -> None:
    found.announcements, found.episode_rows = [], []


def shrink(found: Readings) -> None:
    smaller = copy.deepcopy(found.announcements[0])
    smaller.datum.update(revision=2, sequences=smaller.datum["sequences"][:1])
    found.announcements.append(smaller)


def go_back(found: Readings) -> None:
    found.announcements[0].datum["revision"] = 2
    earlier = copy.deepcopy(found.announcements[0])
    earlier.datum["revision"] = 1
    found.announcements.append(earlier)


def truncate(found: Readings) -> None:
    found.announcements[0].datum["closed_by"] = "TIMEOUT"


def lose_object(found: Readings) -> None:
    found.objects.clear()


def double_row(found: Readings) -> None:
    digest, size, table = found.objects[URI]
    found.objects[URI] = (digest, size, pa.concat_tables([table, table.slice(3, 1)]).sort_by("index"))


def change_value(found: Readings) -> None:
    digest, size, table = found.objects[URI]
    at = table.schema.get_field_index("reward")
    other = pa.array([9.0] * len(table), pa.float32())
    found.objects[URI] = (digest, size, table.set_column(at, "reward", other))


def forget_row(found: Readings) -> None:
    found.episode_rows.clear()


def stale_row(found: Readings) -> None:
    found.episode_rows[0]["revision"] = 7


def forget_intervention(found: Readings) -> None:
    found.announcements[0].datum["interventions"].append({"intervention_id": "forgotten", "first_step": 0})


def stray_intervention(found: Readings) -> None:
    episode_id = found.announcements[0].datum["episode_id"]
    found.intervention_rows.append({"episode_id": episode_id, "intervention_id": "nobody's", "first_step": 0})


def change_letter(found: Readings) -> None:
    found.letters[0].value = b"something else"


def stray_letter(found: Readings) -> None:
    found.letters.append(Letter(0, ("robot-steps", 3, 12_345), b"", b"", "undecodable"))


def forget_label(found: Readings) -> None:
    found.announcements[0].datum.update(labels=[], success=None, excluded=False)


def label_twice(found: Readings) -> None:
    found.announcements[0].datum["labels"] *= 2


def change_label(found: Readings) -> None:
    found.announcements[0].datum["labels"][0]["reason"] = "another"


def lose_label(found: Readings) -> None:
    later = copy.deepcopy(found.announcements[0])
    later.datum.update(revision=2, labels=[])
    found.announcements.append(later)


def bury_label(found: Readings) -> None:
    found.letters.append(Letter(0, ("episode-labels", 0, 7), b"robot", b"label", "unknown_episode"))


def ignore_label(found: Readings) -> None:
    found.announcements[0].datum["success"] = None


def move_label(found: Readings) -> None:
    found.announcements[0].datum["source_offsets"][-1].update(first=8)


def miscount_frames(found: Readings) -> None:
    found.announcements[0].datum["frame_count"] += 1


def swap_frames(found: Readings) -> None:
    digest, size, table = found.objects[URI]
    at = table.schema.get_field_index("frame_wrist")
    values = table.column(at).to_pylist()
    other = pa.array([values[-1], *values[:-1]], table.schema.field(at).type)
    found.objects[URI] = (digest, size, table.set_column(at, "frame_wrist", other))


@pytest.mark.parametrize(
    ("harm", "name"),
    [
        (announce_again, "duplicate"),
        (bury_again, "duplicate"),
        (double_row, "duplicate"),
        (drop_letter, "lost write"),
        (drop_announcement, "poll skip"),
        (lose_object, "lost write"),
        (shrink, "non-monotonic"),
        (go_back, "non-monotonic"),
        (truncate, "truncated"),
        (change_value, "wrong payload"),
        (change_letter, "wrong payload"),
        (forget_row, "wrong row"),
        (stale_row, "wrong row"),
        (forget_intervention, "wrong row"),
        (stray_intervention, "wrong row"),
        (stray_letter, "stray"),
        (forget_label, "lost write"),
        (label_twice, "duplicate"),
        (change_label, "stray"),
        (lose_label, "lost write"),
        (bury_label, "duplicate"),
        (ignore_label, "wrong payload"),
        (move_label, "wrong payload"),
        (miscount_frames, "wrong payload"),
        (swap_frames, "wrong payload"),
    ],
)
def test_harm_is_called_by_its_name(harm: Callable[[Readings], None], name: str) -> None:
    ledger, found, _ = world()
    harm(found)
    assert name in kinds(ledger, found)


def test_an_episode_with_a_pause_longer_than_the_timeout_may_be_truncated() -> None:
    ledger, found, events = world()
    for copies in ledger.copies.values():
        if copies.event.sequence > events[2].sequence:
            copies.times = [at + 60_000 for at in copies.times]
    found.announcements[0].datum["closed_by"] = "TIMEOUT"
    assert "truncated" not in kinds(ledger, found)
    assert check(ledger, found, 10.0).whole == 0


def test_an_event_that_is_in_its_episode_and_on_dead_letters_is_a_duplicate() -> None:
    ledger, found, events = world()
    found.letters.append(Letter(0, (events[1].topic, 0, 1), b"robot", b"1", "never_started"))
    assert "duplicate" in kinds(ledger, found)


def test_an_event_without_an_acknowledgement_is_an_anomaly_of_the_run_itself() -> None:
    ledger, found, events = world()
    ledger.failed(events[0], "timed out")
    assert "unknown" in kinds(ledger, found)
