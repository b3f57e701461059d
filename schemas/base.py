"""What all events are: frozen models whose fields hold what Avro can carry."""

from __future__ import annotations

from typing import Annotated, ClassVar

from pydantic import BaseModel, ConfigDict, Field

# What Avro's `int` and `long` hold. fastavro writes larger ones without a word, and columnar readers fail on them.
Int32 = Annotated[int, Field(ge=-(2**31), lt=2**31)]
Int64 = Annotated[int, Field(ge=-(2**63), lt=2**63)]


class Frozen(BaseModel):
    """A value inside an event."""

    model_config = ConfigDict(frozen=True, extra="forbid", ser_json_bytes="base64", val_json_bytes="base64")


class Event(Frozen):
    """Something that happened and travels on its own; `record` names its schema."""

    record: ClassVar[str]


class SignedEvent(Event):
    """What its reader must not believe without a signature (`schemas.signing`); both None when unsigned."""

    key_id: str | None = None
    signature: bytes | None = None
