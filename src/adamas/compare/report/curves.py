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
from adamas.compare.verdict.wording import figure
from adamas.decay import to_independent
from adamas.language import Texts
from adamas.page import Figure
from adamas.page.lines import chart, level, line
from adamas.page.text import anchors

_SWEEP_SHOWN = 0.75  # quantile of all figures at which the axis ends: too strong a decay can cost powers of ten


def _curves(result: Summary) -> dict[str, list[Curve]]:
    """Return the curves of each arm's finalists; the curve of a finalist without figures is empty."""
    record = result.record
    return {name: [outcome.curve if outcome.ok else () for outcome in record.finals(name)] for name in record.winners}


def curve_figures(result: Summary) -> dict[str, Figure]:
    """Return the charts of training loss and validation over steps; empty if no finalist has a curve."""
    curves = _curves(result)
    means = {name: mean_curve([curve for curve in found if curve]) for name, found in curves.items()}
    means = {name: curve for name, curve in means.items() if curve}
    goal, matched = target(curves, JUDGED), matched_loss(curves)
    if not means or goal is None or matched is None:
        return {}
    ends = (0.0, max(curve[-1].step for curve in means.values()))
    say, metric = result.say, result.metric
    training, validation = [], []
    for number, (name, curve) in enumerate(means.items()):
        steps, title, unit = [moment.step for moment in curve], result.title[name], say("report.step")
        training.append(line(number, title, steps, [moment.training_loss for moment in curve], unit))
        validation.append(line(number, title, steps, [moment.validation for moment in curve], unit))
    loss, best = level(say("report.matched_loss"), ends, matched), level(say("report.target"), ends, goal)
    charts = {
        "training": chart(
            [*training, loss], say("report.step"), say("report.training_axis"), within=_later(training, matched)
        ),
        "validation": chart(
            [*validation, best],
            say("report.step"),
            say("report.validation_axis", metric=metric),
            within=_later(validation, goal),
        ),
    }
    lasts = {
        "training": {name: curve[-1].training_loss for name, curve in means.items()},
        "validation": {name: curve[-1].validation for name, curve in means.items()},
    }
    lowest = {key: min(values.items(), key=lambda item: item[1]) for key, values in lasts.items()}
    return {
        key: Figure(
            key,
            say(f"question.{key}"),
            say(f"answer.{key}", arm=result.title[arm], value=figure(value), metric=metric),
            charts[key],
        )
        for key, (arm, value) in lowest.items()
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
            "arm": result.title[name],
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
    say, rows = result.say, list[dict[str, str]]()
    for name, found in curves.items():
        time, at = time_to_target(found, goal), at_matched_loss(found, matched)
        spread = f" ± {figure(at.sd, like=at.mean)}" if math.isfinite(at.sd) else ""
        rows.append(
            {
                "arm": result.title[name],
                "steps": f"{time.steps:.0f}" if time.steps is not None else say("report.not_reached"),
                "steps_never": _never(time.never, time.runs, say),
                "matched": f"{figure(at.mean)}{spread}" if math.isfinite(at.mean) else say("report.not_reached"),
                "matched_never": _never(at.never, at.runs, say),
            }
        )
    return {"target": figure(goal), "loss": figure(matched), "rows": rows}


def _never(count: int, runs: int, say: Texts) -> str:
    """Return how many runs ended before they got there."""
    return say("report.never" if count else "report.always", count=count, runs=runs)


def _best_so_far(result: Summary) -> dict[str, list[float]]:
    """Return the best validation figure of each arm after 1, 2, ... runs, in the order of the requests."""
    record = result.record
    metric = record.settings.workload.metric
    return {name: best_so_far(runs, record.outcomes, metric) for name, runs in record.searched.items()}


def best_figure(result: Summary) -> Figure:
    """Return the chart of the best validation figure over the number of runs, a line for each arm."""
    say, found = result.say, _best_so_far(result)
    traces = [
        line(number, result.title[name], range(1, len(best) + 1), best, say("report.run"))
        for number, (name, best) in enumerate(found.items())
    ]
    for trace in traces:
        trace |= {"mode": "lines", "line": {**trace["line"], "shape": "hv"}}
    plot = chart(traces, say("report.runs_spent"), say("report.best_axis", metric=result.metric))
    answer = " ".join(
        say("answer.best", arm=result.title[name], at=best.index(best[-1]) + 1, runs=len(best))
        for name, best in found.items()
        if math.isfinite(best[-1])
    )
    return Figure("best", say("question.best"), answer, plot)


def best_rows(result: Summary) -> list[dict[str, Any]]:
    """Return the best validation figures after a quarter, half and all of the runs as text."""
    none = result.say("report.none_yet")
    return [
        {
            "arm": result.title[name],
            "parts": [figure(value) if math.isfinite(value) else none for value in at_parts(best)],
        }
        for name, best in _best_so_far(result).items()
    ]


def sweeps(result: Summary) -> tuple[dict[str, Any] | None, dict[str, Figure]]:
    """Return the table and the charts of the sweeps over weight decay; None and no charts if there was no sweep.

    A chart shows one arm with a line for each variant of the job. The table has a row for each variant and a column
    for each arm with the best decay.
    """
    record, say = result.record, result.say
    if not record.sweeps:
        return None, {}
    metric = record.settings.workload.metric
    found = {key: scores(runs, record.outcomes, metric) for key, runs in record.sweeps.items()}
    decays = {key: best_decay(runs, record.outcomes, metric) for key, runs in record.sweeps.items()}
    arms, variants = (list(dict.fromkeys(names)) for names in zip(*found, strict=True))
    finite = [value for values in found.values() for value in values.values() if math.isfinite(value)]
    within = (min(finite), float(np.quantile(finite, _SWEEP_SHOWN))) if finite else None
    charts: dict[str, Figure] = {}
    for arm, anchor in anchors(arms).items():
        traces: list[dict[str, Any]] = []
        for number, variant in enumerate(variants):
            points = sorted((config.weight_decay, value) for config, value in found[arm, variant].items())
            places, heights = zip(*points, strict=True)
            traces.append(line(number, variant or say("word.unchanged"), places, heights, "weight_decay"))
        axis = say("report.sweep_axis", lr=f"{record.winners[arm].lr:.2g}")
        plot = chart(traces, axis, say("report.validation_axis", metric=result.metric), logarithmic=True, within=within)
        question = say("question.sweep", arm=result.title[arm])
        answer = _moves([decays[arm, variant] for variant in variants], say)
        charts[f"sweep-{anchor}"] = Figure(f"sweep-{anchor}", question, answer, plot)

    def best(arm: str, variant: str) -> str:
        decay = decays[arm, variant]
        if not math.isfinite(decay):
            return say("report.all_diverged")
        return f"{decay:.3g} ({to_independent(decay, record.winners[arm].lr):.3g})"

    rows = [(variant or say("word.unchanged"), [best(arm, variant) for arm in arms]) for variant in variants]
    return {"panels": list(charts), "titles": [result.title[arm] for arm in arms], "rows": rows}, charts


def _moves(decays: list[float], say: Texts) -> str:
    """Return a sentence on how far the best decay moves between the variants of a job."""
    if not all(map(math.isfinite, decays)):
        return say("answer.sweep_diverged")
    low, high = min(decays), max(decays)
    return say("answer.sweep", low=f"{low:.3g}", high=f"{high:.3g}", ratio=f"{high / low:.3g}")
