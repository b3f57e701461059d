"""The stack: real servers that come up together, come back at the same place, and never outlive their owner."""

from __future__ import annotations

import json
import os
import signal
import socket
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from infra.local import control, state
from infra.local.stack import Stack, StackError

ROOT = Path(__file__).resolve().parents[3]
CLI = [sys.executable, "-m", "infra.local.cli"]


def sop_stack(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run([*CLI, *arguments], cwd=ROOT, capture_output=True, text=True, timeout=300, check=False)


def processes_about(directory: Path) -> list[int]:
    """All processes whose command line or working directory names the directory."""
    found = []
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) == os.getpid():
            continue
        try:
            line, where = (entry / "cmdline").read_bytes().decode(), str((entry / "cwd").readlink())
        except OSError:
            continue
        if str(directory) in line or where.startswith(str(directory)):
            found.append(int(entry.name))
    return found


def wait_until(condition: Callable[[], object]) -> None:
    deadline = time.monotonic() + 180
    while not condition():
        assert time.monotonic() < deadline, "nothing happened within three minutes"
        time.sleep(0.02)


@pytest.fixture
def data_dir(tmp_path: Path) -> Iterator[Path]:
    directory = tmp_path / "data"
    yield directory
    if directory.exists():
        control.down(directory)
    wait_until(lambda: not processes_about(directory))


def test_up_status_down_as_a_user(data_dir: Path) -> None:
    where = ("--data-dir", str(data_dir))
    assert sop_stack("status", *where).returncode == 1
    up = sop_stack("up", *where)
    assert up.returncode == 0, up.stderr
    again = sop_stack("up", *where)
    assert again.returncode == 0
    assert "already running" in again.stdout
    status = sop_stack("status", "--json", *where)
    assert status.returncode == 0
    services = {service["service"]: service for service in json.loads(status.stdout)["services"]}
    assert set(services) == {"broker", "object_store", "clickhouse", "registry"}
    for service in services.values():
        assert service["health"] == "healthy"
        assert service["version"]
        os.kill(service["pid"], 0)
    exported = sop_stack("env", *where).stdout
    assert f"export SOP_REGISTRY__URL={services['registry']['address']}" in exported
    down = sop_stack("down", *where)
    assert down.returncode == 0
    assert processes_about(data_dir) == []
    assert (data_dir / "broker").is_dir()
    assert sop_stack("down", "--purge", *where).returncode == 0
    assert not data_dir.exists()
    nothing = sop_stack("down", *where)
    assert (nothing.returncode, nothing.stdout, nothing.stderr) == (
        0, f"nothing was running; {data_dir} is not there\n", ""
    )  # fmt: skip


def test_a_file_is_no_data_directory(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("mine")
    up = sop_stack("up", "--data-dir", str(tmp_path / "file"))
    assert (up.returncode, up.stdout) == (2, "")
    assert up.stderr == f"error: {tmp_path / 'file'} is no directory; choose another --data-dir\n"


def test_secrets_are_private_and_on_no_command_line(stack: Stack) -> None:
    assert stat.S_IMODE(stack.data_dir.stat().st_mode) & 0o077 == 0
    for file in [
        *(stack.data_dir / "secrets").iterdir(),
        stack.data_dir / "stack.env",
        stack.data_dir / "clickhouse.netrc",
        stack.data_dir / "stack.json",
    ]:
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    secrets = [file.read_text().strip() for file in (stack.data_dir / "secrets").iterdir()]
    shown = [(Path("/proc") / str(pid) / "cmdline").read_text() for pid in processes_about(stack.data_dir)]
    shown += [log.read_text() for log in (stack.data_dir / "logs").iterdir()]
    assert len(shown) >= 8
    assert not [secret for secret in secrets for text in shown if secret in text]


def test_env_file_is_the_environment(stack: Stack) -> None:
    lines = (stack.data_dir / "stack.env").read_text().splitlines()
    assert dict(line.split("=", 1) for line in lines) == stack.environment()


def test_settings_that_are_kept_with_the_data_are_the_stack_s(stack: Stack) -> None:
    addresses = stack.environment()
    control.keep_settings(stack.data_dir, {"SOP_LEARNER__POLICY": "arm"})
    try:
        assert control.environment(stack.data_dir) == stack.environment()
        assert stack.environment() == addresses | {"SOP_LEARNER__POLICY": "arm"}
        assert "SOP_LEARNER__POLICY=arm" in (stack.data_dir / "stack.env").read_text().splitlines()
        assert stat.S_IMODE((stack.data_dir / "own.env").stat().st_mode) == 0o600
    finally:
        control.keep_settings(stack.data_dir, {})
    assert stack.environment() == addresses


def test_curl_asks_clickhouse_as_the_analyst_with_no_password_on_its_command_line(stack: Stack) -> None:
    netrc = stack.data_dir / "clickhouse.netrc"
    environment = stack.environment()
    address = f"http://{environment['SOP_CLICKHOUSE__HOST']}:{environment['SOP_CLICKHOUSE__PORT']}/"
    for sql, answer in (("SELECT 6 * 7", "42\n"), ("CREATE DATABASE mine", "readonly mode")):
        command = ["curl", "-sS", "--netrc-file", str(netrc), address, "-d", sql]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
        assert answer in done.stdout


def test_killed_server_is_reported_and_comes_back_at_its_address(tmp_path: Path) -> None:
    with Stack.start(tmp_path, only=["object_store"], timeout=300) as stack:
        before = stack.address("object_store")
        stack.kill("object_store")
        (service,) = control.status(tmp_path)
        assert (service.health, service.pid) == (state.DEAD, None)
        stack.restart("object_store")
        assert stack.address("object_store") == before
        stack.pause("object_store")
        (service,) = control.status(tmp_path, timeout=0.5)
        assert service.health == control.UNRESPONSIVE
        stack.resume("object_store")
        (service,) = control.status(tmp_path, timeout=60.0)
        assert service.health == control.HEALTHY


def test_same_directory_gives_the_same_addresses_and_secrets(tmp_path: Path) -> None:
    with Stack.start(tmp_path, only=["object_store"], timeout=300) as stack:
        before = stack.environment()
    with Stack.start(tmp_path, only=["object_store"], timeout=300) as stack:
        assert stack.environment() == before
    with socket.socket() as squatter:
        squatter.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        squatter.bind(("127.0.0.1", int(before["SOP_S3__ENDPOINT_URL"].rsplit(":", 1)[1])))
        squatter.listen()
        with Stack.start(tmp_path, only=["object_store"], timeout=300) as stack:
            assert stack.environment()["SOP_S3__ENDPOINT_URL"] != before["SOP_S3__ENDPOINT_URL"]


def test_two_stacks_run_side_by_side_and_one_directory_holds_one(tmp_path: Path) -> None:
    with (
        Stack.start(tmp_path / "a", only=["object_store"], timeout=300) as a,
        Stack.start(tmp_path / "b", only=["object_store"], timeout=300) as b,
    ):
        assert a.address("object_store") != b.address("object_store")
        assert a.environment()["SOP_S3__SECRET_ACCESS_KEY"] != b.environment()["SOP_S3__SECRET_ACCESS_KEY"]
        with pytest.raises(state.DirectoryInUseError):
            Stack.start(tmp_path / "a", only=["object_store"], timeout=300)
        with pytest.raises(StackError, match=f"belongs to process {os.getpid()}"):
            control.down(tmp_path / "a")


def test_server_that_does_not_start_is_named_and_nothing_is_left(data_dir: Path) -> None:
    data_dir.mkdir()
    (data_dir / "clickhouse").mkdir()
    (data_dir / "clickhouse" / "data").write_text("not a directory")
    with pytest.raises(StackError, match="clickhouse ended at start"):
        Stack.start(data_dir, only=["clickhouse", "object_store"], timeout=300)
    wait_until(lambda: not processes_about(data_dir))
    assert all(service.health == state.STOPPED for service in control.status(data_dir))


@pytest.mark.parametrize("moment", ["supervisor", "server"])
def test_kill_of_up_leaves_no_process(data_dir: Path, moment: str) -> None:
    up = subprocess.Popen([*CLI, "up", "--data-dir", str(data_dir)], cwd=ROOT, stdout=subprocess.DEVNULL)

    def under_way() -> bool:
        return (data_dir / "stack.json").exists() and (
            moment == "supervisor" or (data_dir / "logs" / "broker.log").exists()
        )

    wait_until(under_way)
    up.send_signal(signal.SIGKILL)
    up.wait(timeout=30)
    wait_until(lambda: not processes_about(data_dir))
    assert not state.is_running(data_dir)


def test_kill_of_the_supervisor_takes_the_servers_along_and_up_works_again(data_dir: Path) -> None:
    control.up(data_dir, timeout=300)
    record = state.read(data_dir)
    assert record is not None
    os.kill(record.owner_pid, signal.SIGKILL)
    wait_until(lambda: not processes_about(data_dir))
    assert [service.health for service in control.status(data_dir)] == [state.STOPPED] * 4
    control.up(data_dir, timeout=300)
    assert [service.health for service in control.status(data_dir, timeout=60.0)] == [control.HEALTHY] * 4
    assert {s.service: s.address for s in control.status(data_dir)} == {
        n: e.address for n, e in record.servers.items()
    }


def test_purge_removes_no_directory_that_is_not_a_stack_s(tmp_path: Path) -> None:
    (tmp_path / "precious").write_text("data")
    with pytest.raises(StackError, match="not a stack's data directory"):
        control.down(tmp_path, purge=True)
    assert (tmp_path / "precious").exists()


def test_a_directory_that_holds_something_else_is_refused_and_left_alone(tmp_path: Path) -> None:
    precious = tmp_path / "precious.txt"
    precious.write_text("hi")
    with pytest.raises(control.ForeignDirectoryError, match=r"precious\.txt"):
        control.up(tmp_path)
    assert list(tmp_path.iterdir()) == [precious]
