"""The built-in workloads by name. None downloads anything."""

from __future__ import annotations

from adamas.compare.workload import Workload

WORKLOADS = {
    workload.name: workload
    for workload in (
        Workload(
            name="digits",
            factory="adamas.compare.workloads.digits:job",
            metric="cross_entropy",
            summary=(
                "Handwritten digits that ship with scikit-learn, a fifth of their labels shuffled: a 64-256-256-10 "
                "network learns from 500 images and could memorise them; 500 others choose, 797 test. Cross-entropy "
                "is against the labels as given, accuracy against the true classes."
            ),
        ),
    )
}


def find(name: str) -> Workload:
    """Return the workload called `name`; the error lists the known ones."""
    if name not in WORKLOADS:
        raise ValueError(f"unknown workload {name!r}; the known ones are: {', '.join(sorted(WORKLOADS))}")
    return WORKLOADS[name]
