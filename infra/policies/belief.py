"""Which rollout states of a topic are believed, and which of the others may be newer than these. Pure.

A state that we do not believe may be forged, or signed by a key that robots pin and we lack. Nobody can tell from
here, and compaction keeps it in place of what was believed: who builds on the rest might undo what robots obey.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from infra.policies.announced import Announced, Undecodable
from infra.policies.errors import RolloutRefused, SignatureRefused
from infra.policies.keys import Keyring
from schemas.events import PolicyRollout

# Seconds by which the clock of who wrote over unbelieved states, and so a generation, may be ahead of ours.
_AHEAD = 86_400
_SHOWN = 3


@dataclass(frozen=True, slots=True)
class Unbelieved:
    """A record that may be the newest state of a line. `generation` is what it claims; None: nobody can tell."""

    generation: int | None
    why: str


@dataclass
class States:
    """What the topic says of each line.

    newest: the newest believed state.
    unbelieved: records behind it under the line's key that are not believed and claim no older generation.
    refused: everything that is not believed, by key or place, in words.
    """

    newest: dict[str, Announced[PolicyRollout]] = field(default_factory=dict)
    unbelieved: dict[str, list[Unbelieved]] = field(default_factory=dict)
    refused: dict[str, str] = field(default_factory=dict)


def states_in(records: Iterable[Announced[PolicyRollout] | Undecodable], believed: Keyring) -> States:
    """Judge the records of the topic, in their order there."""
    states = States()
    for record in records:
        if isinstance(record, Undecodable):
            states.refused[record.place] = record.told
            states.unbelieved.setdefault(record.key, []).append(Unbelieved(None, record.told))
            continue
        line, generation = record.event.policy, record.event.generation
        known = states.newest.get(record.key)
        try:
            record.require(believed)
        except (SignatureRefused, RolloutRefused) as error:
            states.refused[record.key] = str(error)
            claimed = generation if record.key == line else None
            if known is None or claimed is None or known.event.generation <= claimed:
                states.unbelieved.setdefault(record.key, []).append(Unbelieved(claimed, str(error)))
            continue
        if known is None or known.event.generation < generation:
            states.newest[line] = record
            states.unbelieved.pop(line, None)  # who wrote this knew those, or was told to go over them
    return states


def newest_unknown(policy: str, states: States) -> str:
    """Why nobody can tell from here what the newest state of a line is, and what to do; nothing where one can."""
    found = states.unbelieved.get(policy, [])
    if not found:
        return ""
    shown = [
        f"generation {each.generation} ({each.why})" if each.generation is not None else each.why
        for each in dict.fromkeys(sorted(found, key=lambda each: each.generation or 0, reverse=True))
    ]
    more = f" and {len(shown) - _SHOWN} more" if len(shown) > _SHOWN else ""
    known = states.newest.get(policy)
    newest = f"generation {known.event.generation} is the newest that is" if known else "nothing else is"
    return (
        f"the newest rollout of {policy} may be one that is not believed here: {'; '.join(shown[:_SHOWN])}{more}; "
        f"{newest}. Robots may obey it: if an operator or the guard signed it, add that key to "
        "SOP_POLICIES__OPERATOR_KEYS; if it is forged, give the order by `sop policies ... --over-unbelieved`, "
        "which drops what it says"
    )


def generation_over(unbelieved: Sequence[Unbelieved], known: PolicyRollout | None, at: datetime) -> int:
    """The generation that an order over unbelieved states comes after: no robot can know a higher one.

    What robots know may be gone from the topic, and a forger may claim any number, one that leaves none above it,
    too. Orders take a second and more, so no line has come as far as the clock's seconds since 1970, unless
    somebody wrote over unbelieved states before. A claim that is higher than that is nobody's who is believed.
    """
    now = int(at.timestamp())
    claimed = [each.generation for each in unbelieved if each.generation is not None]
    return max(now, known.generation if known else 0, *(each for each in claimed if each <= now + _AHEAD))
