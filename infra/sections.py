"""The sections of the settings: what each part of the system can be told, with defaults and bounds."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, SecretStr, field_validator, model_validator

from infra.policies.names import LINE

Share = Annotated[float, Field(ge=0, le=1)]
Weight = Annotated[float, Field(gt=0, allow_inf_nan=False)]

# How those that are empty by default are written.
_KEYS = [["PUBLIC KEY"]]
_BY_TASK = [{"push-v3": 0.1}]


def require_http(address: str) -> None:
    """Refuse what is no address of a server that speaks HTTP, or holds what must not be shown.

    The text does not repeat it.

    Raises:
        ValueError: it has another scheme or no host, or a name and password, a query or a fragment in it.
    """
    try:
        parts = urlsplit(address)
        good = parts.scheme in {"http", "https"} and bool(parts.hostname) and (parts.port or 1) > 0
    except ValueError:
        good = False
    if not good:
        raise ValueError("not an address such as http://127.0.0.1:8081")
    if "@" in parts.netloc:
        raise ValueError("an address is shown to everybody: name and password have settings of their own")
    if parts.query or parts.fragment:
        raise ValueError("an address with a query or a fragment; it ends with its path")


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

    endpoint_url: str | None = None
    bucket: str = Field("sop", min_length=3)
    region: str = "us-east-1"
    access_key_id: str | None = None
    secret_access_key: SecretStr | None = None
    timeout: float = Field(30.0, gt=0, le=3600, description="bound of one request, whatever the server does")
    max_put_bytes_per_second: float | None = Field(
        None, gt=0, description="of a robot's frames, and of nothing else; none: no cap"
    )

    @field_validator("endpoint_url")
    @classmethod
    def _is_an_address(cls, url: str | None) -> str | None:
        if url is not None:
            require_http(url)
        return url


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

    url: str = Field("http://127.0.0.1:8081", description="of more than one, with commas between them")
    username: str | None = None
    password: SecretStr | None = None
    timeout: float = Field(10.0, gt=0, le=300)

    @field_validator("url")
    @classmethod
    def _is_an_address(cls, url: str) -> str:
        for part in url.split(","):
            require_http(part.strip())
        return url

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

    policy: str = Field("default", pattern=rf"^{LINE.pattern}$", description="name of the policy line")
    algorithm: Literal["hg-dagger", "recap", "bc"] = "hg-dagger"
    architecture: Literal["chunked-mlp", "flow-transformer"] = "chunked-mlp"
    seed: int = Field(0, ge=0)
    batch_size: int = Field(256, ge=1)
    mixing: Literal["fixed", "adaptive"] = Field(
        "adaptive", description="of online and offline data inside a task; adaptive is the paper's"
    )
    online_share: float = Field(
        0.5, ge=0, le=1, description="fixed, or until the adaptive sampler has seen enough"
    )
    adaptive_alpha: float = Field(1.5, gt=0, description="boosts online losses; the paper does not say its value")
    adaptive_window: int = Field(200, ge=1, description="learner steps whose losses count")
    adaptive_clip: tuple[Share, Share] = Field((0.2, 0.8), description="lowest and highest online share")
    adaptive_normalise: bool = Field(False, description="divide both losses by their average before the formula")
    task_weights: dict[str, Weight] = Field(
        {}, examples=_BY_TASK, description="of tasks when they are drawn; 1 for those not named"
    )
    hg_autonomous_weight: float = Field(0.0, ge=0, description="of the policy's own steps in successful episodes")
    hg_takeover_steps: int = Field(0, ge=0, description="before a takeover, whose weight is lowered")
    hg_takeover_weight: float = Field(0.0, ge=0, description="factor of their weight")
    hg_failed_weight: float = Field(1.0, ge=0, description="of human steps in episodes that failed")
    recap_failure_penalty: float = Field(1.0, gt=0, description="C_fail as a share of the task's longest episode")
    recap_look_ahead: int = Field(50, ge=1, description="N, control steps")
    recap_positive_share: Share = Field(0.4, description="of the policy's steps that count as good")
    recap_positive_shares: dict[str, Share] = Field(
        {}, examples=_BY_TASK, description="by task, where it is another (hard ones 0.1)"
    )
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
        (),
        examples=[["wrist"]],
        description="features that a new line's policy sees: uint8 (height, width, 3), by a flow-transformer",
    )
    pretrain_episodes: int = Field(1, ge=1, description="demonstrations to wait for before the base is trained")
    pretrain_steps: int = Field(1500, ge=1)
    publish_every: int = Field(200, ge=1, description="gradient steps between versions")
    max_updates_per_online_step: float = Field(1.0, gt=0, description="so that a quiet fleet is not overfitted")
    checkpoints_kept: int = Field(3, ge=1)
    checkpoint_every: int = Field(1, ge=1, description="versions; those in between are trained again on a restart")
    buffer_steps: int = Field(
        20_000_000, ge=1, description="of online episodes; beyond, the oldest leave. Demonstrations come on top"
    )
    tensorboard: Path | None = Field(None, description="directory for curves of what is reported; none: no curves")
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
    learner_keys: tuple[str, ...] = Field(
        (),
        examples=_KEYS,
        description="public keys in base64 that may announce versions, as `sop keys new` prints them",
    )
    operator_keys: tuple[str, ...] = Field(
        (),
        examples=_KEYS,
        description="public keys in base64 that may roll versions out, as `sop keys new` prints them",
    )
    allow_unsigned: bool = Field(False, description="believe what carries no signature at all")
    keep: int = Field(3, ge=1, description="artifacts that a robot keeps on its disk")
    max_bytes_per_second: float | None = Field(None, gt=0, description="of a robot's downloads; none: no cap")
    min_free_bytes: int = Field(
        2 * 2**30,
        ge=0,
        description="what a robot's download leaves free on its disk: the spool's floor, and room for an episode",
    )


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
