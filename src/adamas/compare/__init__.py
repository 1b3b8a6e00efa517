"""Does a training job want Adam with L2 or AdamW, and with what weight decay? `compare` answers with evidence.

`compare(job)` runs a study and returns a `StudyResult`; `check(job)` looks a job over without training it. A job is a
function of (seed, device) that returns a `Job` or an `OwnLoop`. `adamas compare` is the same on the command line.

Everything else is private to the package. Start with `api`, which brings the rooms together: `job` (what is trained),
`study` (what is asked for), `runner` (gets runs done), `search` (which runs are next), `verdict` (what they mean) and
`report` (shows it). `workloads` holds the built-in jobs.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from adamas.compare.api import check, compare
    from adamas.compare.job.job import Job, OwnLoop, constant, cosine
    from adamas.compare.study.errors import StudyError
    from adamas.compare.study_result import StudyResult

__all__ = ["Job", "OwnLoop", "StudyError", "StudyResult", "check", "compare", "constant", "cosine"]

_WHERE = {
    "Job": "job.job",
    "OwnLoop": "job.job",
    "StudyError": "study.errors",
    "StudyResult": "study_result",
    "check": "api",
    "compare": "api",
    "constant": "job.job",
    "cosine": "job.job",
}


def __getattr__(name: str) -> Any:
    """Import an exported name at its first use: a job's file needs `Job` alone, and not the report."""
    if name in _WHERE:
        return getattr(import_module(f"{__name__}.{_WHERE[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    """Return the names that the package exports."""
    return __all__
