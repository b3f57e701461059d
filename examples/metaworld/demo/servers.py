"""The demo's servers: they die with the demo, or outlive it when they are to be kept."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from infra.files import write_atomically
from infra.local import control
from infra.local.stack import Stack
from infra.policies.keys import key_settings, write_pair
from infra.settings import Settings, load_settings

ENV_FILE = "demo.env"


@contextmanager
def running(data_dir: Path, *, outlive: bool) -> Iterator[Mapping[str, str]]:
    """Servers under `data_dir`, and the settings that reach them. Kept ones are stopped if the block raises.

    Raises:
        infra.local.stack.StackError: they did not start; none is left.
        infra.local.state.DirectoryInUseError: others run there.
    """
    if not outlive:
        with Stack.start(data_dir) as stack:
            yield stack.environment()
        return
    control.up(data_dir)
    try:
        yield control.environment(data_dir)
    except BaseException:
        control.down(data_dir)
        raise


def make_keys(data_dir: Path) -> dict[str, str]:
    """A key of the demo's own, if it has none, for learner and whoever rolls back; settings that name it."""
    if not (data_dir / "keys" / "demo.key").exists():
        write_pair(data_dir / "keys" / "demo")
    return key_settings(data_dir / "keys" / "demo")


def write_settings(data_dir: Path, *parts: Mapping[str, str]) -> tuple[Path, Settings]:
    """Write one dotenv file (mode 0600) that every process of the demo is started with; it, and what it says."""
    path = data_dir / ENV_FILE
    merged = {name: value for part in parts for name, value in part.items()}
    write_atomically(path, "".join(f"{name}={value}\n" for name, value in merged.items()))
    return path, load_settings(path)
