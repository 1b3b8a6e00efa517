"""A study as plain data: the JSON that `--json` prints, and one row for each run.

Programs read the JSON: no key is added or renamed without a new `schema`.
"""

from __future__ import annotations

from typing import Any

from adamas.compare.search.record import Record
from adamas.compare.verdict.result import ArmResult, Summary, finite

_SCHEMA = 1


def to_json(results: list[Summary]) -> dict[str, Any]:
    """Return finished studies as plain data."""
    return {"schema": _SCHEMA, "studies": [study(result) for result in results]}


def study(result: Summary) -> dict[str, Any]:
    """Return one study as plain data; a relative difference is a fraction of the mean of Adam with L2."""
    settings, verdict, difference = result.record.settings, result.verdict, result.difference
    text = " ".join(part for part in (verdict.text, verdict.note, result.settings_sentence, *result.warnings) if part)
    return {
        "workload": settings.workload.name,
        "metric": settings.workload.metric,
        "margin": settings.margin.value,
        "seeds": settings.seeds,
        "verdict": {"kind": verdict.kind, "text": text, "more_seeds": verdict.more_seeds},
        "difference": {
            "mean": difference and difference.mean,
            "low": difference and difference.low,
            "high": difference and difference.high,
            "relative": settings.margin.relative,
            "p_sign_flip": difference and difference.p_sign_flip,
            "p_better": difference and difference.p_better,
        },
        "arms": {name: _arm(arm) for name, arm in result.arms.items()},
    }


def _arm(arm: ArmResult) -> dict[str, Any]:
    """Return the figures of one arm as plain data."""
    return {
        "lr": arm.lr,
        "weight_decay": arm.weight_decay,
        "weight_decay_independent": arm.weight_decay_paper,
        "trials": arm.trials,
        "infeasible": arm.without_figures,
        "validation": {"mean": finite(arm.validation.mean), "sd": finite(arm.validation.sd)},
        "test": {
            metric: {"mean": finite(figures.mean), "sd": finite(figures.sd), "values": list(figures.values)}
            for metric, figures in arm.test.items()
        },
    }


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
