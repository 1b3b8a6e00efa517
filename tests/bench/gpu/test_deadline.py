"""What happens when the time is up, by a clock that tasks move."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

import pytest

from benchmarks.gpu.conduct import SPARE, conduct
from benchmarks.gpu.deadline import Deadline, OverdueError, cut_after
from benchmarks.gpu.plan import Comparison, Task, plan

TASKS = plan()[:4]


@dataclass
class Run:
    """Tasks that take a made-up time."""

    seconds: float
    now: float = 0.0
    kept: list[str] = field(default_factory=list)

    def measure(self, task: Task) -> str:
        self.now += self.seconds
        return "measured"

    def blank(self, task: Task, reason: str) -> str:
        return reason

    def conduct(self, deadline: float) -> bool:
        return conduct(TASKS, self.measure, self.blank, Deadline(deadline, lambda: self.now), self.kept.append)


def test_everything_is_measured_where_there_is_time() -> None:
    run = Run(10)
    assert run.conduct(1000)
    assert run.kept == ["measured"] * 4


def test_nothing_is_begun_too_late() -> None:
    run = Run(10)
    assert not run.conduct(20 + SPARE)
    assert run.kept == ["measured", "measured", *["not reached within 25 s"] * 2]


def test_a_row_that_takes_too_long_is_cut_short() -> None:
    class Slow(Run):
        def measure(self, task: Task) -> str:
            self.now += 1000
            raise OverdueError

    run = Slow(0)
    assert not run.conduct(30)
    assert run.kept == ["cut short after 1000 s of the run", *["not reached within 30 s"] * 3]


def test_an_interrupt_ends_the_run_and_keeps_its_rows() -> None:
    class Interrupted(Run):
        def measure(self, task: Task) -> str:
            if task == TASKS[2]:
                raise KeyboardInterrupt
            return super().measure(task)

    run = Interrupted(10)
    assert not run.conduct(1000)
    assert run.kept == ["measured", "measured", *["not reached: interrupted after 20 s"] * 2]


def test_a_failure_is_a_row_and_not_the_end() -> None:
    class Failing(Run):
        def measure(self, task: Task) -> str:
            if task == TASKS[1]:
                raise RuntimeError("CUDA error: out of luck\nand a long trace")
            return super().measure(task)

    run = Failing(1)
    assert run.conduct(1000)
    assert run.kept[1] == "could not be measured: RuntimeError: CUDA error: out of luck"
    assert run.kept.count("measured") == 3


def test_the_alarm_rings_and_is_put_away() -> None:
    with pytest.raises(OverdueError), cut_after(0.01):
        time.sleep(5)
    with cut_after(0.01):
        pass
    time.sleep(0.03)


def test_overdue_is_no_refusal() -> None:
    assert not issubclass(OverdueError, Exception)


def test_tasks_say_what_they_are() -> None:
    assert str(Comparison("1 x 1 G", "step", "packed16", "optimi")) == "1 x 1 G, step, packed16 beside optimi"
