"""Settings of every process, validated once at the edge.

They come from the environment (`SOP_KAFKA__BOOTSTRAP_SERVERS`, ...) or from a dotenv file: the one that
`SOP_ENV_FILE` names, else `stack.env` in the data directory (`SOP_DATA_DIR`, or `.sop`), which `sop stack up`
writes. The environment wins.
"""

from __future__ import annotations

import difflib
import json
import os
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import get_origin

from dotenv import dotenv_values
from pydantic import Field, ValidationError
from pydantic.fields import FieldInfo
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from infra.sections import (
    CacheSettings,
    ClickHouseSettings,
    ConsoleSettings,
    GuardSettings,
    IndexSettings,
    KafkaSettings,
    LearnerSettings,
    MaterializerSettings,
    PolicySettings,
    RegistrySettings,
    RobotSettings,
    S3Settings,
)

DEFAULT_DATA_DIR = ".sop"
NOT_SETTINGS = {"SOP_ENV_FILE", "SOP_DATA_DIR"}
"""Variables of ours that are options of commands and not settings."""


class Settings(BaseSettings):
    """Everything that differs between one machine and a production cluster."""

    model_config = SettingsConfigDict(
        env_prefix="SOP_",
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        allow_inf_nan=False,
        hide_input_in_errors=True,
    )

    kafka: KafkaSettings = KafkaSettings()
    s3: S3Settings = S3Settings()
    clickhouse: ClickHouseSettings = ClickHouseSettings()
    registry: RegistrySettings = RegistrySettings()
    robot: RobotSettings = RobotSettings()
    materializer: MaterializerSettings = MaterializerSettings()
    index: IndexSettings = IndexSettings()
    learner: LearnerSettings = LearnerSettings()
    cache: CacheSettings = CacheSettings()
    policies: PolicySettings = PolicySettings()
    guard: GuardSettings = GuardSettings()
    console: ConsoleSettings = ConsoleSettings()
    startup_timeout: float = Field(60.0, gt=0, description="seconds to wait for a server that is down at start")
    metrics_port: int | None = Field(
        None, ge=0, le=65535, description="/health, /ready and /metrics; none: not served, 0: any free port"
    )
    metrics_host: str = Field("127.0.0.1", description="address that they are served on; in a container 0.0.0.0")


class UnknownSettings(ValueError):
    """A variable looks like a setting, and is none, or is none that can be read."""


def env_file() -> Path:
    """The dotenv file that settings are read from; it need not be there."""
    return Path(
        os.environ.get("SOP_ENV_FILE") or Path(os.environ.get("SOP_DATA_DIR", DEFAULT_DATA_DIR), "stack.env")
    )


def load_settings(file: Path | None = None) -> Settings:
    """Settings from the environment and one dotenv file, by default `env_file()`.

    Raises:
        pydantic.ValidationError: a setting is not valid; `explain` says it in a line.
        UnknownSettings: a variable begins with SOP_ and names no setting, most likely a slip of the pen; the file
            holds what is no setting; a section or a list is not written as JSON.
    """
    chosen = file or env_file()
    if file is None:
        _refuse_missing_file()
    _refuse(_ours(), "")
    if chosen.is_file():
        _refuse(dotenv_values(chosen), f" in {chosen}")
    return _settings(chosen if chosen.is_file() else None)


def check_environment() -> None:
    """Refuse what `load_settings` would refuse in the environment; for who takes no settings from it.

    Raises:
        pydantic.ValidationError, UnknownSettings: see `load_settings`.
    """
    _refuse_missing_file()
    _refuse(_ours(), "")
    _settings(None)


def _settings(file: Path | None) -> Settings:
    try:
        return Settings(_env_file=file)
    except SettingsError as error:
        raise UnknownSettings(
            f"{error}: a section is set field by field (SOP_KAFKA__BOOTSTRAP_SERVERS), a list as JSON ([256, 256])"
        ) from error


def anything_set() -> bool:
    """Whether there are settings at all, in the environment or in `env_file()`."""
    return bool(_ours()) or env_file().is_file()


def explain(error: ValidationError) -> str:
    """The first thing that is wrong, in one line, without the value: it may be a secret."""
    first = error.errors()[0]
    path, inside = first["loc"][:2], first["loc"][2:]
    name = "SOP_" + "__".join(str(part).upper() for part in path) + "".join(f"[{part!r}]" for part in inside)
    wrong = first["msg"].removeprefix("Value error, ")
    if first["type"] in ("tuple_type", "dict_type"):
        return f"{name} {_as_json(name, _known()[name], [])}"
    return f"{name} is no setting" if first["type"] == "extra_forbidden" else f"setting {name}: {wrong}"


def _refuse_missing_file() -> None:
    if os.environ.get("SOP_ENV_FILE") and not env_file().is_file():
        raise UnknownSettings(f"SOP_ENV_FILE names {env_file()}, which is no file")


def _ours() -> dict[str, str]:
    return {
        name: value
        for name, value in os.environ.items()
        if name.upper().startswith("SOP_") and name not in NOT_SETTINGS
    }


def _known() -> dict[str, FieldInfo]:
    """All variables by name: of sections as a whole, and of their fields."""
    found = {}
    for section, info in Settings.model_fields.items():
        found[f"SOP_{section.upper()}"] = info
        for field, inner in getattr(info.annotation, "model_fields", {}).items():
            found[f"SOP_{section.upper()}__{field.upper()}"] = inner
    return found


def _refuse(given: Mapping[str, str | None], where: str) -> None:
    _refuse_unknown(given, where)
    known = _known()
    for name, text in given.items():
        info = known[name.upper()]
        fields = getattr(info.annotation, "model_fields", {})
        if text is None or not (fields or get_origin(info.annotation) in (tuple, dict)):
            continue
        try:
            json.loads(text)
        except ValueError as error:
            raise UnknownSettings(f"{name}{where} {_as_json(name, info, list(fields))}") from error


def _as_json(name: str, info: FieldInfo, fields: list[str]) -> str:
    """How a setting that is not one word or number is written."""
    if fields:
        return f"is a section, which is set field by field: {name}__{fields[0].upper()}, ..."
    example = info.examples[0] if info.examples else info.default
    kind = "an object" if get_origin(info.annotation) is dict else "a list"
    what = f": {info.description}" if info.description else ""
    return f"is {kind}, which is written as JSON, such as {name}='{json.dumps(example)}'{what}"


def _refuse_unknown(names: Iterable[str], where: str) -> None:
    known = _known()
    for name in names:
        if name.upper() in known:
            continue
        if near := difflib.get_close_matches(name.upper(), known, n=1, cutoff=0.8):
            raise UnknownSettings(f"{name}{where} is no setting; did you mean {near[0]}?")
        section = name.upper().split("__")[0]
        fields = ", ".join(other for other in known if other.startswith(f"{section}__"))
        sections = ", ".join(other for other in known if "__" not in other)
        raise UnknownSettings(
            f"{name}{where} is no setting; "
            + (f"of this section there are {fields}" if fields else f"they begin with {sections}")
        )


__all__ = [
    "DEFAULT_DATA_DIR",
    "NOT_SETTINGS",
    "CacheSettings",
    "ClickHouseSettings",
    "ConsoleSettings",
    "GuardSettings",
    "IndexSettings",
    "KafkaSettings",
    "LearnerSettings",
    "MaterializerSettings",
    "PolicySettings",
    "RegistrySettings",
    "RobotSettings",
    "S3Settings",
    "Settings",
    "UnknownSettings",
    "anything_set",
    "check_environment",
    "env_file",
    "explain",
    "load_settings",
]
