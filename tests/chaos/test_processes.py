"""Members of a run are asked to leave whatever they are doing to themselves."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.chaos import processes
from tests.chaos.processes import Fleet, Process

FREEZES_ITSELF = """
import os, signal, sys
def leave(*_):
    os.kill(os.getpid(), signal.SIGSTOP)
    sys.exit(0)
signal.signal(signal.SIGTERM, leave)
print("up", flush=True)
signal.pause()
"""


def test_a_member_that_freezes_itself_when_it_is_to_leave_is_continued(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(processes, "SETTLE", 0.5)
    popen = subprocess.Popen([sys.executable, "-c", FREEZES_ITSELF], stdout=subprocess.PIPE)
    assert popen.stdout is not None
    with popen.stdout as said:
        assert said.readline() == b"up\n"
    fleet = Fleet({}, tmp_path)
    member = Process("materialize-1", popen, tmp_path / "log")
    member.log.touch()
    fleet.leave(member)
    assert (popen.returncode, fleet.crashes) == (0, [])
