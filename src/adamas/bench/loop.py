"""The loop of a run: one task after another until the time is up. Every finished row is kept at once."""

from __future__ import annotations

import math
import signal
import threading
import time
from collections.abc import Callable, Generator, Iterable
from contextlib import contextmanager
from pathlib import Path
from types import FrameType

from adamas.bench.harness import said
from adamas.bench.peers import implementation, versions
from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.scenario import Scenario

SPARE = 5.0  # seconds before the deadline at which no task begins, and at which a running one is cut short

Task = tuple[Scenario, str]  # a scenario, and the name of an implementation


class OverdueError(BaseException):
    """The time is up. This is no Exception, so that it is not mistaken for a peer's refusal."""


def run(
    tasks: Iterable[Task],
    measure: Callable[[Scenario, str], Row],
    result: Result,
    path: Path | None,
    tell: Callable[[Row], object],
    seconds: float = math.inf,
    now: Callable[[], float] = time.monotonic,
) -> str | None:
    """Measure tasks in their order, and return why the run ended before its last task, or None.

    Args:
        tasks: what to measure.
        measure: returns the row of a task.
        result: where each row is added as soon as it is measured.
        path: file that is written with each row; None for no file.
        tell: is called with each row.
        seconds: time for all tasks.
        now: clock to read.
    """
    start = now()

    def keep() -> None:
        result.seconds = None if math.isinf(seconds) else now() - start
        if path is not None:
            result.write(path)

    keep()  # a folder that cannot be written is known now, not after the first row
    for scenario, name in tasks:
        left = seconds - (now() - start) - SPARE
        if left <= 0:
            return f"no time was left after {now() - start:.0f} s of {seconds:.0f}"
        try:
            with cut_after(left):
                row = measure(scenario, name)
        except OverdueError:
            return f"the run was cut short after {now() - start:.0f} s of {seconds:.0f}"
        except KeyboardInterrupt:  # `timeout` sends the same signal: finished rows are kept
            return f"the run was interrupted after {now() - start:.0f} s"
        except Exception as error:
            row = blank(scenario, name, f"could not be measured: {said(error)}")
        result.add(row)
        keep()
        tell(row)
    result.complete = True
    keep()
    return None


def blank(scenario: Scenario, name: str, reason: str) -> Row:
    """Return a row that says why nothing was measured."""
    return Row.of(scenario, name, versions(implementation(name)), reason)


@contextmanager
def cut_after(seconds: float) -> Generator[None]:
    """Raise `OverdueError` inside this context when it lasts longer, where the system has an alarm for it."""
    in_main_thread = threading.current_thread() is threading.main_thread()
    if math.isinf(seconds) or not hasattr(signal, "setitimer") or not in_main_thread:
        yield
        return

    def ring(number: int, frame: FrameType | None) -> None:
        raise OverdueError

    before = signal.signal(signal.SIGALRM, ring)
    # The alarm repeats, because an exception that is raised inside of a destructor is lost.
    signal.setitimer(signal.ITIMER_REAL, max(seconds, 1e-3), 2.0)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
