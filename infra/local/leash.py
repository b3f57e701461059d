"""Become a command that dies with its parent.  python -I -S leash.py PARENT_PID COMMAND ARGUMENT…

The kernel sends SIGKILL to a server as soon as whoever started it is gone, however that one died. The setting
survives exec. A script of its own, because code between fork and exec (preexec_fn) may deadlock where threads run.
"""

import ctypes
import os
import signal
import sys

_PR_SET_PDEATHSIG = 1

if __name__ == "__main__":
    parent, command = int(sys.argv[1]), sys.argv[2:]
    if ctypes.CDLL(None, use_errno=True).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0) != 0:
        sys.exit(f"leash: prctl: {os.strerror(ctypes.get_errno())}")
    # The parent may have died before the setting was made; then nobody would ever tell us.
    if os.getppid() != parent:
        sys.exit("leash: the parent is gone")
    os.execvp(command[0], command)  # noqa: S606
