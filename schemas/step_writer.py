"""The Avro body of a Step, without a model and without a walk through its schema.

A step is written in the robot's control loop, where all code comes from cold caches: the less of it, the better.
A test holds the two to the same bytes.
"""

from __future__ import annotations

import struct

from schemas.events import Actor

_FLOAT = struct.Struct("<f").pack


class StepWriter:
    """Writes the steps of one episode: version 1 of the schema, the fields in its order."""

    VERSION = 1

    def __init__(self, episode_id: str, robot_id: str, boot_epoch: int) -> None:
        self._head = b"".join((_text(episode_id), _text(robot_id), _long(boot_epoch)))
        self._acting: tuple[Actor, int, bytes] = (Actor.POLICY, 0, b"\x00\x00")
        self._lengths: dict[int, bytes] = {}

    def body(  # noqa: PLR0917
        self,
        sequence: int,
        captured_at: int,
        index: int,
        actor: Actor,
        policy_version: int,
        state: bytes,
        action: bytes,
        proposed_action: bytes | None,
        reward: float,
    ) -> bytes:
        """One step; `captured_at` in unix microseconds, all else as in `events.Step`, checked by the caller."""
        acts, version, acting = self._acting
        if actor is not acts or policy_version != version:
            acting = (b"\x00" if actor is Actor.POLICY else b"\x02") + _long(policy_version)
            self._acting = (actor, policy_version, acting)
        lengths = self._lengths
        try:
            state_length, action_length = lengths[len(state)], lengths[len(action)]
        except KeyError:
            state_length = lengths[len(state)] = _long(len(state))
            action_length = lengths[len(action)] = _long(len(action))
        proposed = b"\x00" if proposed_action is None else b"\x02" + _long(len(proposed_action)) + proposed_action
        return b"".join(
            (
                self._head,
                _long(sequence),
                _long(captured_at),
                _long(index),
                acting,
                state_length,
                state,
                action_length,
                action,
                proposed,
                _FLOAT(reward),
            )
        )


def _text(value: str) -> bytes:
    data = value.encode()
    return _long(len(data)) + data


def _long(value: int) -> bytes:
    """Zigzag, then seven bits a byte, the lowest first."""
    value = (value << 1) ^ (value >> 63)
    if value < 0x80:
        return bytes((value,))
    if value < 0x4000:
        return bytes((value & 0x7F | 0x80, value >> 7))
    out = bytearray()
    while value > 0x7F:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)
