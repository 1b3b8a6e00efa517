"""The contents of the page for one study: the values that the template fills in, and the figures."""

from __future__ import annotations

import base64
from typing import Any

from adamas.compare.report.curves import best_figure, best_rows, curve_figures, curve_rows, milestones, sweeps
from adamas.compare.report.heatmaps import maps
from adamas.compare.report.pairs import differences, seed_lines
from adamas.compare.report.tables import arms_table, differences_table, repetition, runs_csv, separability_table
from adamas.compare.report.text import capitalised
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import figure, words
from adamas.page.text import anchors


def section(result: Summary, anchor: str) -> dict[str, Any]:
    """Return the values of the template, and in "figures" the figures by their HTML ids.

    Args:
        result: The study.
        anchor: The start of all HTML ids of the study.
    """
    search, figures = _search(result) if result.record.grids else (None, {})
    swept, panels = sweeps(result)
    curves = curve_figures(result)
    figures |= curves | panels
    if result.difference is not None:
        figures |= {"seeds": seed_lines(result), "differences": differences(result)}
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
        "csv": base64.b64encode(runs_csv(result).encode()).decode(),
        "figures": {f"{anchor}-{name}": each for name, each in figures.items()},
    }


def _verdict(result: Summary) -> dict[str, Any]:
    """Return the verdict, its warnings, the code to paste and the findings."""
    sentences = (result.verdict.evidence, result.verdict.note)
    return {
        "advice": result.verdict.advice,
        "sentences": [capitalised(text) for text in sentences if text],
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
        "metric": words(settings.workload.metric),
        "margin": f"±{settings.margin}".removesuffix("abs"),
        "seeds": record.pairs,
        "planned": record.planned,
        "runs": len(record.outcomes),
        "pruned": any(arm.pruned for arm in result.arms.values()),
        "without_figures": any(arm.without_figures for arm in result.arms.values()),
        "budget": settings.budget,
        "pilot": record.pilot,
        "foreign_pilots": {
            record.title[name]: pilot
            for name, pilot in record.pilots.items()
            if name in settings.arms and not settings.arms[name].built_in
        },
    }


def _search(result: Summary) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the values of the template for the search, and the figures of the search by name."""
    scale, found = maps(result)
    names = anchors(each.arm for each in found)
    values = {
        "scale": {"best": figure(scale.best), "worst": figure(scale.worst)},
        "maps": [(f"map-{names[each.arm]}", each) for each in found],
        "best": best_rows(result),
        "separability": separability_table(result, scale.worst),
    }
    return values, {f"map-{names[each.arm]}": each.figure for each in found} | {"best": best_figure(result)}
