"""What happens when the time is up, by a clock that tasks move."""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, field, replace
from pathlib import Path

import pytest

from adamas.bench.clock import Effort
from adamas.bench.device import Cpu
from adamas.bench.loop import SPARE, OverdueError, cut_after, run
from adamas.bench.result import Result
from adamas.bench.row import Row
from adamas.bench.scenario import Scenario
from tests.bench.conftest import row

TASKS = [(Scenario(name, ((3,),)), "torch") for name in "abcd"]


@dataclass
class Run:
    """Tasks that take a made-up time."""

    seconds: float
    path: Path
    now: float = 0.0
    told: list[str] = field(default_factory=list)
    result: Result = field(default_factory=lambda: Result.of(Cpu(), Effort()))

    def measure(self, scenario: Scenario, name: str) -> Row:
        assert len(Result.read(self.path).rows) == len(self.result.rows)  # each is written before the next begins
        self.now += self.seconds
        return replace(row(), scenario=scenario.name)

    def until(self, seconds: float) -> str | None:
        tell = self.told.append
        return run(
            TASKS, self.measure, self.result, self.path, lambda row: tell(row.scenario), seconds, lambda: self.now
        )

    @property
    def kept(self) -> list[str]:
        result = Result.read(self.path)
        assert [row.scenario for row in result.rows] == self.told
        return [row.reason or "measured" for row in result.rows]


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "rows.json"


def test_everything_is_measured_where_there_is_time(path: Path) -> None:
    made = Run(10, path)
    assert made.until(1000) is None
    assert made.result.complete
    assert made.result.seconds == 40
    assert made.until(math.inf) is None
    assert made.result.seconds is None
    assert made.kept == ["measured"] * 8


def test_nothing_is_begun_too_late(path: Path) -> None:
    made = Run(10, path)
    assert made.until(20 + SPARE) == "no time was left after 20 s of 25"
    assert made.kept == ["measured", "measured"]


def test_a_row_that_takes_too_long_is_cut_short(path: Path) -> None:
    class Slow(Run):
        def measure(self, scenario: Scenario, name: str) -> Row:
            self.now += 1000
            raise OverdueError

    made = Slow(0, path)
    assert made.until(30) == "the run was cut short after 1000 s of 30"
    assert made.kept == []


def test_an_interrupt_ends_the_run_and_keeps_its_rows(path: Path) -> None:
    class Interrupted(Run):
        def measure(self, scenario: Scenario, name: str) -> Row:
            if scenario.name == "c":
                raise KeyboardInterrupt
            return super().measure(scenario, name)

    made = Interrupted(10, path)
    assert made.until(1000) == "the run was interrupted after 20 s"
    assert made.kept == ["measured", "measured"]


def test_a_failure_is_a_row_and_not_the_end(path: Path) -> None:
    class Failing(Run):
        def measure(self, scenario: Scenario, name: str) -> Row:
            if scenario.name == "b":
                raise RuntimeError("CUDA error: out of luck\nand a long trace")
            return super().measure(scenario, name)

    made = Failing(1, path)
    assert made.until(1000) is None
    assert made.kept[1] == "could not be measured: RuntimeError: CUDA error: out of luck"
    assert made.kept.count("measured") == 3


def test_the_alarm_rings_and_is_put_away() -> None:
    with pytest.raises(OverdueError), cut_after(0.01):
        time.sleep(5)
    with cut_after(0.01):
        pass
    time.sleep(0.03)


def test_overdue_is_no_refusal() -> None:
    assert not issubclass(OverdueError, Exception)
