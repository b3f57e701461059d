"""Ed25519 keys: who may announce policy versions, and who may roll them out.

A private key is a PEM file (PKCS 8, mode 0600). A public key is 32 bytes in base64; a `.pub` file holds one a
line, the newest first. A key's id begins the sha256 of its public half, so an id cannot name another key.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import TypeVar

from cryptography.exceptions import InvalidSignature, UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from infra.errors import SettingMissing
from infra.policies.errors import KeyUnusable, SignatureRefused
from infra.settings import PolicySettings
from schemas.codec import AvroSchema
from schemas.errors import UndecodableEvent
from schemas.events import SignedEvent
from schemas.signing import message_of, message_to_sign

S = TypeVar("S", bound=SignedEvent)

_ID_DIGITS = 16


def key_id_of(public: bytes) -> str:
    """Id of a public key: 16 hex digits."""
    return hashlib.sha256(public).hexdigest()[:_ID_DIGITS]


class SigningKey:
    """A private key."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        raw = private.public_key().public_bytes_raw()
        self.public = base64.b64encode(raw).decode()
        self.key_id = key_id_of(raw)

    @classmethod
    def generate(cls) -> SigningKey:
        """A new one."""
        return cls(Ed25519PrivateKey.generate())

    @classmethod
    def from_pem(cls, text: bytes, where: str) -> SigningKey:
        """Read one.

        Raises:
            KeyUnusable: it is none; `where` says what was read.
        """
        try:
            private = serialization.load_pem_private_key(text, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise KeyUnusable(
                f"{where} holds no private key that can be read (PEM, without a password)"
            ) from error
        if not isinstance(private, Ed25519PrivateKey):
            raise KeyUnusable(f"{where} is no Ed25519 key; make one with `sop keys new`")
        return cls(private)

    def pem(self) -> bytes:
        """As `from_pem` takes it. A secret."""
        return self._private.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )

    def sign(self, event: S) -> S:
        """The event with this key's id and signature; send it with the schemas of this version of the code."""
        named = event.model_copy(update={"key_id": self.key_id, "signature": None})
        return named.model_copy(update={"signature": self._private.sign(message_to_sign(named))})


class Keyring:
    """Public keys that are believed, by id. Several at once are what rotation needs."""

    def __init__(self, public: Iterable[str], *, allow_unsigned: bool = False, setting: str = "") -> None:
        """Raises KeyUnusable: one of them is no public key; `setting` says which variable holds them."""
        self._allow_unsigned = allow_unsigned
        self._setting = setting
        self._keys: dict[str, Ed25519PublicKey] = {}
        for text in public:
            raw = _public_bytes(text, f"{setting}: " if setting else "")
            self._keys[key_id_of(raw)] = Ed25519PublicKey.from_public_bytes(raw)

    def verify(self, event: SignedEvent, body: bytes, writer: AvroSchema) -> None:
        """Believe an event, or say why not.

        Args:
            event: what `body` says.
            body: its Avro bytes, as they were received.
            writer: the schema that they were written with.

        Raises:
            SignatureRefused: unsigned, signed by a key that is not pinned, or altered since.
        """
        if event.signature is None:
            if self._allow_unsigned:
                return
            raise SignatureRefused("it is not signed")
        key = self._keys.get(event.key_id or "")
        if key is None:
            known = ", ".join(self._keys) or "none"
            raise SignatureRefused(
                f"it is signed by key {event.key_id}, which {self._setting} lacks (has {known})"
            )
        try:
            key.verify(event.signature, message_of(body, writer))
        except InvalidSignature as error:
            raise SignatureRefused(f"its signature by key {event.key_id} does not match its content") from error
        except UndecodableEvent as error:
            raise SignatureRefused(f"its signature cannot be checked: {error}") from error


def learner_keyring(settings: PolicySettings) -> Keyring:
    """Who may announce versions. Raises KeyUnusable: a setting is no public key."""
    return Keyring(
        settings.learner_keys, allow_unsigned=settings.allow_unsigned, setting="SOP_POLICIES__LEARNER_KEYS"
    )


def operator_keyring(settings: PolicySettings) -> Keyring:
    """Who may roll versions out. Raises KeyUnusable: a setting is no public key."""
    return Keyring(
        settings.operator_keys, allow_unsigned=settings.allow_unsigned, setting="SOP_POLICIES__OPERATOR_KEYS"
    )


def signing_key(settings: PolicySettings) -> SigningKey | None:
    """The key that this process signs with.

    Returns:
        None where there is none, and unsigned announcements are allowed.

    Raises:
        SettingMissing: there is none, and they are not.
        KeyUnusable: it cannot be read, or others can read it.
    """
    if settings.signing_key_pem is not None:
        return SigningKey.from_pem(
            settings.signing_key_pem.get_secret_value().encode(), "SOP_POLICIES__SIGNING_KEY_PEM"
        )
    if settings.signing_key is not None:
        return read_private(settings.signing_key)
    if settings.allow_unsigned:
        return None
    raise SettingMissing(
        "nothing to sign with: make a key (`sop keys new NAME`) and set SOP_POLICIES__SIGNING_KEY, or, where "
        "nobody else can write to Kafka, SOP_POLICIES__ALLOW_UNSIGNED=true"
    )


def read_private(path: Path) -> SigningKey:
    """A private key's file.

    Raises:
        KeyUnusable: it cannot be read, is no such key, or others may read it.
    """
    try:
        mode = path.stat().st_mode & 0o077
        text = path.read_bytes()
    except OSError as error:
        raise KeyUnusable(f"key {path}: {error.strerror}") from error
    if mode:
        raise KeyUnusable(f"key {path} can be read by others: chmod 600 {path}")
    return SigningKey.from_pem(text, f"key {path}")


def read_public(path: Path) -> tuple[str, ...]:
    """Public keys of a `.pub` file, checked.

    Raises:
        KeyUnusable: it cannot be read, or a line is none.
    """
    try:
        lines = path.read_text().split()
    except (OSError, UnicodeDecodeError) as error:
        raise KeyUnusable(f"public keys {path}: {error}") from error
    for line in lines:
        _public_bytes(line, f"public keys {path}: ")
    return tuple(lines)


def write_pair(base: Path, *, earlier: Iterable[str] = ()) -> SigningKey:
    """Make a key: `<base>.key`, mode 0600, and `<base>.pub` with its public half and the `earlier` ones below.

    Raises:
        KeyUnusable: there is such a file already, or the place cannot be written.
    """
    private, public = base.with_name(f"{base.name}.key"), base.with_name(f"{base.name}.pub")
    key = SigningKey.generate()
    try:
        base.parent.mkdir(parents=True, exist_ok=True)
        for path, data, mode in (
            (private, key.pem(), 0o600),
            (public, "".join(f"{line}\n" for line in (key.public, *earlier)).encode(), 0o644),
        ):
            descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)  # never over another key
            with os.fdopen(descriptor, "wb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
    except FileExistsError as error:
        raise KeyUnusable(f"{error.filename} exists; keys are never written over: choose another name") from error
    except OSError as error:
        raise KeyUnusable(f"{base}: {error.strerror}") from error
    return key


def key_settings(base: Path) -> dict[str, str]:
    """Settings under which one pair (`write_pair`) signs versions and rollouts alike, and is believed; for trials.

    Raises:
        KeyUnusable: the public keys cannot be read.
    """
    pinned = json.dumps(read_public(base.with_name(f"{base.name}.pub")))
    return {
        "SOP_POLICIES__SIGNING_KEY": str(base.with_name(f"{base.name}.key")),
        "SOP_POLICIES__LEARNER_KEYS": pinned,
        "SOP_POLICIES__OPERATOR_KEYS": pinned,
    }


def _public_bytes(text: str, where: str) -> bytes:
    try:
        raw = base64.b64decode(text, validate=True)
        Ed25519PublicKey.from_public_bytes(raw)
    except (ValueError, binascii.Error) as error:
        shown = "what is given" if "PRIVATE" in text else repr(text[:60])
        raise KeyUnusable(
            f"{where}{shown} is no Ed25519 public key in base64, as `sop keys new` prints it"
        ) from error
    return raw
