"""The closed list of faults, and what each of them is. A report counts every one that was really injected."""

from __future__ import annotations

STAGES = (
    "after-poll",
    "during-payload",
    "after-payload",
    "before-transaction",
    "inside-transaction",
    "before-commit",
    "during-commit",
    "after-transaction",
    "during-takeover",
)
"""Places in the materializer at which a member ends itself by SIGKILL, or freezes (see member.py)."""

PROCESS = {
    **{f"kill-{stage}": f"the materializer is killed: {stage.replace('-', ' ')}" for stage in STAGES},
    "kill-with-open-episode": "any of these kills while an episode is open that began before an announced one",
    "zombie": "a member is stopped past its session, then continued",
    "join": "a member joins under load",
    "leave": "a member leaves under load",
    "index-kill": "the index is killed and started again",
}
SERVER = {
    "broker-kill": "the broker is killed and started again",
    "s3-kill": "the object store is killed and started again",
    "s3-stall": "the object store keeps its connections open and answers nothing",
    "s3-errors": "the object store answers 500 and 503",
    "s3-cut": "answers of the object store break off in the middle, or get lost after the request was carried out",
    "clickhouse-kill": "ClickHouse is killed and started again",
    "clickhouse-stall": "ClickHouse stands still (SIGSTOP)",
    "registry-outage": "the schema registry is killed, and so is a member, whose successor knows no schema",
    "dead-letter-failure": "the broker refuses every record on dead-letters",
    "spill-full": "the disk is full on which open episodes are spilled",
}
TRAFFIC = {
    "resend": "records are sent again: their delivery reports were lost",
    "spool-replay": "a robot's spool is sent again after everything else was done",
    "clone": "two robots with one name and two boot epochs, interleaved",
    "clock-jump": "captured_at leaps by years, both ways",
    "reorder": "one topic is late by some rounds",
    "missing-end": "an episode's last records never come, or much later",
    "late": "records come after their episode was closed by its timeout",
    "label": "somebody labels an episode: under way, over, unknown, twice, in contradiction, or unreadably",
    "poison": "records that nobody can use, of every kind (poison.py)",
}
KINDS: dict[str, str] = {**PROCESS, **SERVER, **TRAFFIC}
SLOW = ("zombie", "broker-kill", "registry-outage")
"""Kinds that cost a seed seconds; one of them is enough for a seed."""
