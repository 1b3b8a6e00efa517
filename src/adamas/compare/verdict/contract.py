"""The JSON that `--json` prints: a contract with its readers. No key is added or renamed without a new `schema`."""

from __future__ import annotations

from typing import Any

from adamas.compare.verdict.result import ArmResult, Summary, finite

SCHEMA = 1


def to_json(results: list[Summary]) -> dict[str, Any]:
    """Everything a program needs of finished studies."""
    return {"schema": SCHEMA, "studies": [study(result) for result in results]}


def study(result: Summary) -> dict[str, Any]:
    """One study; a relative difference is a fraction of Adam with L2's mean, as the margin is."""
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
        "arms": {name: arm_figures(arm) for name, arm in result.arms.items()},
    }


def arm_figures(arm: ArmResult) -> dict[str, Any]:
    """One arm."""
    return {
        "lr": arm.winner.lr,
        "weight_decay": arm.winner.weight_decay,
        "weight_decay_independent": arm.weight_decay_paper,
        "trials": arm.trials,
        "infeasible": arm.without_figures,
        "validation": {"mean": finite(arm.validation.mean), "sd": finite(arm.validation.sd)},
        "test": {
            metric: {"mean": finite(figures.mean), "sd": finite(figures.sd), "values": list(figures.values)}
            for metric, figures in arm.test.items()
        },
    }
