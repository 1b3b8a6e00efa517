"""A barrier in front of the slow job's runs: a test knows who is in a run, and says when runs go on."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

FOLDER, TOOL = "TINY_JOB_BARRIER", "TINY_JOB_TOOL"  # in the environment: the folder, and the tool's process
PATIENCE_SECONDS = 120  # of a run whose test is gone


class Barrier:
    """A folder that the test and the tool's processes share.

    Args:
        folder: is made if it is not there.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self._folder = folder
        self._runs = folder / "runs"
        self._tools = folder / "tools"
        self._tickets = folder / "tickets"
        self._open = folder / "open"
        self._begun = folder / "begun"
        for each in (self._runs, self._tickets, self._tools):
            each.mkdir(exist_ok=True)

    @classmethod
    def of_environment(cls) -> Barrier | None:
        """The barrier that a test put in front of this process."""
        return cls(Path(os.environ[FOLDER])) if FOLDER in os.environ else None

    @property
    def environment(self) -> dict[str, str]:
        """What the tool's processes are to find in theirs."""
        return {FOLDER: str(self._folder)}

    def __enter__(self) -> Barrier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Hold nobody back whose test is over."""
        self.begin()
        self.open()

    def ready(self) -> int:
        """How many tools are about to begin."""
        return len(list(self._tools.iterdir()))

    def begin(self) -> None:
        """Let the tools begin, all at the same moment."""
        self._begun.touch()

    def working(self, tool: int) -> list[int]:
        """The workers of a tool that are in a run."""
        found: list[int] = []
        for run in self._runs.iterdir():
            with suppress(FileNotFoundError):  # it went on meanwhile
                if run.read_text() == str(tool):
                    found.append(int(run.name))
        return sorted(found)

    def forget(self, worker: int) -> None:
        """Take note that a worker is dead."""
        (self._runs / str(worker)).unlink(missing_ok=True)

    def let_through(self, worker: int) -> None:
        """Let a worker's run go on."""
        (self._tickets / str(worker)).touch()

    def open(self) -> None:
        """Let all runs go on from now on."""
        self._open.touch()

    def tool_arrives(self) -> None:
        """Called by a tool: runs of its workers are to be told from others'."""
        os.environ[TOOL] = str(os.getpid())

    def tool_begins(self) -> None:
        """Called by a tool before it begins: wait for the others."""
        (self._tools / str(os.getpid())).touch()
        wait_while(lambda: not self._begun.exists())

    def run_begins(self) -> None:
        """Called by the job at the beginning of a run: wait until it may go on."""
        run, ticket = self._runs / str(os.getpid()), self._tickets / str(os.getpid())
        run.write_text(os.environ[TOOL])
        wait_while(lambda: not self._open.exists() and not ticket.exists())
        run.unlink(missing_ok=True)
        ticket.unlink(missing_ok=True)


def wait_while(held: Callable[[], bool]) -> None:
    """Wait as long as a test may take."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while held() and time.monotonic() < deadline:
        time.sleep(0.005)
