"""`adamas compare`: does a training job want Adam with L2 or AdamW, and with what weight decay?

The modules, in order of use: `job` (what a training job is), `workloads` (those that are built in), `preflight` (looks
a job over), `arms` (the candidates), `budgets`, `pilot`, `grids` and `followup` (what is tried), `stages` (the
protocol), `company` (whose runs are next), `study` (gets them done, through Optuna), `crew` and `worker` (the processes
that do), `training` (trains them), `statistics` and `verdict` (what it
means), `report` (the page).
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adamas.compare.job.job import Job, OwnLoop, constant, cosine

__all__ = ["Job", "OwnLoop", "constant", "cosine"]


def __getattr__(name: str) -> Any:
    """What a job is made of, imported when asked for: the command line starts its workers before it imports torch."""
    if name in __all__:
        return getattr(import_module("adamas.compare.job.job"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
