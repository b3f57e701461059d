"""Processes that the robot's program forked, and that outlive it."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

from producers.boot import DataDir
from producers.owned import close, own
from producers.spool.directory import SpoolDirectory

# Bound of each wait; reached only by a failing test.
PATIENCE = 60.0


def test_a_forked_process_has_no_owned_descriptor_and_its_numbers_take_nothing(tmp_path: Path) -> None:
    mine = own(os.open(tmp_path / "file", os.O_RDWR | os.O_CREAT))
    other = os.open(tmp_path / "other", os.O_RDWR | os.O_CREAT)
    child = os.fork()
    if child == 0:
        os.write(other, b"x")
        try:
            os.write(mine, b"x")
        except OSError:
            os._exit(0)
        os._exit(1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    os.write(mine, b"parent")
    close(mine)
    os.close(other)
    assert (tmp_path / "file").read_bytes() == b"parent"
    assert (tmp_path / "other").read_bytes() == b"x"


def test_a_robot_that_is_killed_leaves_its_directory_free_although_a_process_that_it_forked_lives_on(
    tmp_path: Path,
) -> None:
    robot = subprocess.Popen(
        [sys.executable, "-m", "tests.producers.forking", str(tmp_path)], stdout=subprocess.PIPE, text=True
    )
    assert robot.stdout is not None
    child = int(robot.stdout.readline())
    try:
        robot.kill()
        robot.wait(PATIENCE)
        directory = DataDir(tmp_path)
        spool = SpoolDirectory(tmp_path / "spool")
        with spool.exclusive(PATIENCE):  # the publisher ended
            spool.frames.wait_unused(PATIENCE)  # and the encoder
        (episode,) = spool.frames.episodes()
        assert [segment.steps for segment in spool.frames.episode(episode).segments()] == [(0,)]
        directory.release()
        os.kill(child, 0)
    finally:
        os.kill(child, signal.SIGKILL)
        robot.stdout.close()
