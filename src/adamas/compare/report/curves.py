"""The line charts of the page and the same figures as text: training, the search so far, sweeps over decay."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from adamas.compare.search.selection import scores
from adamas.compare.search.sweep import best_decay
from adamas.compare.study.arms import JUDGED
from adamas.compare.verdict.curves import (
    Curve,
    at_matched_loss,
    at_parts,
    best_so_far,
    matched_loss,
    mean_curve,
    target,
    time_to_target,
)
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import TIMES, figure, words
from adamas.decay import to_independent
from adamas.page.lines import chart, level, line
from adamas.page.text import anchors

_SWEEP_SHOWN = 0.75  # quantile of all figures at which the axis ends: too strong a decay can cost powers of ten
_UNCHANGED = "as it is"  # the name of the job itself among its variants


def _curves(result: Summary) -> dict[str, list[Curve]]:
    """Return the curves of each arm's finalists; the curve of a finalist without figures is empty."""
    record = result.record
    return {name: [outcome.curve if outcome.ok else () for outcome in record.finals(name)] for name in record.winners}


def curve_figures(result: Summary) -> dict[str, Any]:
    """Return the charts of training loss and validation over steps; empty if no finalist has a curve."""
    curves = _curves(result)
    means = {name: mean_curve([curve for curve in found if curve]) for name, found in curves.items()}
    means = {name: curve for name, curve in means.items() if curve}
    goal, matched = target(curves, JUDGED), matched_loss(curves)
    if not means or goal is None or matched is None:
        return {}
    ends = (0.0, max(curve[-1].step for curve in means.values()))
    training, validation = [], []
    for number, (name, curve) in enumerate(means.items()):
        steps, title = [moment.step for moment in curve], result.record.title[name]
        training.append(line(number, title, steps, [moment.training_loss for moment in curve], "step"))
        validation.append(line(number, title, steps, [moment.validation for moment in curve], "step"))
    metric = words(result.record.settings.workload.metric)
    loss, best = level("matched loss", ends, matched), level("target", ends, goal)
    return {
        "training": chart([*training, loss], "step", "training loss", within=_later(training, matched)),
        "validation": chart([*validation, best], "step", f"validation {metric}", within=_later(validation, goal)),
    }


def _later(traces: list[dict[str, Any]], height: float) -> tuple[float, float]:
    """Return the lowest and the highest figure after the first quarter of the curves, a level included.

    The figures of the first quarter are often so high that the rest would look flat.
    """
    found = [height, *(value for trace in traces for value in trace["y"][len(trace["y"]) // 4 :] if value is not None)]
    return min(found), max(found)


def curve_rows(result: Summary) -> list[dict[str, str]]:
    """Return the curves as text, a row for each point."""
    return [
        {
            "arm": result.record.title[name],
            "step": f"{moment.step:g}",
            "training": figure(moment.training_loss),
            "validation": figure(moment.validation),
        }
        for name, found in _curves(result).items()
        for moment in mean_curve([curve for curve in found if curve])
    ]


def milestones(result: Summary) -> dict[str, Any] | None:
    """Return each arm's time to the target and its validation at the same training loss; None without curves."""
    curves = _curves(result)
    goal, matched = target(curves, JUDGED), matched_loss(curves)
    if goal is None or matched is None:
        return None
    rows: list[dict[str, str]] = []
    for name, found in curves.items():
        time, at = time_to_target(found, goal), at_matched_loss(found, matched)
        spread = f" ± {figure(at.sd, like=at.mean)}" if math.isfinite(at.sd) else ""
        rows.append(
            {
                "arm": result.record.title[name],
                "steps": f"{time.steps:.0f}" if time.steps is not None else "not reached",
                "steps_never": _never(time.never, time.runs),
                "matched": f"{figure(at.mean)}{spread}" if math.isfinite(at.mean) else "not reached",
                "matched_never": _never(at.never, at.runs),
            }
        )
    return {"target": figure(goal), "loss": figure(matched), "rows": rows}


def _never(count: int, runs: int) -> str:
    """Return how many runs ended before they got there."""
    return f"not reached by {count} of {runs} seeds" if count else f"reached by all {runs} seeds"


def _best_so_far(result: Summary) -> dict[str, list[float]]:
    """Return the best validation figure of each arm after 1, 2, ... runs, in the order of the requests."""
    record = result.record
    metric = record.settings.workload.metric
    return {name: best_so_far(runs, record.outcomes, metric) for name, runs in record.searched.items()}


def best_figure(result: Summary) -> dict[str, Any]:
    """Return the chart of the best validation figure over the number of runs, a line for each arm."""
    traces = [
        line(number, result.record.title[name], range(1, len(best) + 1), best, "run")
        for number, (name, best) in enumerate(_best_so_far(result).items())
    ]
    for trace in traces:
        trace |= {"mode": "lines", "line": {**trace["line"], "shape": "hv"}}
    return chart(traces, "runs spent", f"best validation {words(result.record.settings.workload.metric)}")


def best_rows(result: Summary) -> list[dict[str, Any]]:
    """Return the best validation figures after a quarter, half and all of the runs as text."""
    return [
        {
            "arm": result.record.title[name],
            "parts": [figure(value) if math.isfinite(value) else "none yet" for value in at_parts(best)],
        }
        for name, best in _best_so_far(result).items()
    ]


def sweeps(result: Summary) -> tuple[dict[str, Any] | None, dict[str, Any]]:
    """Return the table and the charts of the sweeps over weight decay; None and no charts if there was no sweep.

    A chart shows one arm with a line for each variant of the job. The table has a row for each variant and a column
    for each arm with the best decay.
    """
    record = result.record
    if not record.sweeps:
        return None, {}
    metric = record.settings.workload.metric
    found = {key: scores(runs, record.outcomes, metric) for key, runs in record.sweeps.items()}
    arms, variants = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    ids = {arm: f"sweep-{anchor}" for arm, anchor in anchors(arms).items()}
    finite = [value for values in found.values() for value in values.values() if math.isfinite(value)]
    within = (min(finite), float(np.quantile(finite, _SWEEP_SHOWN))) if finite else None
    charts: dict[str, Any] = {}
    for arm in arms:
        traces: list[dict[str, Any]] = []
        for number, variant in enumerate(variants):
            points = sorted((config.weight_decay, value) for config, value in found[arm, variant].items())
            decays, heights = zip(*points, strict=True)
            traces.append(line(number, variant or _UNCHANGED, decays, heights, "weight_decay"))
        axis = f"weight_decay (torch); {TIMES} lr {record.winners[arm].lr:.2g}: paper"
        charts[ids[arm]] = chart(traces, axis, f"validation {words(metric)}", logarithmic=True, within=within)

    def best(arm: str, variant: str) -> str:
        decay = best_decay(record.sweeps[arm, variant], record.outcomes, metric)
        if not math.isfinite(decay):
            return "all diverged"
        return f"{decay:.3g} ({to_independent(decay, record.winners[arm].lr):.3g})"

    rows = [(variant or _UNCHANGED, [best(arm, variant) for arm in arms]) for variant in variants]
    return {"panels": [(ids[arm], record.title[arm]) for arm in arms], "rows": rows}, charts
