"""A workload: a named training job with the metric it is judged by, described without importing what it trains with."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

from adamas import user_code

if TYPE_CHECKING:
    from adamas.compare.job.job import JobFactory


@dataclass(frozen=True)
class Workload:
    """What is trained and how it is judged.

    Attributes:
        name: what the user types.
        factory: "module:function" or "file.py:function"; the function takes (seed, device) and returns a `Job` or an
            `OwnLoop`.
        metric: the primary metric in `Job.evaluate`'s figures; lower is better. Empty: the job says it.
        summary: one sentence for the report.
        expected: what it is expected to show, and why.
        margin: the smallest difference that matters, unless the user gives another.
        revision: changes whenever the job changes what it computes, so that old trials are not mixed with new ones.
        device: where it trains.
        stackable: whether several copies of its weights train together; found out by the preflight.
        groups: whether it has parameter groups of its own; found out by the preflight.
        seeds_together: whether copies of several seeds do: batches are alike in shape and come from generators of the
            job's own, and the loss depends on weights and batch alone. For built-in workloads, of which tests know it.
        variants: names and factories of jobs that differ from it in one thing; a sweep over decay is made on each.
        fixed: (arm, lr, weight_decay) of every arm, where theory gives them and nothing is to be tuned.
        findings: "module:function" that holds a finished study against what was expected.
        typed: what the user typed for a job of their own.
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
    seeds_together: bool = False
    variants: tuple[tuple[str, str], ...] = ()
    fixed: tuple[tuple[str, float, float], ...] = ()
    findings: str = ""
    typed: str = ""

    def load(self, variant: str = "") -> JobFactory:
        """Import the factory of the job, or of one of its variants."""
        where = dict(self.variants)[variant] if variant else self.factory
        return user_code.function(where, "job", "an adamas.compare.Job")

    def to_json(self) -> dict[str, Any]:
        """As plain data."""
        return asdict(self)

    @classmethod
    def from_json(cls, data: dict[str, Any]) -> Workload:
        """Inverse of `to_json`, after a trip through JSON."""
        pairs: dict[str, Any] = {key: tuple(map(tuple, data[key])) for key in ("variants", "fixed")}
        return cls(**(data | pairs))
