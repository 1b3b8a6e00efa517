"""A task: the cells that one worker trains together, laid out before anybody knows who the workers are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import accumulate
from typing import Any

from adamas.compare.study.run import Cell, Stage
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
        may_give_up: whether runs that fit nothing half-way are stopped.
    """

    cells: tuple[Cell, ...]
    metric: str
    may_give_up: bool = False

    @property
    def seed(self) -> int:
        """The first cell's seed."""
        return self.cells[0].seed

    @property
    def seeds(self) -> tuple[int, ...]:
        """The cells' seeds, each once."""
        return tuple(dict.fromkeys(cell.seed for cell in self.cells))

    @property
    def stage(self) -> Stage:
        """The cells' stage."""
        return self.cells[0].stage

    @property
    def variant(self) -> str:
        """The cells' variant of the job."""
        return self.cells[0].variant

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "stage": self.stage,
            "variant": self.variant,
            "metric": self.metric,
            "may_give_up": self.may_give_up,
            "cells": [[cell.arm, cell.lr, cell.weight_decay, cell.seed] for cell in self.cells],
        }

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Task:
        """Inverse of `to_json`."""
        stage, variant = data["stage"], data["variant"]
        cells = tuple(Cell(stage, arm, lr, decay, seed, variant) for arm, lr, decay, seed in data["cells"])
        return cls(cells, data["metric"], data["may_give_up"])


def tasks(cells: Iterable[Cell], workload: Workload, may_give_up: bool, shares: int) -> list[Task]:
    """Lay out tasks: of several cells that can share a pass, or of one cell each; the largest first.

    Seeds stay together, so that few batches are made and a pair's runs are neighbours in time. Where the cells are too
    few for two stacks they are tasks of their own, however many shares there are to be.

    Args:
        cells: of one stage.
        workload: says whether they can share.
        may_give_up: whether runs that fit nothing half-way are stopped.
        shares: tasks that there should be at least, so that as many workers have something to do.
    """
    wanted = sorted(dict.fromkeys(cells), key=lambda cell: cell.seed)
    groups: dict[tuple[str, str, int | None], list[Cell]] = {}
    for cell in wanted:
        seed = None if workload.seeds_together else cell.seed
        groups.setdefault((cell.stage, cell.variant, seed), []).append(cell)
    most = min(STACKED, max(STACK, -(-len(wanted) // shares)))
    stacks = workload.stackable and len(wanted) >= 2 * STACK - 1
    parts = [part for group in groups.values() for part in evenly(group, most if stacks and len(group) >= STACK else 1)]
    return [Task(tuple(part), workload.metric, may_give_up) for part in sorted(parts, key=len, reverse=True)]


def evenly(cells: list[Cell], most: int) -> list[list[Cell]]:
    """Cut into parts of `most` at most, of nearly the same size.

    Example:
        >>> [len(part) for part in evenly([Cell("search", "adamw", 1e-3, 0.1, 0)] * 7, most=3)]
        [3, 2, 2]
    """
    count = -(-len(cells) // most)
    sizes = [len(cells) // count + (part < len(cells) % count) for part in range(count)]
    ends = list(accumulate(sizes))
    return [cells[end - size : end] for size, end in zip(sizes, ends, strict=True)]
