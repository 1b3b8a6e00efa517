"""What the page says of one study."""

from __future__ import annotations

import base64
from typing import Any

from adamas.compare.report.anchors import anchors
from adamas.compare.report.arms_table import arms_table
from adamas.compare.report.cell_text import long
from adamas.compare.report.comparisons import comparisons
from adamas.compare.report.heatmaps import Scale, maps
from adamas.compare.report.pairs import differences, seed_lines
from adamas.compare.report.phrases import unbroken
from adamas.compare.report.progress import curve_figures, curve_rows, on_the_way
from adamas.compare.report.repeat import repeat
from adamas.compare.report.search_progress import best_figure, best_rows
from adamas.compare.report.separable import separability_rows
from adamas.compare.report.sweeps import best_decays, panels
from adamas.compare.report.trials_csv import trials_csv
from adamas.compare.verdict.result import Summary
from adamas.compare.verdict.wording import words


def section(result: Summary, place: str) -> dict[str, Any]:
    """What the template fills in.

    Args:
        result: the study.
        place: where it stands on the page; every id of it begins so.
    """
    figures: dict[str, Any] = {}
    search = None
    if result.record.grids:
        search, found = searched(result)
        figures |= found
    sweeps = panels(result)
    figures |= curve_figures(result) | {name: figure for name, (_, figure) in sweeps.items()}
    if result.difference is not None:
        figures |= {"seeds": seed_lines(result), "differences": differences(result)}
    return {
        "id": place,
        **said(result),
        **done(result),
        "arms": arms_table(result),
        "comparisons": comparisons(result),
        "method": result.difference.method if result.difference else "",
        "search": search,
        "curves": curve_rows(result) if "training" in figures else [],
        "on_the_way": on_the_way(result),
        "sweeps": {
            "panels": [{"id": name, "title": title} for name, (title, _) in sweeps.items()],
            "best": best_decays(result),
        }
        if sweeps
        else None,
        "repeat": repeat(result),
        "csv": base64.b64encode(trials_csv(result).encode()).decode(),
        "figures": {f"{place}-{name}": figure for name, figure in figures.items()},
    }


def said(result: Summary) -> dict[str, Any]:
    """The verdict, and what belongs to it."""
    sentences = (result.verdict.evidence, result.verdict.note, result.settings_sentence)
    return {
        "advice": result.verdict.advice,
        "sentences": [unbroken(text) for text in sentences if text],
        "warnings": [unbroken(text) for text in result.warnings],
        "code": result.code,
        "groups": result.record.settings.workload.groups,
        "findings": result.findings,
    }


def done(result: Summary) -> dict[str, Any]:
    """What was asked for and how it was looked for."""
    settings, record = result.record.settings, result.record
    return {
        "workload": settings.workload,
        "metric": words(settings.workload.metric),
        "margin": settings.margin,
        "seeds": settings.seeds,
        "runs": len(record.outcomes),
        "given_up": any(arm.pruned for arm in result.arms.values()),
        "unfinished": any(arm.without_figures for arm in result.arms.values()),
        "budget": settings.budget,
        "pilot": record.pilot,
        "foreign_pilots": {
            record.title[name]: pilot
            for name, pilot in record.pilots.items()
            if name in settings.arms and not settings.arms[name].built_in
        },
    }


def searched(result: Summary) -> tuple[dict[str, Any], dict[str, Any]]:
    """The maps of what was tried: what stands around the figures, and the figures."""
    scale, arm_maps = maps(result)
    names = anchors(entry.arm for entry in arm_maps)
    around = [
        {
            "id": f"map-{names[entry.arm]}",
            "title": entry.title,
            "caption": entry.caption,
            "lone": entry.lone,
            "rows": entry.rows,
        }
        for entry in arm_maps
    ]
    figures = {f"map-{names[entry.arm]}": entry.figure for entry in arm_maps} | {"best": best_figure(result)}
    return {
        "scale": scale_words(scale),
        "maps": around,
        "best": best_rows(result),
        "separability": separability_rows(result, scale),
    }, figures


def scale_words(scale: Scale) -> dict[str, str]:
    """The ends of the colour scale."""
    return {"best": long(scale.best), "worst": long(scale.worst)}
