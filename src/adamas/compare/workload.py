"""A workload: a named training job with the metric it is judged by, described without importing what it trains with."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from adamas.compare.job import JobFactory


@dataclass(frozen=True)
class Workload:
    """What is trained and how it is judged.

    Attributes:
        name: what the user types.
        factory: "module:function"; the function takes (seed, device) and returns a `Job`.
        metric: the primary metric in `Job.evaluate`'s figures; lower is better.
        summary: one sentence for the report.
        revision: raised whenever the job changes what it computes, so that old trials are not mixed with new ones.
        device: where it trains.
    """

    name: str
    factory: str
    metric: str
    summary: str
    revision: int = 1
    device: str = "cpu"

    def load(self) -> JobFactory:
        """Import the factory."""
        module, _, function = self.factory.partition(":")
        if not function:
            raise ValueError(f"factory={self.factory!r} must name a function, as in 'my_job:job'")
        return getattr(importlib.import_module(module), function)
