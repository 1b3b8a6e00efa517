"""A task: the cells that one worker trains together, laid out before anybody knows who the workers are."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from adamas.compare.study.run import STAGES, Outcome, Requests, Run, Stage
from adamas.compare.study.workload import Workload

STACKED = 20  # cells of a task at most: more gain little, and a worker that dies has more to do again
STACK = 3  # and at least, where any are stacked: two are little faster than one by one, or slower


@dataclass(frozen=True)
class Task:
    """Cells of one stage and variant, and of one seed where seeds cannot share a pass.

    Which cells make a task depends on the study alone, and on the cores of the machine that began it: never on how
    many workers there are. A task is computed whole even where some of its cells are finished already, so that a result
    could not depend on who died when, were a batched product ever to round differently in other company.

    Attributes:
        cells: what is trained.
        metric: the primary one, for looks on the way.
        may_prune: whether runs that fit nothing half-way are stopped.
    """

    runs: tuple[Run, ...]
    metric: str
    may_prune: bool = False

    @property
    def seed(self) -> int:
        """The first cell's seed."""
        return self.runs[0].seed

    @property
    def seeds(self) -> tuple[int, ...]:
        """The cells' seeds, each once."""
        return tuple(dict.fromkeys(run.seed for run in self.runs))

    @property
    def stage(self) -> Stage:
        """The cells' stage."""
        return self.runs[0].stage

    @property
    def variant(self) -> str:
        """The cells' variant of the job."""
        return self.runs[0].variant

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "stage": self.stage,
            "variant": self.variant,
            "metric": self.metric,
            "may_give_up": self.may_prune,
            "cells": [[run.arm, run.lr, run.weight_decay, run.seed] for run in self.runs],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        """Inverse of `to_json`."""
        stage, variant = data["stage"], data["variant"]
        runs = tuple(Run(stage, arm, lr, decay, seed, variant) for arm, lr, decay, seed in data["cells"])
        return cls(runs, data["metric"], data["may_give_up"])


def tasks(runs: Iterable[Run], workload: Workload, may_prune: bool, shares: int) -> list[Task]:
    """Lay out tasks: of several cells that can share a pass, or of one cell each; the largest first.

    Seeds stay together, so that few batches are made and a pair's runs are neighbours in time. Where the cells are too
    few for two stacks they are tasks of their own, however many shares there are to be.

    Args:
        runs: Runs of one stage.
        workload: says whether they can share.
        may_prune: whether runs that fit nothing half-way are stopped.
        shares: tasks that there should be at least, so that as many workers have something to do.
    """
    wanted = sorted(dict.fromkeys(runs), key=lambda run: run.seed)
    groups: dict[tuple[str, str, int | None], list[Run]] = {}
    for run in wanted:
        seed = None if workload.seeds_together else run.seed
        groups.setdefault((run.stage, run.variant, seed), []).append(run)
    most = min(STACKED, max(STACK, -(-len(wanted) // shares)))
    stacks = workload.stackable and len(wanted) >= 2 * STACK - 1
    parts = [part for group in groups.values() for part in evenly(group, most if stacks and len(group) >= STACK else 1)]
    return [Task(tuple(part), workload.metric, may_prune) for part in sorted(parts, key=len, reverse=True)]


def evenly(runs: list[Run], most: int) -> list[list[Run]]:
    """Cut into parts of `most` at most, of nearly the same size.

    Example:
        >>> [len(part) for part in evenly([Cell("search", "adamw", 1e-3, 0.1, 0)] * 7, most=3)]
        [3, 2, 2]
    """
    count = -(-len(runs) // most)
    sizes = [len(runs) // count + (part < len(runs) % count) for part in range(count)]
    ends = list(accumulate(sizes))
    return [runs[end - size : end] for size, end in zip(sizes, ends, strict=True)]


class Schedule:
    """Searches that go on together: of the runs that they request, those of the earliest stage are next.

    Runs that share a pass gain more from a larger pass than they lose by waiting for the slowest search.

    Args:
        searches: Generators of requests, not yet started.
        workload: The workload of the runs.
        shares: The least number of tasks of a stage: see `tasks`.
    """

    def __init__(self, searches: Iterable[Requests], workload: Workload, shares: int) -> None:
        self._workload = workload
        self._shares = shares
        self._requests = {search: next(search) for search in searches}
        self._lay_out()

    def _lay_out(self) -> None:
        first = min((request.stage for request in self._requests.values()), key=STAGES.index)
        self._next = {search: request for search, request in self._requests.items() if request.stage == first}
        runs = [run for request in self._next.values() for run in request.runs]
        may_prune = all(request.may_prune for request in self._next.values())
        self.tasks = tasks(runs, self._workload, may_prune, self._shares)

    def advance(self, done: Mapping[str, Outcome]) -> bool:
        """Advance the searches as far as the outcomes allow; return False where every search is at its end.

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
                self._lay_out()
        return bool(self._requests)
