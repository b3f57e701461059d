"""What can be wrong with a record.

SchemaError
├── UnknownSchema      the schema id or record is not ours
└── UndecodableEvent   the bytes are not what their schema says
"""


class SchemaError(Exception):
    """Base of everything that can be wrong with a record; its text is the reason in dead-letters."""


class UnknownSchema(SchemaError):
    """The record names a schema that is not one of its topic's."""


class UndecodableEvent(SchemaError):
    """The bytes cannot be read with the schema that they name."""
