"""Inspect a job as `compare` does, for tests of jobs."""

from __future__ import annotations

from adamas.compare import api
from adamas.compare.study.margin import Margin
from adamas.compare.study.settings import Options
from adamas.compare.study.workload import Workload


def look_over(name: str, device: str = "cpu", metric: str | None = None, margin: Margin | None = None) -> Workload:
    """Return the workload of a job that `compare` inspected, or raise an error that says why it is unusable."""
    return api.look_over(
        name, Options.read(device=device, metric=metric, margin=None if margin is None else str(margin))
    )
