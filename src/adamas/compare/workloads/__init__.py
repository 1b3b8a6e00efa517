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
            expected="A tie: gradients of one scale, a short run, a network that needs little help.",
        ),
        Workload(
            name="chars",
            factory="adamas.compare.workloads.chars:job",
            metric="cross_entropy",
            summary=(
                "A two-layer transformer reads 20,000 characters of a made-up language 40 times and predicts the next "
                "one: there is a grammar to learn and every sentence to memorise, so decay is expected to help, and "
                "AdamW's at a hundred times its default; 10,000 other characters choose, 10,000 test. Cross-entropy is "
                "in nats per character."
            ),
        ),
    )
}


def find(name: str) -> Workload:
    """Return the workload called `name`; the error lists the known ones."""
    if name not in WORKLOADS:
        raise ValueError(
            f"unknown workload {name!r}; the known ones are: {', '.join(sorted(WORKLOADS))}; a job of your own is "
            "given as my_job.py:job, and adamas compare --init my_job.py writes one to start from"
        )
    return WORKLOADS[name]
