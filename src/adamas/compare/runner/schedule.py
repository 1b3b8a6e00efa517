"""Which runs are next: those of one arm, or those of several arms that go through a study together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from adamas.compare.runner.tasks import tasks
from adamas.compare.search.protocol import Course
from adamas.compare.study.run import STAGES, Outcome
from adamas.compare.study.workload import Workload


class Company:
    """Courses that go on together: of what they ask for, the runs of the earliest stage are next, laid out as one.

    Runs that share a pass gain more from company than from not having to wait for it.

    Args:
        courses: not begun.
        workload: of the runs.
        shares: tasks to cut a stage into: see `adamas.compare.runner.tasks.tasks`.
    """

    def __init__(self, courses: Iterable[Course], workload: Workload, shares: int) -> None:
        self._workload = workload
        self._shares = shares
        self._asked = {course: next(course) for course in courses}
        self._lay_out()

    def _lay_out(self) -> None:
        first = min((asked.stage for asked in self._asked.values()), key=STAGES.index)
        self._next = {course: asked for course, asked in self._asked.items() if asked.stage == first}
        cells = [cell for asked in self._next.values() for cell in asked.cells]
        may_give_up = all(asked.may_give_up for asked in self._next.values())
        self.tasks = tasks(cells, self._workload, may_give_up, self._shares)

    def go_on(self, done: Mapping[str, Outcome]) -> bool:
        """Go as far as these outcomes, by the key of their cell, allow; False where every course is at its end."""
        while self._asked and all(cell.key in done for task in self.tasks for cell in task.cells):
            for course, asked in self._next.items():
                try:
                    self._asked[course] = course.send({cell: done[cell.key] for cell in asked.cells})
                except StopIteration:
                    del self._asked[course]
            if self._asked:
                self._lay_out()
        return bool(self._asked)
