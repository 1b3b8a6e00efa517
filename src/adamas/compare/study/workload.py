"""A workload: a named training job, with the metric by which a study judges it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from typing import Any

from adamas import user_code


@dataclass(frozen=True)
class Workload:
    """A named training job, with the metric by which a study judges it. It imports neither torch nor the job.

    Attributes:
        name: The name that the user types.
        factory: "module:function" or "file.py:function". The function takes (seed, device) and returns a `Job` or an
            `OwnLoop`.
        metric: The primary metric among the figures of `Job.evaluate`; lower is better, and "-top1" is the negative of
            the figure "top1". If empty, the job names it.
        summary: One sentence for the report.
        expected: The result that the workload was built to show, and why.
        margin: The smallest difference that matters, unless the user gives another.
        revision: A value that changes whenever the job computes something else, so that a study does not mix old
            trials with new ones.
        device: The device to train on.
        stackable: Whether several replicas of the weights train together; `inspect_job` finds this out.
        groups: Whether the job has its own parameter groups; `inspect_job` finds this out.
        schedule: The schedule of the learning rate: "cosine", "constant" or "own"; `inspect_job` finds this out.
        max_norm: The norm to which the job has its gradients clipped, or None; `inspect_job` finds this out.
        seeds_together: Whether replicas of several seeds train together. Their batches must have equal shapes and come
            from the job's own generators, and the loss must depend on weights and batch alone. It is true for built-in
            workloads only, and tests check these rules.
        variants: Names and factories of jobs that differ from the workload in one thing; a study sweeps the weight
            decay of each.
        fixed: (arm, lr, weight_decay) of every arm, if theory gives the settings and a study tunes nothing.
        findings: "module:function" that compares a finished study with the expected result.
        typed: The text that the user typed, if the workload is the user's job.
        function: The job, if the user gave a function; `to_json` leaves it out.
    """

    name: str
    factory: str
    metric: str
    summary: str
    expected: str = ""
    margin: str = "2%"
    revision: int | str = 1
    device: str = "cpu"
    stackable: bool = False
    groups: bool = False
    schedule: str = ""
    max_norm: float | None = None
    seeds_together: bool = False
    variants: tuple[tuple[str, str], ...] = ()
    fixed: tuple[tuple[str, float, float], ...] = ()
    findings: str = ""
    typed: str = ""
    function: Callable[..., Any] | None = field(default=None, compare=False)

    @property
    def conditions(self) -> str:
        """The schedule and the clipping that learning rates of the study hold for; empty where the job sets them."""
        named = {"cosine": "the cosine schedule", "constant": "a constant learning rate", "own": "the job's schedule"}
        parts = [named.get(self.schedule, ""), f"max_norm={self.max_norm:g}" if self.max_norm else ""]
        return " and ".join(filter(None, parts))

    def load(self, variant: str = "") -> Callable[..., Any]:
        """Return the function that makes the job, or a variant of the job, from (seed, device)."""
        if self.function is not None:
            return self.function
        where = dict(self.variants)[variant] if variant else self.factory
        return user_code.function(where, "job", "an adamas.compare.Job")

    def to_json(self) -> dict[str, Any]:
        """Return the workload as plain data."""
        data = asdict(self)
        del data["function"]
        return data

    @classmethod
    def from_json(cls, data: dict[str, Any], function: Callable[..., Any] | None = None) -> Workload:
        """Read what `to_json` returned, after a trip through JSON."""
        pairs: dict[str, Any] = {key: tuple(map(tuple, data[key])) for key in ("variants", "fixed")}
        return cls(**(data | pairs), function=function)
