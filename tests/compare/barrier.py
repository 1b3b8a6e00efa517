"""A barrier before the runs of the slow job: a test knows which workers are in a run, and lets them continue."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from types import TracebackType

FOLDER, TOOL = "TINY_JOB_BARRIER", "TINY_JOB_TOOL"  # environment variables: the folder, and the process of the tool
PATIENCE_SECONDS = 120  # that a run waits, in case its test is gone


class Barrier:
    """Holds runs back, by means of files in a folder that the test and the processes of the tool share.

    Args:
        folder: The folder, made if it is missing.
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
        """Return the barrier that a test put before this process; None if there is none."""
        return cls(Path(os.environ[FOLDER])) if FOLDER in os.environ else None

    @property
    def environment(self) -> dict[str, str]:
        """The environment variables that the processes of the tool need."""
        return {FOLDER: str(self._folder)}

    def __enter__(self) -> Barrier:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Let all tools and runs continue at the end of the test."""
        self.begin()
        self.open()

    def ready(self) -> int:
        """Return the number of tools that are ready to begin."""
        return len(list(self._tools.iterdir()))

    def begin(self) -> None:
        """Let all tools begin at the same moment."""
        self._begun.touch()

    def working(self, tool: int) -> list[int]:
        """Return the workers of a tool that are in a run."""
        found: list[int] = []
        for run in self._runs.iterdir():
            with suppress(FileNotFoundError):  # the run continued meanwhile
                if run.read_text() == str(tool):
                    found.append(int(run.name))
        return sorted(found)

    def forget(self, worker: int) -> None:
        """Remove a dead worker from those in a run."""
        (self._runs / str(worker)).unlink(missing_ok=True)

    def let_through(self, worker: int) -> None:
        """Let the run of one worker continue."""
        (self._tickets / str(worker)).touch()

    def open(self) -> None:
        """Let all runs continue from now on."""
        self._open.touch()

    def tool_arrives(self) -> None:
        """Mark the workers of this process as its own; a tool calls this."""
        os.environ[TOOL] = str(os.getpid())

    def tool_begins(self) -> None:
        """Wait for the other tools; a tool calls this before it begins."""
        (self._tools / str(os.getpid())).touch()
        wait_while(lambda: not self._begun.exists())

    def run_begins(self) -> None:
        """Wait until the run may continue; the job calls this at the beginning of a run."""
        run, ticket = self._runs / str(os.getpid()), self._tickets / str(os.getpid())
        run.write_text(os.environ[TOOL])
        wait_while(lambda: not self._open.exists() and not ticket.exists())
        run.unlink(missing_ok=True)
        ticket.unlink(missing_ok=True)


def wait_while(held: Callable[[], bool]) -> None:
    """Wait while the condition holds, but not longer than a test may take."""
    deadline = time.monotonic() + PATIENCE_SECONDS
    while held() and time.monotonic() < deadline:
        time.sleep(0.005)
