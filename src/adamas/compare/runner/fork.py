"""A child process made by a fork, with what the crew uses of `subprocess.Popen`."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import IO

from adamas.leaving import leave

FORKS = sys.platform == "linux"  # elsewhere libraries that were imported need not survive it
LOOK_SECONDS = 0.005  # between two looks at a child that is to end


def may_fork() -> bool:
    """Whether a fork of this process would be as good as a process of its own: on Linux, and no thread would be lost.

    A lost thread may hold a lock, or be one of a library's that waits for its work.
    """
    return FORKS and len(list(Path("/proc/self/task").iterdir())) == 1


class Fork:
    """A child that works in a session of its own, with a pipe for its standard input.

    Args:
        work: what it does; its exit code is 0 unless that raises or exits.
        output: takes what it writes on standard output and standard error.
    """

    def __init__(self, work: Callable[[], object], output: IO[bytes]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()  # else the child would write it again
        sys.stderr.flush()
        end, start = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.setsid()
            os.close(start)
            for number, file in enumerate((end, output.fileno(), output.fileno())):
                os.dup2(file, number)
            sys.stdin, sys.stdout, sys.stderr = (open(number, mode) for number, mode in enumerate("rww"))  # noqa: SIM115
            leave(work)
        os.close(end)
        self.stdin: IO[bytes] | None = os.fdopen(start, "wb")

    def poll(self) -> int | None:
        """The exit code, negative for a signal; None while it runs."""
        if self.returncode is None:
            child, status = os.waitpid(self.pid, os.WNOHANG)
            if child:
                self.returncode = os.waitstatus_to_exitcode(status)
        return self.returncode

    def wait(self, timeout: float = float("inf")) -> int:
        """Wait for it to end; `subprocess.TimeoutExpired` where it takes longer."""
        deadline = time.monotonic() + timeout
        while (code := self.poll()) is None:
            if time.monotonic() > deadline:
                raise subprocess.TimeoutExpired("a fork", timeout)
            time.sleep(LOOK_SECONDS)
        return code

    def terminate(self) -> None:
        """Ask it to end."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """End it."""
        if self.poll() is None:
            os.kill(self.pid, signal.SIGKILL)
