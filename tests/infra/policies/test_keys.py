"""Keys and signatures: what is believed, and what is not."""

from __future__ import annotations

import json
import stat
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import SecretStr

from infra.errors import SettingMissing
from infra.policies.errors import KeyUnusable, SignatureRefused
from infra.policies.keys import (
    Keyring,
    SigningKey,
    learner_keyring,
    operator_keyring,
    read_private,
    read_public,
    signing_key,
    write_pair,
)
from infra.settings import PolicySettings
from schemas.codec import AvroSchema, decode, encode, latest
from schemas.errors import UndecodableEvent
from schemas.events import PolicyVersion
from tests.producers.fakes import announcement
from tests.schemas.strategies import events_of

KEY = SigningKey.generate()
OTHER = SigningKey.generate()
SCHEMA = latest(PolicyVersion.record)


def believed(event: PolicyVersion, body: bytes | None = None, ring: Keyring | None = None) -> bool:
    try:
        (ring or Keyring([KEY.public])).verify(event, encode(event) if body is None else body, SCHEMA)
    except SignatureRefused:
        return False
    return True


@settings(deadline=None, max_examples=50)
@given(event=events_of("policy_version"))
def test_whatever_is_signed_is_believed_and_carries_the_keys_id(event: PolicyVersion) -> None:
    signed = KEY.sign(event)
    assert signed.key_id == KEY.key_id
    assert believed(signed)
    assert decode(PolicyVersion, encode(signed)) == signed


@settings(deadline=None, max_examples=200)
@given(data=st.data())
def test_any_altered_byte_of_what_was_sent_is_refused(data: st.DataObject) -> None:
    signed = KEY.sign(announcement(3, b"weights"))
    body = encode(signed)
    place = data.draw(st.integers(0, len(body) - 1))
    altered = body[:place] + bytes([body[place] ^ data.draw(st.integers(1, 255))]) + body[place + 1 :]
    try:
        received = decode(PolicyVersion, altered)
    except UndecodableEvent:
        return
    assert not believed(received, altered)


def test_unsigned_is_believed_only_where_it_is_allowed_and_a_wrong_signature_nowhere() -> None:
    unsigned = announcement(1, b"weights")
    assert not believed(unsigned)
    assert believed(unsigned, ring=Keyring([], allow_unsigned=True))
    stolen = OTHER.sign(unsigned).model_copy(update={"key_id": KEY.key_id})
    assert not believed(stolen, ring=Keyring([KEY.public], allow_unsigned=True))


def test_a_key_that_is_not_pinned_is_named_with_the_setting() -> None:
    signed = OTHER.sign(announcement(1, b"weights"))
    ring = Keyring([KEY.public], setting="SOP_POLICIES__LEARNER_KEYS")
    with pytest.raises(SignatureRefused, match=rf"key {OTHER.key_id}, which SOP_POLICIES__LEARNER_KEYS lacks"):
        ring.verify(signed, encode(signed), SCHEMA)


def test_while_keys_rotate_both_are_believed() -> None:
    ring = Keyring([KEY.public, OTHER.public])
    assert all(believed(key.sign(announcement(1, b"w")), ring=ring) for key in (KEY, OTHER))


def test_a_field_that_the_reader_does_not_know_is_covered() -> None:
    fields = json.loads(SCHEMA.text)
    fields["fields"].append({"name": "added_later", "type": "string", "default": ""})
    newer = AvroSchema("policy_version", 9, json.dumps(fields))
    signed = KEY.sign(announcement(1, b"weights"))
    body = encode(signed) + b"\x04hi"
    assert decode(PolicyVersion, body, newer) == signed, "the reader sees what it knows"
    with pytest.raises(SignatureRefused, match="does not match"):
        Keyring([KEY.public]).verify(signed, body, newer)


def test_the_same_bytes_under_another_schema_are_another_message() -> None:
    renamed = json.loads(SCHEMA.text)
    renamed["fields"][1]["name"] = "revision"
    signed = KEY.sign(announcement(1, b"weights"))
    with pytest.raises(SignatureRefused, match="does not match"):
        Keyring([KEY.public]).verify(signed, encode(signed), AvroSchema("x", 1, json.dumps(renamed)))


def test_an_encoding_that_our_writers_do_not_use_is_refused() -> None:
    signed = KEY.sign(announcement(1, b"weights").model_copy(update={"learner_step": 0}))
    body = encode(signed)
    padded = body.replace(b"\x08line", b"\x88\x00line", 1)  # the same length as a longer varint
    assert decode(PolicyVersion, padded) == signed
    with pytest.raises(SignatureRefused, match="unusual"):
        Keyring([KEY.public]).verify(signed, padded, SCHEMA)


def test_a_pair_is_written_once_private_to_its_owner_and_read_again(tmp_path: Path) -> None:
    made = write_pair(tmp_path / "keys" / "learner")
    private = tmp_path / "keys" / "learner.key"
    assert stat.S_IMODE(private.stat().st_mode) == 0o600
    assert read_private(private).key_id == made.key_id
    assert read_public(tmp_path / "keys" / "learner.pub") == (made.public,)
    with pytest.raises(KeyUnusable, match="never written over"):
        write_pair(tmp_path / "keys" / "learner")
    assert read_private(private).key_id == made.key_id


def test_a_private_key_that_others_can_read_is_refused(tmp_path: Path) -> None:
    write_pair(tmp_path / "learner")
    (tmp_path / "learner.key").chmod(0o640)
    with pytest.raises(KeyUnusable, match="chmod 600"):
        read_private(tmp_path / "learner.key")


@pytest.mark.parametrize(
    "content", [b"", b"nonsense", b"-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"]
)
def test_what_is_no_key_is_named(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.key").write_bytes(content)
    (tmp_path / "x.key").chmod(0o600)
    with pytest.raises(KeyUnusable, match=r"x\.key"):
        read_private(tmp_path / "x.key")
    (tmp_path / "x.pub").write_text("bm9uc2Vuc2U=")
    with pytest.raises(KeyUnusable, match=r"x\.pub: 'bm9uc2Vuc2U=' is no Ed25519 public key"):
        read_public(tmp_path / "x.pub")
    pinned = PolicySettings(learner_keys=("bm9uc2Vuc2U=",), operator_keys=("a",))
    with pytest.raises(KeyUnusable, match="SOP_POLICIES__LEARNER_KEYS: 'bm9uc2Vuc2U=' is no Ed25519 public key"):
        learner_keyring(pinned)
    with pytest.raises(KeyUnusable, match=r"SOP_POLICIES__OPERATOR_KEYS: 'a' is no .*as `sop keys new` prints"):
        operator_keyring(pinned)
    slip = PolicySettings(learner_keys=("-----BEGIN PRIVATE KEY----- MC4CAQAw",))
    with pytest.raises(KeyUnusable, match="LEARNER_KEYS: what is given is no Ed25519 public key") as refused:
        learner_keyring(slip)
    assert "MC4C" not in str(refused.value)


def test_who_has_nothing_to_sign_with_is_told_what_to_do(tmp_path: Path) -> None:
    with pytest.raises(SettingMissing, match="sop keys new"):
        signing_key(PolicySettings())
    assert signing_key(PolicySettings(allow_unsigned=True)) is None
    from_text = signing_key(PolicySettings(signing_key_pem=SecretStr(KEY.pem().decode())))
    assert from_text is not None
    assert from_text.key_id == KEY.key_id
    write_pair(tmp_path / "op")
    assert signing_key(PolicySettings(signing_key=tmp_path / "op.key")) is not None
