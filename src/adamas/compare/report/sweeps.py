"""Sweeps over weight decay on variants of the job: where the best decay goes when one thing changes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adamas.compare.report.anchors import anchors
from adamas.compare.report.lines import chart, line
from adamas.compare.search.selection import scores
from adamas.compare.search.sweep import best_decay
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import TIMES, words
from adamas.decay import to_independent

SHOWN = 0.75  # quantile of all figures at which the panels end: far too strong a decay can cost powers of ten
AS_IT_IS = "as it is"  # the job itself, among its variants


def variants(result: Summary) -> list[str]:
    """The variants that were swept, the job itself among them, in the order in which they were."""
    return list(dict.fromkeys(variant for _, variant in result.record.sweeps))


def panels(result: Summary) -> dict[str, tuple[str, dict[str, Any]]]:
    """A title and a figure for each arm that was swept, by the figure's name: a line a variant."""
    record = result.record
    metric = record.settings.workload.metric
    arms = list(dict.fromkeys(arm for arm, _ in record.sweeps))
    names = anchors(arms)
    figures = [
        value
        for runs in record.sweeps.values()
        for value in scores(runs, record.outcomes, metric).values()
        if math.isfinite(value)
    ]
    within = (min(figures), float(np.quantile(figures, SHOWN))) if figures else None
    found: dict[str, tuple[str, dict[str, Any]]] = {}
    for arm in arms:
        traces: list[dict[str, Any]] = []
        for number, variant in enumerate(variants(result)):
            points = scores(record.sweeps[arm, variant], record.outcomes, metric)
            decays = sorted(decay for _, decay in points)
            by_decay = {decay: value for (_, decay), value in points.items()}
            heights = [by_decay[decay] for decay in decays]
            traces.append(line(number, variant or AS_IT_IS, decays, heights, "weight_decay"))
        axis = f"weight_decay (torch); {TIMES} lr {record.winners[arm].lr:.2g}: independent"
        figure = chart(traces, axis, f"validation {words(metric)}", logarithmic=True, within=within)
        found[f"sweep-{names[arm]}"] = (record.title[arm], figure)
    return found


def best_decays(result: Summary) -> dict[str, Any]:
    """The same as text: a row a variant, a column an arm, the best decay in each."""
    record = result.record
    metric = record.settings.workload.metric
    arms = list(dict.fromkeys(arm for arm, _ in record.sweeps))
    return {
        "titles": [record.title[arm] for arm in arms],
        "rows": [
            {
                "variant": variant or AS_IT_IS,
                "decays": [
                    written(best_decay(record.sweeps[arm, variant], record.outcomes, metric), record.winners[arm].lr)
                    for arm in arms
                ],
            }
            for variant in variants(result)
        ],
    }


def written(decay: float, lr: float) -> str:
    """A decay in both conventions; NaN stands for none, where every run diverged."""
    if not math.isfinite(decay):
        return "all diverged"
    return f"{decay:.3g} ({to_independent(decay, lr):.3g})"
