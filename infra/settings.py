"""Settings of every process, validated once at the edge.

They come from the environment (`SOP_KAFKA__BOOTSTRAP_SERVERS`, ...) or from a dotenv file: the one that
`SOP_ENV_FILE` names, else `stack.env` in the data directory (`SOP_DATA_DIR`, or `.sop`), which `sop stack up`
writes. The environment wins.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Annotated, Literal, Self

from dotenv import dotenv_values
from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from infra.address import HttpAddress, HttpAddresses

DEFAULT_DATA_DIR = ".sop"
NOT_SETTINGS = {"SOP_ENV_FILE", "SOP_DATA_DIR"}
"""Variables of ours that are options of commands and not settings."""


Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]


class _Section(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False, hide_input_in_errors=True)


class KafkaSettings(_Section):
    """How to reach Kafka; times in seconds."""

    bootstrap_servers: str = "127.0.0.1:9092"
    security_protocol: Literal["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"] = "PLAINTEXT"
    sasl_mechanism: Literal["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512"] | None = None
    sasl_username: str | None = None
    sasl_password: SecretStr | None = None
    ssl_ca_location: Path | None = None
    ssl_certificate_location: Path | None = None
    ssl_key_location: Path | None = None
    replication_factor: int | None = Field(
        None, ge=1, description="of topics that `sop deploy` makes; none: 3, or as many brokers as there are"
    )
    request_timeout: float = Field(10.0, gt=0, le=300)

    @model_validator(mode="after")
    def _names_go_with_their_protocol(self) -> Self:
        given = (self.sasl_mechanism, self.sasl_username, self.sasl_password)
        fields = "SOP_KAFKA__SASL_MECHANISM, _USERNAME and _PASSWORD"
        if self.security_protocol.startswith("SASL_"):
            if None in given:
                raise ValueError(f"{self.security_protocol} needs {fields}")
        elif given != (None, None, None):
            raise ValueError(f"{fields} need SOP_KAFKA__SECURITY_PROTOCOL to be SASL_SSL or SASL_PLAINTEXT")
        return self


class S3Settings(_Section):
    """How to reach the object store; times in seconds. Without an endpoint: AWS."""

    endpoint_url: HttpAddress | None = None
    bucket: str = Field("sop", min_length=3)
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    timeout: float = Field(30.0, gt=0, le=3600, description="bound of one request, whatever the server does")


class ClickHouseSettings(_Section):
    """How to reach ClickHouse's HTTP interface; times in seconds. The analyst may only read."""

    host: str = "127.0.0.1"
    port: int = Field(8123, ge=1, le=65535)
    database: str = Field("sop", pattern=r"^\w+$")
    username: str = "default"
    password: SecretStr = SecretStr("")
    analyst_username: str | None = None
    analyst_password: SecretStr = SecretStr("")
    secure: bool = False
    timeout: float = Field(30.0, gt=0, le=3600)


class RegistrySettings(_Section):
    """How to reach the schema registry (Confluent's API); times in seconds."""

    url: HttpAddresses = Field("http://127.0.0.1:8081", description="of more than one, with commas between them")
    username: str | None = None
    password: SecretStr | None = None
    timeout: float = Field(10.0, gt=0, le=300)

    @model_validator(mode="after")
    def _name_and_password_go_together(self) -> Self:
        if (self.username is None) is not (self.password is None):
            raise ValueError("SOP_REGISTRY__USERNAME and SOP_REGISTRY__PASSWORD are given both, or neither")
        if self.username is not None and ":" in self.username:
            raise ValueError("SOP_REGISTRY__USERNAME holds a colon, which no name may")
        return self


class RobotSettings(_Section):
    """The robot's client and its spool; times in seconds."""

    sync_interval: float = Field(
        0.2, gt=0, description="longest wait of a recorded event for the disk: what a loss of power may cost"
    )
    max_spool_bytes: int = Field(8 * 2**30, ge=2**20, description="bound of the spool on disk")
    min_free_bytes: int = Field(2**30, ge=0, description="what the spool's disk must keep free for others")
    warn_fraction: float = Field(0.8, gt=0, le=1, description="of the bound, from which heartbeats warn")
    segment_bytes: int = Field(16 * 2**20, ge=2**12, description="of events in one file of the spool")
    drain_rate: float = Field(5_000.0, gt=0, description="events a second that leave for Kafka, at most")
    frame_buffer_bytes: int = Field(
        64 * 2**20, ge=2**20, description="memory for camera frames that are not encoded yet"
    )
    frame_segment_steps: int = Field(
        100, ge=1, le=10_000, description="control steps whose frames are encoded as one object"
    )
    frames_patience: float = Field(
        5.0,
        gt=0,
        description="longest wait at an episode's end for its frames; those not on disk then are dropped",
    )


class MaterializerSettings(_Section):
    """`sop materialize`; times in seconds."""

    group: str = "materializer"
    batch_size: int = Field(50_000, ge=1, description="records taken from Kafka at once")
    poll_timeout: float = Field(0.1, gt=0)
    commit_interval: float = Field(0.2, gt=0, description="longest wait of a sealed episode for its transaction")
    offsets_interval: float = Field(5.0, gt=0, description="between commits when nothing was sealed")
    episode_timeout: float = Field(600.0, gt=0, description="silence after which an open episode is sealed")
    transaction_timeout: float = Field(10.0, ge=1.0, le=10.0)
    max_buffer_bytes: int = Field(256 * 2**20, gt=0, description="memory of open episodes; beyond, they spill")
    spill_dir: Path = Field(
        default_factory=lambda: Path(f"/var/tmp/sop-spill-{os.getuid()}"),  # noqa: S108
        description="on a disk, not in memory; only its owner may look into it",
    )


class IndexSettings(_Section):
    """`sop index`; times in seconds."""

    group: str = "index"
    batch_size: int = Field(5_000, ge=1)
    flush_interval: float = Field(0.3, gt=0, description="longest wait of a record for its insert")


class LearnerSettings(_Section):
    """`sop learn`. The demo's simulation sets `simulated_*`; a real fleet leaves them alone."""

    policy: str = Field("default", pattern=r"^[\w-]+$", description="name of the policy line")
    algorithm: Literal["hg-dagger", "recap", "bc"] = "hg-dagger"
    architecture: Literal["chunked-mlp", "flow-transformer"] = "chunked-mlp"
    seed: int = 0
    batch_size: int = Field(256, ge=1)
    mixing: Literal["fixed", "adaptive"] = Field("fixed", description="of online and offline data inside a task")
    online_share: float = Field(
        0.5, ge=0, le=1, description="fixed, or until the adaptive sampler has seen enough"
    )
    adaptive_alpha: float = Field(1.5, gt=0, description="boosts online losses; the paper does not say its value")
    adaptive_window: int = Field(200, ge=1, description="learner steps whose losses count")
    adaptive_clip: tuple[Share, Share] = Field((0.2, 0.8), description="lowest and highest online share")
    adaptive_normalise: bool = Field(False, description="divide both losses by their average before the formula")
    task_weights: dict[str, Weight] = Field({}, description="of tasks when they are drawn; 1 for those not named")
    hg_autonomous_weight: float = Field(0.0, ge=0, description="of the policy's own steps in successful episodes")
    hg_takeover_steps: int = Field(0, ge=0, description="before a takeover, whose weight is lowered")
    hg_takeover_weight: float = Field(0.0, ge=0, description="factor of their weight")
    hg_failed_weight: float = Field(1.0, ge=0, description="of human steps in episodes that failed")
    recap_failure_penalty: float = Field(1.0, gt=0, description="C_fail as a share of the task's longest episode")
    recap_look_ahead: int = Field(50, ge=1, description="N, control steps")
    recap_positive_share: Share = Field(0.4, description="of the policy's steps that count as good")
    recap_positive_shares: dict[str, Share] = Field({}, description="by task, where it is another (hard ones 0.1)")
    recap_threshold_steps: float | None = Field(None, description="a threshold in steps gained, in its place")
    recap_dropout: Share = Field(0.3, description="how often the policy is not told its advantage")
    recap_value_steps: int = Field(1000, ge=1, description="gradient steps of the value function, before the base")
    learning_rate: float = Field(5e-4, gt=0)
    pretrain_learning_rate: float = Field(1e-3, gt=0)
    ema_half_life: float = Field(50.0, ge=0, description="gradient steps; of the weights that are published")
    hidden: tuple[int, ...] = Field(
        (256, 256, 256), description="widths of the layers; a transformer's are all alike"
    )
    chunk: int = Field(4, ge=1, description="actions that the policy plans at once")
    cameras: tuple[str, ...] = Field(
        (), description="features that a new line's policy sees: uint8 (height, width, 3), by a flow-transformer"
    )
    pretrain_episodes: int = Field(1, ge=1, description="demonstrations to wait for before the base is trained")
    pretrain_steps: int = Field(1500, ge=1)
    publish_every: int = Field(200, ge=1, description="gradient steps between versions")
    max_updates_per_online_step: float = Field(1.0, gt=0, description="so that a quiet fleet is not overfitted")
    checkpoints_kept: int = Field(3, ge=1)
    checkpoint_every: int = Field(1, ge=1, description="versions; those in between are trained again on a restart")
    buffer_steps: int = Field(
        20_000_000, ge=1, description="steps that may be drawn; beyond, the oldest online episodes leave"
    )
    simulated_interval: float | None = Field(None, gt=0, description="simulated seconds between versions")
    simulated_robots: int = Field(0, ge=0, description="robots that the barrier waits for")
    simulated_patience: float = Field(30.0, gt=0, description="wall seconds of silence that end the wait")

    @model_validator(mode="after")
    def _has_eyes(self) -> Self:
        if self.cameras and self.architecture != "flow-transformer":
            raise ValueError(f"{self.architecture} sees no cameras; set architecture to flow-transformer")
        if len(set(self.cameras)) < len(self.cameras):
            raise ValueError("a camera is named twice")
        return self

    @model_validator(mode="after")
    def _clip_is_a_range(self) -> Self:
        if self.adaptive_clip[0] > self.adaptive_clip[1]:
            raise ValueError("the lower end of adaptive_clip lies above the upper one")
        return self


class CacheSettings(_Section):
    """The learner's files on its own disk: payloads, and the frames that it draws from; both can be had again."""

    directory: Path = Field(
        default_factory=lambda: Path(f"/var/tmp/sop-cache-{os.getuid()}"),  # noqa: S108
        description="on a disk, not in memory; learners of one machine and one user share it",
    )
    max_bytes: int = Field(
        8 * 2**30, ge=0, description="of payloads and segments; 0: none are kept. Frames come on top"
    )
    image_bytes: int = Field(
        8 * 2**30, ge=0, description="of decoded images, for each camera and learner; 0: none are kept"
    )


class PolicySettings(_Section):
    """Whose policies are believed, and how robots take them in. Public keys are base64, as `sop keys new` says."""

    signing_key: Path | None = Field(None, description="private key's file: the learner's, or an operator's")
    signing_key_pem: SecretStr | None = Field(None, description="the same as text, where a secret travels so")
    learner_keys: tuple[str, ...] = Field((), description="public keys that may announce versions")
    operator_keys: tuple[str, ...] = Field((), description="public keys that may roll versions out")
    allow_unsigned: bool = Field(False, description="believe what carries no signature at all")
    keep: int = Field(3, ge=1, description="artifacts that a robot keeps on its disk")
    max_bytes_per_second: float | None = Field(None, gt=0, description="of a robot's downloads; none: no cap")


class GuardSettings(_Section):
    """`sop guard`, which runs only where it is started; `consumers/sequential.py` says what the numbers mean."""

    interval: float = Field(10.0, gt=0, description="seconds between two looks at ClickHouse")
    odds_ratio: float = Field(2.0, gt=1, description="of success, current to canary, that must not be promoted")
    least_difference: float = Field(0.05, gt=0, lt=0.5, description="of two rates; smaller ones do not matter")
    false_promotion: float = Field(0.05, gt=0, lt=0.5, description="risk of promoting what is so much worse")
    false_rollback: float = Field(0.05, gt=0, lt=0.5, description="risk of rolling back what is as good")


class ConsoleSettings(_Section):
    """`sop console`; times in seconds."""

    token: SecretStr | None = Field(None, description="of the operator; made and shown at the start if unset")
    query_seconds: float = Field(5.0, ge=0.5, le=60, description="what one query may take before it is given up")
    live_interval: float = Field(1.0, ge=0.2, le=60, description="between two looks at the fleet")


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
    _refuse_unknown(_ours(), "")
    if chosen.is_file():
        _refuse_unknown(dotenv_values(chosen), f" in {chosen}")
    return _settings(chosen if chosen.is_file() else None)


def check_environment() -> None:
    """Refuse what `load_settings` would refuse in the environment; for who takes no settings from it.

    Raises:
        pydantic.ValidationError, UnknownSettings: see `load_settings`.
    """
    _refuse_missing_file()
    _refuse_unknown(_ours(), "")
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
    name = "SOP_" + "__".join(str(part).upper() for part in first["loc"])
    wrong = first["msg"].removeprefix("Value error, ")
    return f"{name} is no setting" if first["type"] == "extra_forbidden" else f"setting {name}: {wrong}"


def _refuse_missing_file() -> None:
    if os.environ.get("SOP_ENV_FILE") and not env_file().is_file():
        raise UnknownSettings(f"SOP_ENV_FILE names {env_file()}, which is no file")


def _ours() -> list[str]:
    return [name for name in os.environ if name.upper().startswith("SOP_") and name not in NOT_SETTINGS]


def _known() -> list[str]:
    """Names of all variables: of sections as a whole, and of their fields."""
    names = []
    for section, info in Settings.model_fields.items():
        names.append(f"SOP_{section.upper()}")
        names += [f"{names[-1]}__{field.upper()}" for field in getattr(info.annotation, "model_fields", {})]
    return names


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
