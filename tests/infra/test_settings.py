"""Settings: where they come from, which one wins, and what is refused."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import get_origin

import pytest
from pydantic import SecretStr, ValidationError

from infra.settings import (
    NOT_SETTINGS,
    Settings,
    UnknownSettings,
    anything_set,
    check_environment,
    explain,
    load_settings,
)

SECTIONS: dict[str, tuple[str, Callable[[Settings], object], object]] = {
    "SOP_KAFKA__REQUEST_TIMEOUT": ("2.5", lambda s: s.kafka.request_timeout, 2.5),
    "SOP_S3__BUCKET": ("robots", lambda s: s.s3.bucket, "robots"),
    "SOP_CLICKHOUSE__PORT": ("9000", lambda s: s.clickhouse.port, 9000),
    "SOP_REGISTRY__URL": ("http://r:1", lambda s: s.registry.url, "http://r:1"),
    "SOP_ROBOT__SYNC_INTERVAL": ("0.5", lambda s: s.robot.sync_interval, 0.5),
    "SOP_MATERIALIZER__BATCH_SIZE": ("7", lambda s: s.materializer.batch_size, 7),
    "SOP_INDEX__GROUP": ("i", lambda s: s.index.group, "i"),
    "SOP_LEARNER__HIDDEN": ("[16, 8]", lambda s: s.learner.hidden, (16, 8)),
    "SOP_POLICIES__LEARNER_KEYS": ('["a", "b"]', lambda s: s.policies.learner_keys, ("a", "b")),
    "SOP_CACHE__MAX_BYTES": ("0", lambda s: s.cache.max_bytes, 0),
    "SOP_CONSOLE__LIVE_INTERVAL": ("2.5", lambda s: s.console.live_interval, 2.5),
    "SOP_GUARD__ODDS_RATIO": ("3", lambda s: s.guard.odds_ratio, 3.0),
    "SOP_STARTUP_TIMEOUT": ("3", lambda s: s.startup_timeout, 3.0),
    "SOP_METRICS_PORT": ("0", lambda s: s.metrics_port, 0),
    "SOP_METRICS_HOST": ("10.0.0.1", lambda s: s.metrics_host, "10.0.0.1"),
}


pytestmark = pytest.mark.usefixtures("nothing_set")


def test_the_table_below_covers_every_section() -> None:
    assert {name.removeprefix("SOP_").split("__")[0].lower() for name in SECTIONS} == set(Settings.model_fields)


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_is_set_from_the_environment(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    text, read, value = SECTIONS[name]
    assert read(load_settings()) != value, "a default would prove nothing"
    monkeypatch.setenv(name, text)
    assert read(load_settings()) == value


@pytest.mark.parametrize("name", SECTIONS)
def test_every_section_is_set_from_a_file(name: str, tmp_path: Path) -> None:
    text, read, value = SECTIONS[name]
    file = tmp_path / "any.env"
    file.write_text(f"{name}={text}\n")
    assert read(load_settings(file)) == value


def test_the_environment_wins_field_by_field_over_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "any.env"
    file.write_text("SOP_S3__BUCKET=from-file\nSOP_S3__REGION=from-file\n")
    monkeypatch.setenv("SOP_S3__BUCKET", "from-environment")
    found = load_settings(file).s3
    assert (found.bucket, found.region) == ("from-environment", "from-file")


def test_the_stack_file_is_read_when_no_other_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / ".sop").mkdir()
    (tmp_path / ".sop" / "stack.env").write_text("SOP_S3__BUCKET=of-the-stack\n")
    (tmp_path / "named.env").write_text("SOP_S3__REGION=named\n")
    assert load_settings().s3.bucket == "of-the-stack"
    monkeypatch.setenv("SOP_ENV_FILE", "named.env")
    assert (load_settings().s3.bucket, load_settings().s3.region) == (Settings().s3.bucket, "named")


def test_the_stack_of_the_named_data_directory_is_the_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (".sop", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "stack.env").write_text(f"SOP_S3__BUCKET=bucket-{name}\n")
    (tmp_path / "named.env").write_text("SOP_S3__BUCKET=named\n")
    monkeypatch.setenv("SOP_DATA_DIR", "other")
    assert load_settings().s3.bucket == "bucket-other"
    monkeypatch.setenv("SOP_ENV_FILE", "named.env")
    assert load_settings().s3.bucket == "named"


def test_whether_anything_is_set_is_told_by_the_environment_and_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SOP_DATA_DIR", "other")
    assert not anything_set()
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "stack.env").write_text("")
    assert anything_set()
    monkeypatch.delenv("SOP_DATA_DIR")
    assert not anything_set()
    monkeypatch.setenv("SOP_S3__BUCKET", "mine")
    assert anything_set()


def test_a_named_file_that_is_missing_is_an_error_and_the_default_one_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert load_settings() == Settings()
    monkeypatch.setenv("SOP_ENV_FILE", "none.env")
    with pytest.raises(UnknownSettings, match=r"SOP_ENV_FILE names none\.env"):
        load_settings()


@pytest.mark.parametrize("name", ["SOP_KAFAK__BOOTSTRAP_SERVERS", "SOP_BUCKET", "sop_bucket", "SOP_"])
def test_a_variable_that_names_no_section_is_refused_by_its_name(
    name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(UnknownSettings, match=f"^{name} is no setting"):
        load_settings()


@pytest.mark.parametrize(
    ("name", "advice"),
    [
        ("SOP_KAFKA__BOOTSTRAP_SERVER", "did you mean SOP_KAFKA__BOOTSTRAP_SERVERS?"),
        ("SOP_KAFAK__BOOTSTRAP_SERVERS", "did you mean SOP_KAFKA__BOOTSTRAP_SERVERS?"),
        ("sop_kafka__bootstrap_server", "did you mean SOP_KAFKA__BOOTSTRAP_SERVERS?"),
        (
            "SOP_INDEX__XYZ",
            "of this section there are SOP_INDEX__GROUP, SOP_INDEX__BATCH_SIZE, SOP_INDEX__FLUSH_INTERVAL",
        ),
        ("SOP_METRIC_PORT", "did you mean SOP_METRICS_PORT?"),
    ],
)
def test_what_is_no_setting_is_refused_with_what_may_have_been_meant(
    name: str, advice: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, "hush")
    with pytest.raises(UnknownSettings) as refused:
        load_settings()
    assert str(refused.value) == f"{name} is no setting; {advice}"


def test_a_wrong_value_is_explained_in_a_line_that_does_not_repeat_it(monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value, line in (
        ("SOP_KAFKA__REPLICATION_FACTOR", "-77", "setting SOP_KAFKA__REPLICATION_FACTOR: .* than or equal to 1"),
        ("SOP_REGISTRY", '{"nonsense": -77}', "SOP_REGISTRY__NONSENSE is no setting"),
        ("SOP_POLICIES__LEARNER_KEYS", "[-77]", r"setting SOP_POLICIES__LEARNER_KEYS\[0\]: .* valid string"),
        ("SOP_LEARNER__TASK_WEIGHTS", '{"a": -77}', r"setting SOP_LEARNER__TASK_WEIGHTS\['a'\]: .* than 0"),
    ):
        monkeypatch.setenv(name, value)
        with pytest.raises(ValidationError) as refused:
            load_settings()
        monkeypatch.delenv(name)
        assert re.fullmatch(line, explain(refused.value))
        assert "-77" not in explain(refused.value)


@pytest.mark.parametrize("name", ["SOP_KAFAK__BOOTSTRAP_SERVERS", "OTHER"])
def test_a_line_of_the_file_that_is_no_setting_is_refused_by_name_and_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / "any.env"
    file.write_text(f"{name}=hush\n")
    with pytest.raises(UnknownSettings, match=rf"^{name} in .*any\.env is no setting") as refused:
        load_settings(file)
    assert "hush" not in str(refused.value)


@pytest.mark.parametrize(
    ("name", "value", "where"),
    [
        ("SOP_KAFKA__REPLICATION_FACTOR", "0", ("kafka", "replication_factor")),
        ("SOP_KAFKA__SECURITY_PROTOCOL", "TLS", ("kafka", "security_protocol")),
        ("SOP_CLICKHOUSE__DATABASE", "a; DROP TABLE b", ("clickhouse", "database")),
        ("SOP_MATERIALIZER__TRANSACTION_TIMEOUT", "60", ("materializer", "transaction_timeout")),
        ("SOP_LEARNER__ONLINE_SHARE", "1.1", ("learner", "online_share")),
        ("SOP_STARTUP_TIMEOUT", "", ("startup_timeout",)),
    ],
)
def test_a_wrong_value_is_refused_at_its_place(
    name: str, value: str, where: tuple[str, ...], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValidationError) as refused:
        load_settings()
    assert [error["loc"] for error in refused.value.errors()] == [where]


WRITTEN = {
    "SOP_KAFKA": "is a section, which is set field by field: SOP_KAFKA__BOOTSTRAP_SERVERS, ...",
    "SOP_LEARNER__HIDDEN": "is a list, which is written as JSON, such as SOP_LEARNER__HIDDEN='[256, 256, 256]': ",
    "SOP_LEARNER__TASK_WEIGHTS": "is an object, which is written as JSON, such as SOP_LEARNER__TASK_WEIGHTS='{",
    "sop_policies__learner_keys": """is a list, which is written as JSON, such as \
sop_policies__learner_keys='["PUBLIC KEY"]': public keys in base64 that may announce versions, as `sop""",
}


@pytest.mark.parametrize("name", WRITTEN)
def test_a_section_or_list_that_is_not_json_is_named_with_the_way_to_write_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "any.env"
    file.write_text(f"{name}=hush,hush\n")
    with pytest.raises(UnknownSettings) as refused:
        load_settings(file)
    assert str(refused.value).startswith(f"{name} in {file} {WRITTEN[name]}")
    monkeypatch.setenv(name, "hush,hush")
    with pytest.raises(UnknownSettings) as refused:
        load_settings()
    assert str(refused.value).startswith(f"{name} {WRITTEN[name]}")
    assert "hush" not in str(refused.value)


def test_every_example_of_a_list_or_object_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    tried = 0
    for section, part in Settings.model_fields.items():
        for field, info in getattr(part.annotation, "model_fields", {}).items():
            if get_origin(info.annotation) not in (tuple, dict):
                continue
            name, tried = f"SOP_{section.upper()}__{field.upper()}", tried + 1
            monkeypatch.setenv(name, "no JSON")
            with pytest.raises(UnknownSettings) as refused:
                load_settings()
            written = re.search(f"such as {name}='(.+?)': ", str(refused.value))
            assert written is not None, refused.value
            monkeypatch.setenv(name, written[1])
            monkeypatch.setenv("SOP_LEARNER__ARCHITECTURE", "flow-transformer")  # the one that sees cameras
            assert getattr(getattr(load_settings(), section), field), "an empty one would show nothing"
            monkeypatch.setenv(name, '"text"')
            with pytest.raises(ValidationError) as wrong:
                load_settings()
            assert explain(wrong.value) == str(refused.value)
            monkeypatch.delenv(name)
    assert tried > 5


@pytest.mark.parametrize("name", sorted(NOT_SETTINGS - {"SOP_ENV_FILE"}))
def test_options_of_commands_are_let_through(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "elsewhere")
    assert load_settings() == Settings()


def test_the_environment_is_checked_without_the_stack_s_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / ".sop").mkdir()
    (tmp_path / ".sop" / "stack.env").write_text("NONSENSE=1\n")
    check_environment()
    monkeypatch.setenv("SOP_STARTUP_TIMEOUT", "0")
    with pytest.raises(ValidationError):
        check_environment()
    monkeypatch.delenv("SOP_STARTUP_TIMEOUT")
    for name, value in (("SOP_KAFKA__NONSENSE", "1"), ("SOP_ENV_FILE", "none.env")):
        monkeypatch.setenv(name, value)
        with pytest.raises(UnknownSettings):
            check_environment()
        monkeypatch.delenv(name)


def test_secrets_show_in_no_text_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    names = [
        f"SOP_{section.upper()}__{field.upper()}"
        for section, part in Settings.model_fields.items()
        for field, info in getattr(part.annotation, "model_fields", {}).items()
        if "SecretStr" in repr(info.annotation)
    ]
    assert len(names) == 7
    for name in names:
        monkeypatch.setenv(name, "hush-hush")
    with pytest.raises(ValidationError) as refused:
        load_settings()  # passwords without names
    assert "hush" not in str(refused.value)
    for name in ("SOP_KAFKA__SASL_USERNAME", "SOP_REGISTRY__USERNAME"):
        monkeypatch.setenv(name, "arm")
    monkeypatch.setenv("SOP_KAFKA__SASL_MECHANISM", "PLAIN")
    monkeypatch.setenv("SOP_KAFKA__SECURITY_PROTOCOL", "SASL_SSL")
    found = load_settings()
    assert found.kafka.sasl_password == SecretStr("hush-hush")
    for text in (
        repr(found),
        str(found),
        found.model_dump_json(),
        repr(found.model_dump()),
        repr(found.clickhouse),
    ):
        assert "hush" not in text


def test_whatever_sounds_secret_is_typed_as_a_secret() -> None:
    for section in Settings.model_fields.values():
        for name, field in getattr(section.annotation, "model_fields", {}).items():
            if "password" in name or "secret" in name:
                assert "SecretStr" in repr(field.annotation), name


def test_settings_cannot_be_changed() -> None:
    found = load_settings()
    with pytest.raises(ValidationError, match="frozen"):
        found.startup_timeout = 1.0  # type: ignore[misc]
    with pytest.raises(ValidationError, match="frozen"):
        found.kafka.request_timeout = 1.0  # type: ignore[misc]
