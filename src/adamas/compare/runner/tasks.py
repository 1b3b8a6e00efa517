"""Divide the runs that a search requests into tasks: a worker trains the runs of one task together."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from adamas.compare.study.run import STAGES, Outcome, Requests, Run, Stage
from adamas.compare.study.workload import Workload

STACKED = 20  # runs of a task at most: a larger pass gains little, and a worker that dies loses more
_STACK = 3  # runs of a stack at least: two runs in one pass are hardly faster than one after the other


@dataclass(frozen=True)
class Task:
    """Runs of one stage and variant, and of one seed where seeds cannot share a pass.

    The tasks depend on the study and on the cores of the machine that began it, never on the number of workers. A task
    is computed whole even if some of its runs have finished before. Otherwise a figure could depend on when a worker
    died, if a batched product rounds differently with fewer runs.

    Attributes:
        runs: The runs that train together.
        metric: The primary metric, which the points of a finalist's curve show.
        may_prune: Whether a run is stopped half-way if it has learned nothing by then.
    """

    runs: tuple[Run, ...]
    metric: str
    may_prune: bool = False

    @property
    def seed(self) -> int:
        """The seed of the first run."""
        return self.runs[0].seed

    @property
    def seeds(self) -> tuple[int, ...]:
        """The seeds of the runs, each once."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    @property
    def stage(self) -> Stage:
        """The stage that all of these runs belong to."""
        return self.runs[0].stage

    @property
    def variant(self) -> str:
        """The variant of the job that all of these runs train."""
        return self.runs[0].variant

    def to_json(self) -> dict[str, Any]:
        """Return the task as plain data."""
        return {
            "stage": self.stage,
            "variant": self.variant,
            "metric": self.metric,
            "may_prune": self.may_prune,
            "runs": [[run.arm, run.lr, run.weight_decay, run.seed] for run in self.runs],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        """Read what `to_json` returned, after a trip through JSON."""
        stage, variant = data["stage"], data["variant"]
        runs = tuple(Run(stage, arm, lr, decay, seed, variant) for arm, lr, decay, seed in data["runs"])
        return cls(runs, data["metric"], data["may_prune"])


def tasks(runs: Iterable[Run], workload: Workload, may_prune: bool, shares: int) -> list[Task]:
    """Divide runs into tasks, the largest first; a task has several runs only if they can share a pass.

    Runs of one seed stay together: then few batches are made, and the runs of a pair train at nearly the same time. If
    the runs do not fill two stacks, each is a task, however large `shares` is.

    Args:
        runs: Runs of one stage.
        workload: The workload of the runs, which says whether they can share a pass.
        may_prune: Whether a run is stopped half-way if it has learned nothing by then.
        shares: The least number of tasks, so that this many workers have something to train.
    """
    wanted = sorted(dict.fromkeys(runs), key=lambda run: run.seed)
    groups: dict[tuple[str, str, int | None], list[Run]] = {}
    for run in wanted:
        seed = None if workload.seeds_together else run.seed
        groups.setdefault((run.stage, run.variant, seed), []).append(run)
    most = min(STACKED, max(_STACK, -(-len(wanted) // shares)))
    stacks = workload.stackable and len(wanted) >= 2 * _STACK - 1
    parts = [
        part for group in groups.values() for part in _evenly(group, most if stacks and len(group) >= _STACK else 1)
    ]
    return [Task(tuple(part), workload.metric, may_prune) for part in sorted(parts, key=len, reverse=True)]


def _evenly(runs: list[Run], most: int) -> list[list[Run]]:
    """Return parts of nearly the same size, each of at most `most` runs."""
    count = -(-len(runs) // most)
    sizes = [len(runs) // count + (part < len(runs) % count) for part in range(count)]
    return [runs[end - size : end] for size, end in zip(sizes, accumulate(sizes), strict=True)]


class Schedule:
    """Searches that go on together: of the runs that they request, those of the earliest stage are next.

    Runs that share a pass gain more from a larger pass than they lose by waiting for the slowest search.

    Args:
        searches: Generators of requests, not yet started.
        workload: The workload of the runs.
        shares: The least number of tasks of a stage: see `tasks`.

    Attributes:
        tasks: The tasks that are next.
    """

    def __init__(self, searches: Iterable[Requests], workload: Workload, shares: int) -> None:
        self._workload = workload
        self._shares = shares
        first = ((search, next(search, None)) for search in searches)
        self._requests = {search: request for search, request in first if request is not None}
        self.tasks: list[Task] = []
        if self._requests:
            self._set_tasks()

    def _set_tasks(self) -> None:
        """Divide the requested runs of the earliest stage into tasks."""
        first = min((request.stage for request in self._requests.values()), key=STAGES.index)
        self._next = {search: request for search, request in self._requests.items() if request.stage == first}
        runs = [run for request in self._next.values() for run in request.runs]
        may_prune = all(request.may_prune for request in self._next.values())
        self.tasks = tasks(runs, self._workload, may_prune, self._shares)

    def advance(self, done: Mapping[str, Outcome]) -> bool:
        """Advance the searches as far as the outcomes allow; return False if every search is at its end.

        Args:
            done: The outcomes by the key of their run.
        """
        while self._requests and all(run.key in done for task in self.tasks for run in task.runs):
            for search, request in self._next.items():
                try:
                    self._requests[search] = search.send({run: done[run.key] for run in request.runs})
                except StopIteration:
                    del self._requests[search]
            if self._requests:
                self._set_tasks()
        return bool(self._requests)
