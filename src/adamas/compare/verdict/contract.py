"""A study as plain data: the JSON that `--json` prints, and one row for each run.

Programs read the JSON: no key is added or renamed without a new `schema`.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from adamas.compare.search.record import Record
from adamas.compare.search.selection import FIRST_FINAL_SEED
from adamas.compare.study.run import Outcome, Run
from adamas.compare.verdict.result import ArmResult, Summary, finite
from adamas.compare.verdict.statistics import Difference

_SCHEMA = 2


def to_json(results: list[Summary]) -> dict[str, Any]:
    """Return finished studies as plain data."""
    return {"schema": _SCHEMA, "studies": [study(result) for result in results]}


def study(result: Summary) -> dict[str, Any]:
    """Return one study as plain data; a relative difference is a fraction of the mean of Adam with L2."""
    settings, verdict, difference = result.record.settings, result.verdict, result.difference
    record = result.record
    return {
        "workload": settings.workload.name,
        "metric": settings.workload.metric,
        "margin": settings.margin.value,
        "seeds": record.pairs,
        "verdict": {
            "kind": verdict.kind,
            "text": " ".join(part for part in (verdict.text, verdict.note) if part),
            "more_seeds": verdict.more_seeds,
            "chance": verdict.chance or None,
            "failed_search": verdict.failed or None,
            "extend": result.extend or None,
        },
        "difference": _difference(difference, settings.margin.relative),
        "over_none": {name: _difference(found, settings.margin.relative) for name, found in result.over_none.items()},
        "warnings": result.warnings,
        "conditions": settings.workload.conditions,
        "budget": settings.budget.name,
        "runs": {"total": len(record.outcomes), "failed": sum(not outcome.ok for outcome in record.outcomes.values())},
        "final_seeds": [FIRST_FINAL_SEED, FIRST_FINAL_SEED + record.pairs - 1],
        "versions": record.specification.get("versions", {}),
        "arms": {name: _arm(arm) for name, arm in result.arms.items()},
    }


def _difference(found: Difference | None, relative: bool) -> dict[str, Any]:
    """Return a difference as plain data; a relative one is a fraction of the second arm's mean."""
    return {
        "mean": found and found.mean,
        "low": found and found.low,
        "high": found and found.high,
        "relative": relative,
        "p_sign_flip": found and found.p_sign_flip,
        "p_better": found and found.p_better,
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
    return [row(run, outcome, metrics) for run, outcome in record.outcomes.items()]


def row(run: Run, outcome: Outcome, metrics: Iterable[str]) -> dict[str, Any]:
    """Return a run with its outcome as a dictionary, with a key for each of the metrics."""
    return {
        "stage": run.stage,
        "arm": run.arm,
        "lr": run.lr,
        "weight_decay": run.weight_decay,
        "weight_decay_paper": run.weight_decay_paper,
        "seed": run.seed,
        "variant": run.variant,
        "status": outcome.status,
        "message": outcome.message,
        **{f"validation_{metric}": outcome.validation.get(metric) for metric in metrics},
        **{f"test_{metric}": (outcome.test or {}).get(metric) for metric in metrics},
        "total_decay": outcome.total_decay,
        "steps": outcome.steps,
        "seconds": round(outcome.seconds, 3),
    }
