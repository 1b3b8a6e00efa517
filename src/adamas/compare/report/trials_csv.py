"""Every run of a study as CSV."""

from __future__ import annotations

import csv
import io

from adamas.compare.verdict.result import StudyResult


def trials_csv(result: StudyResult) -> str:
    """A row a run, pilot and finals included; figures of infeasible runs and tests not taken are empty."""
    outcomes = result.record.outcomes
    metrics = sorted({name for outcome in outcomes.values() for name in outcome.validation})
    columns = [
        "stage",
        "arm",
        "lr",
        "weight_decay",
        "weight_decay_independent",
        "seed",
        "variant",
        "feasible",
        "given_up",
    ]
    figures = [f"{split}_{metric}" for split in ("validation", "test") for metric in metrics]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([*columns, *figures, "total_decay", "seconds"])
    for cell, outcome in outcomes.items():
        writer.writerow(
            [
                *(getattr(cell, column) for column in columns[:-2]),
                int(outcome.feasible),
                int(outcome.given_up),
                *(outcome.validation.get(metric, "") for metric in metrics),
                *((outcome.test or {}).get(metric, "") for metric in metrics),
                outcome.total_decay,
                round(outcome.seconds, 3),
            ]
        )
    return text.getvalue()
