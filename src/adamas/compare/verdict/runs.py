"""Every run of a study as rows of plain data: for a data frame and for the CSV of the report."""

from __future__ import annotations

from typing import Any

from adamas.compare.search.record import Record


def rows_of(record: Record) -> list[dict[str, Any]]:
    """Return one dictionary for each run, pilot and finals included, all with the same keys.

    A figure that was not measured is None: a run that is not "ok" has no figures, and only finalists are tested.
    """
    metrics = sorted({name for outcome in record.outcomes.values() for name in outcome.validation})
    return [
        {
            "stage": run.stage,
            "arm": run.arm,
            "lr": run.lr,
            "weight_decay": run.weight_decay,
            "weight_decay_paper": run.weight_decay_paper,
            "seed": run.seed,
            "variant": run.variant,
            "status": outcome.status,
            **{f"validation_{metric}": outcome.validation.get(metric) for metric in metrics},
            **{f"test_{metric}": (outcome.test or {}).get(metric) for metric in metrics},
            "total_decay": outcome.total_decay,
            "steps": outcome.steps,
            "seconds": round(outcome.seconds, 3),
        }
        for run, outcome in record.outcomes.items()
    ]
