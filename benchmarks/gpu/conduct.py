"""Measure one task after another until the time is up; each has a row, if only with a reason."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from adamas.bench.pair import said
from benchmarks.gpu.deadline import Deadline, OverdueError, cut_after
from benchmarks.gpu.plan import Task

SPARE = 5.0  # seconds before the deadline at which nothing more is begun, and what runs is cut short


def conduct(
    tasks: Iterable[Task],
    measure: Callable[[Task], Any],
    blank: Callable[[Task, str], Any],
    deadline: Deadline,
    keep: Callable[[Any], None],
) -> bool:
    """Measure tasks in their order.

    Args:
        tasks: what to measure.
        measure: gives the row of a task.
        blank: gives a row with a reason.
        deadline: when to be done.
        keep: is given each row at once.

    Returns:
        Whether every task was reached.
    """
    ended = None  # why no more is measured
    for task in tasks:
        left = deadline.left() - SPARE
        if ended is None and left <= 0:
            ended = f"not reached within {deadline.seconds:.0f} s"
        if ended is not None:
            keep(blank(task, ended))
            continue
        try:
            with cut_after(left):
                row = measure(task)
        except OverdueError:
            ended = f"not reached within {deadline.seconds:.0f} s"
            row = blank(task, f"cut short after {deadline.spent():.0f} s of the run")
        except KeyboardInterrupt:  # also how `timeout` ends it: what is finished is kept
            ended = f"not reached: interrupted after {deadline.spent():.0f} s"
            row = blank(task, ended)
        except Exception as error:
            row = blank(task, f"could not be measured: {said(error)}")
        keep(row)
    return ended is None
