"""Training and validation of the finalists on their way, and what they say beside their last figures."""

from __future__ import annotations

import math
from typing import Any

from adamas.compare.report.lines import chart, level, line
from adamas.compare.search.record import Record
from adamas.compare.study.arms import JUDGED
from adamas.compare.verdict.curves import (
    Curve,
    at_matched_loss,
    matched_loss,
    mean_curve,
    target,
    time_to_target,
)
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import figure, words


def curves_of(record: Record) -> dict[str, list[Curve]]:
    """The looks at each arm's finalists; none at those that diverged."""
    return {name: [outcome.curve if outcome.ok else () for outcome in record.finals(name)] for name in record.winners}


def curve_figures(result: Summary) -> dict[str, Any]:
    """Training loss and validation against steps, a mean line an arm; empty where nobody looked."""
    metric = words(result.record.settings.workload.metric)
    curves = curves_of(result.record)
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
    return {
        "training": chart(
            [*training, level("matched loss", ends, matched)], "step", "training loss", within=later(training, matched)
        ),
        "validation": chart(
            [*validation, level("target", ends, goal)], "step", f"validation {metric}", within=later(validation, goal)
        ),
    }


def later(traces: list[dict[str, Any]], height: float) -> tuple[float, float]:
    """The ends of what is reached after the first quarter of the looks: what comes before would flatten all the rest.

    Args:
        traces: the curves.
        height: a level that is to be seen too.
    """
    found = [height, *(value for trace in traces for value in trace["y"][len(trace["y"]) // 4 :] if value is not None)]
    return min(found), max(found)


def curve_rows(result: Summary) -> list[dict[str, str]]:
    """The curves as text: a row a look and an arm."""
    return [
        {
            "arm": result.record.title[name],
            "step": f"{moment.step:g}",
            "training": figure(moment.training_loss),
            "validation": figure(moment.validation),
        }
        for name, found in curves_of(result.record).items()
        for moment in mean_curve([curve for curve in found if curve])
    ]


def on_the_way(result: Summary) -> dict[str, Any] | None:
    """Time to the target, and validation at the same training loss, a row an arm; None where nobody looked."""
    curves = curves_of(result.record)
    goal, matched = target(curves, JUDGED), matched_loss(curves)
    if goal is None or matched is None:
        return None
    rows: list[dict[str, str]] = []
    for name, found in curves.items():
        time, at = time_to_target(found, goal), at_matched_loss(found, matched)
        steps = f"{time.steps:.0f}" if time.steps is not None else "half or more never"
        spread = f" ± {figure(at.sd, like=at.mean)}" if math.isfinite(at.sd) else ""
        rows.append(
            {
                "arm": result.record.title[name],
                "steps": steps,
                "steps_never": never(time.never, time.runs),
                "matched": f"{figure(at.mean)}{spread}" if math.isfinite(at.mean) else "none got there",
                "matched_never": never(at.never, at.runs),
            }
        )
    return {"target": figure(goal), "loss": figure(matched), "rows": rows}


def never(count: int, runs: int) -> str:
    """How many runs ended before they got there."""
    return f"{count} of {runs} never" if count else f"all {runs} got there"
