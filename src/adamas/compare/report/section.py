"""The contents of the page for one study: the values that the template fills in, and the figures."""

from __future__ import annotations

from typing import Any

from adamas.compare.report.curves import best_figure, best_rows, curve_figures, curve_rows, milestones, sweeps
from adamas.compare.report.heatmaps import maps
from adamas.compare.report.pairs import differences, interval, seed_lines
from adamas.compare.report.tables import arms_table, differences_table, repetition, runs_table, separability_table
from adamas.compare.report.text import capitalised
from adamas.compare.verdict.reliability import reliability
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import figure
from adamas.page import Figure
from adamas.page.render import cells


def section(result: Summary, anchor: str) -> dict[str, Any]:
    """Return the values of the template, and in "figures" the figures by name.

    Args:
        result: The study.
        anchor: The start of all HTML ids of the study.
    """
    search, figures = _search(result, anchor) if result.record.grids else (None, {})
    swept, panels = sweeps(result)
    curves = curve_figures(result)
    figures |= curves | panels
    if result.difference is not None:
        for each in (interval, seed_lines, differences):
            drawn = each(result, result.difference)
            figures[drawn.name] = drawn
    return {
        "id": anchor,
        **_verdict(result),
        **_method(result),
        "arms": arms_table(result),
        "comparisons": differences_table(result),
        "interval": result.difference.method if result.difference else "",
        "search": search,
        "curves": curve_rows(result) if curves else [],
        "milestones": milestones(result),
        "sweeps": swept,
        "repetition": repetition(result),
        "runs_table": cells(runs_table(result)),
        "figures": figures,
    }


def _verdict(result: Summary) -> dict[str, Any]:
    """Return the verdict, its warnings, the code to paste and the findings."""
    return {
        "advice": result.verdict.advice,
        "evidence": capitalised(result.verdict.evidence),
        "note": result.verdict.note,
        "warnings": [capitalised(text) for text in result.warnings],
        "extend": result.extend,
        "tuned_under": result.tuned_under,
        "code": result.code,
        "groups": result.record.settings.workload.groups,
        "findings": result.findings,
    }


def _method(result: Summary) -> dict[str, Any]:
    """Return the settings of the study, and facts about its pilots and runs."""
    settings, record = result.record.settings, result.record
    return {
        "workload": settings.workload,
        "command": settings.command(),
        "metric": result.metric,
        "margin": settings.margin.band,
        "seeds": record.pairs,
        "planned": record.planned,
        "runs": len(record.outcomes),
        "pruned": any(arm.pruned for arm in result.arms.values()),
        "without_figures": any(arm.without_figures for arm in result.arms.values()),
        "budget": settings.budget,
        "reliability": reliability(settings.budget.name, result.say),
        "pilot": record.pilot,
        "foreign_pilots": {
            result.title[name]: pilot
            for name, pilot in record.pilots.items()
            if name in settings.arms and not settings.arms[name].built_in
        },
    }


def _search(result: Summary, anchor: str) -> tuple[dict[str, Any], dict[str, Figure]]:
    """Return the values of the template for the search, and the figures of the search by name."""
    scale, found = maps(result)
    both = [each for each in found if "others" in each.figure.plot]
    values = {
        "scale": {"best": figure(scale.best), "worst": figure(scale.worst)},
        "maps": found,
        "both_axes": [each.figure for each in both],
        "both_ids": " ".join(f"{anchor}-{each.figure.name}" for each in both),
        "best": best_rows(result),
        "runs": sum(map(len, result.record.searched.values())),
        "separability": separability_table(result, scale.worst),
    }
    return values, {each.figure.name: each.figure for each in found} | {"best": best_figure(result)}
